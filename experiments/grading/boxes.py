r"""The answer in a response's `\boxed{}`, of one box or of several that belong together."""

import re

_BOX = re.compile(r"\\f?box(?:ed)?\s*(?=\{)|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$\\.,;]+)")
_LONGEST_JOINT = 60
# What stands between two boxes of one answer: words, but no new sentence, paragraph or formula.
_JOINT = re.compile(
    r"(?:\\text(?:rm|bf|it)?\s*\{[^{}]*\}|\\q?quad|\\[,;:! ]|[^.;!?=\\{}\n]|\n(?!\s*\n))*"
)
_JOINED_AT_ALL = re.compile(r"[A-Za-z]|[,&]|\([a-z0-9]+\)")
# Words after which the second box says the first one again, or corrects it.
_ANOTHER_TRY = re.compile(
    r"\b(?:then|so|thus|therefore|hence|but|wait|no|not|instead|rather|actually|equivalently|"
    r"i\.?e|that is|which (?:is|gives|equals|becomes|simplifies)|simplif\w+|step|approximately)\b|[≈→⇒]",
    re.IGNORECASE,
)
_NAME_OF_NEXT = re.compile(r"\\?[A-Za-z]\w*\s*=\s*$")


def has_box(text: str) -> bool:
    """Whether the response boxes anything, complete or not."""
    return re.search(r"\\f?box(?:ed)?\s*\{\s*[^\s}]|\\boxed\s+\w", text) is not None


def extract_boxed(text: str) -> str | None:
    r"""Content of the last complete `\boxed{}` that is not empty, or None.

    Boxes that only words join, in one sentence, are one answer of several values, in their order.
    """
    boxes = _boxes(text)
    if not boxes:
        bare = list(_BARE_BOX.finditer(text))
        return bare[-1].group(1) if bare else None
    # The outer one of two nested boxes closes last.
    start, _, content = boxes.pop()
    values = [content]
    while boxes and 0 <= start - boxes[-1][1] <= _LONGEST_JOINT:
        if not _joins(text[boxes[-1][1] : start]):
            break
        start, _, content = boxes.pop()
        if content not in values:
            values.insert(0, content)
    return ", ".join(values)


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(first character, end, content) of every box that closes and holds something."""
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
    return boxes


def _joins(between: str) -> bool:
    """Whether the text between two boxes makes them values of one answer."""
    between = _NAME_OF_NEXT.sub("", between.replace("$", " ").rstrip())
    return bool(
        _JOINT.fullmatch(between)
        and _JOINED_AT_ALL.search(between)
        and not _ANOTHER_TRY.search(between)
    )
