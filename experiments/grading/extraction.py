r"""The final answer in a response, as written.

Taken from the first of these that the response has:

1. the last complete `\boxed{}` or `\fbox{}` that is not empty; boxes joined by nothing but a comma,
   "and" or "or" are one answer of several values;
2. what follows the last `####` on its line, unless that is a heading (`#### Step 2`);
3. what follows the last "answer is" or "answer:";
4. the last formula or number.

Time is linear in the response's length, so that endless responses cost nothing.
"""

import re

_BOX = re.compile(r"\\f?box(?:ed)?\s*(?=\{)|\\.|[{}]", re.DOTALL)
_JOINT = re.compile(r"[\s$]*(?:,|,?\s*(?:and|or)\b)[\s$]*(?:[A-Za-z]\s*=\s*)?")
_LONGEST_JOINT = 40

_HEADING = re.compile(r"(?:step|part|case|method|question)\b|\d+[.)]\s|.*:\s*$", re.IGNORECASE)
_ANSWER_IS = re.compile(r"\banswer(?:\s+is\b|\s*:)[:\s*]*", re.IGNORECASE)

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_TEN_TO = r"(?:\s*(?:[x×*]|\\times)\s*10\^\{?[-−]?\d+\}?)"
_NUMBER = rf"(?:(?<![\w)])[-−+])?\$?(?:{_DIGITS})(?:/\d+|[eE][-+]?\d+|{_TEN_TO})?(?:\s*\\?%)?"
# An opening $ stands before a formula and a closing one after it; others are currency.
_FORMULA = r"\$\$[^$]+\$\$|\$(?![\s$])[^$\n]*[^$\s\\]\$(?!\d)"
# A formula holds no second opening, so that unclosed ones are not searched again and again.
_FORMULA += r"|\\\((?:(?!\\\().)+?\\\)|\\\[(?:(?!\\\[).)+?\\\]"
_FORMULA_OR_NUMBER = re.compile(rf"(?P<formula>{_FORMULA})|{_NUMBER}", re.DOTALL)
_SEVERAL = re.compile(rf"{_NUMBER}(?:\s*(?:,|,?\s+(?:and|or)\s)\s*{_NUMBER})+")
_WORDS = re.compile(r"[^\n.!?;]{1,80}")
_LEFT_SIDE = re.compile(r"\s*(?:[A-Za-z](?:\([a-z]\))?|(?:\\[A-Za-z]+|[^A-Za-z])*)\s*")


def extract_answer(text: str) -> str | None:
    """The final answer in a response, as written but for the formula's `$`; None if there is none."""
    return extract_boxed(text) or _after_hashes(text) or _after_answer_is(text) or _last(text)


def extract_boxed(text: str) -> str | None:
    r"""Content of the last complete `\boxed{}` that is not empty, or None."""
    boxes, opened = [], []
    starts_box = None
    for token in _BOX.finditer(text):
        if token.group() == "{":
            opened.append(starts_box if starts_box and starts_box.end() == token.start() else None)
        elif token.group() == "}" and opened:
            box = opened.pop()
            content = text[box.end() + 1 : token.start()].strip() if box else ""
            # A box around nothing but a box is that box.
            if content and not (boxes and content == text[boxes[-1][0] : boxes[-1][1]]):
                boxes.append((box.start(), token.end(), content))
        starts_box = token if "box" in token.group() else None
    if not boxes:
        return None
    # The outer one of two nested boxes closes last.
    start, _, content = boxes.pop()
    values = [content]
    while boxes and 0 <= start - boxes[-1][1] <= _LONGEST_JOINT:
        if not _JOINT.fullmatch(text, boxes[-1][1], start):
            break
        start, _, content = boxes.pop()
        if content not in values:
            values.insert(0, content)
    return ", ".join(values)


def _after_hashes(text: str) -> str | None:
    if "####" not in text:
        return None
    line = text.rsplit("####", 1)[1].strip().split("\n", 1)[0].strip()
    line = _ANSWER_IS.split(line)[-1].strip(" *")
    if not line or _HEADING.match(line):
        return None
    return _bare(line)


def _after_answer_is(text: str) -> str | None:
    starts = [match.end() for match in _ANSWER_IS.finditer(text)]
    if not starts:
        return None
    line = text[starts[-1] :].split("\n", 1)[0]
    several = _SEVERAL.match(line)
    if several:
        return several.group()
    # The first formula or number, unless an equation leads on to a later one: 3 + 4 = 7.
    found = _FORMULA_OR_NUMBER.search(line)
    if found and found.group("formula"):
        return _bare(found.group())
    if found:
        first = re.split(r"\.\s|\.$", line, maxsplit=1)[0].rpartition("=")[2]
        number = re.search(_NUMBER, first)
        return number.group() if number else found.group()
    words = _WORDS.match(line)
    return words.group().strip(" *") or None if words else None


def _last(text: str) -> str | None:
    found = None
    for found in _FORMULA_OR_NUMBER.finditer(text):  # noqa: B007
        pass
    return _bare(found.group()) if found else None


def _bare(text: str) -> str:
    """A formula without its delimiters and without what it is set equal to."""
    text = text.strip()
    if re.fullmatch(_FORMULA, text, re.DOTALL):
        text = text.strip("$") if text.startswith("$") else text[2:-2]
    left, equals, right = text.rpartition("=")
    if equals and right.strip() and ("=" in left or _LEFT_SIDE.fullmatch(left)):
        text = right
    return text.strip().removesuffix(".").strip()
