"""An HTML page as tests read it: elements with their text, tables as rows, embedded data."""

import html.parser
import json

VOID = {"meta", "link", "br", "img", "input"}


class Page(html.parser.HTMLParser):
    """Elements as (tag, attributes, text inside), with nesting checked.

    `ancestors` holds the tags around an element by the element's id().
    """

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements, self._open, self.problems, self.ancestors = [], [], [], {}
        self.feed(text)
        self.close()
        self.problems += [f"not closed: {element[0]}" for element in self._open]

    def handle_starttag(self, tag, attrs):
        """See HTMLParser."""
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        self.ancestors[id(element)] = [open_[0] for open_ in self._open]
        if tag == "br":
            self.handle_data(" ")
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        """See HTMLParser."""
        if not self._open or self._open.pop()[0] != tag:
            self.problems.append(f"closed out of turn: {tag} at {self.getpos()}")

    def handle_data(self, data):
        """See HTMLParser."""
        for element in self._open:
            element[2] += data

    def all(self, tag, **attributes):
        """Elements of a tag whose attributes hold these values; `class_` stands for class."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            e for e in self.elements
            if e[0] == tag and all(e[1].get(name) == value for name, value in wanted.items())
        ]  # fmt: skip

    def text(self, tag, **attributes):
        """Text of the one such element, white space made single."""
        ((_, _, text),) = self.all(tag, **attributes)
        return " ".join(text.split())


def rows(parsed, caption):
    """Rows of the table in the region of this name, cells as plain text."""
    (region,) = [e for e in parsed.all("div") if e[1].get("aria-label") == caption]
    place = parsed.elements.index(region)
    found = []
    for tag, _, content in parsed.elements[place + 2 :]:
        if tag in ("table", "section", "h3"):
            break
        if tag == "tr":
            found.append([])
        if tag in ("td", "th"):
            found[-1].append(" ".join(content.split()))
    return found


def edges_of(parsed):
    """The data of the explorer."""
    return json.loads(parsed.all("script", type="application/json")[0][2])
