r"""Formulas written as in a program, in LaTeX: exp(16), pi/2, sqrt(3), 2*pi, x**2."""

import re

from experiments.grading.functions import ELEMENTARY

_PLAIN_FUNCTION = re.compile(
    rf"(?<![\\A-Za-z])(?<!text\{{)(?<!name\{{)(?<!rm\{{)({'|'.join(ELEMENTARY)})"
    r"(?=\s*[\d(*/+\-^),}]|\s*$)"
)
_STARS = re.compile(r"\*\*|(?<=[\w)}])\s*\*\s*(?=[\w(\\])")


def without_braces(text: str) -> str:
    """Braces around the whole only group it: {2, 3} is 2, 3."""
    text = text.strip()
    while text.startswith("{") and text.endswith("}") and _closing(text, 1, "{}") == len(text) - 1:
        text = text[1:-1].strip()
    return text


def in_latex(text: str) -> str:
    """A formula written as in a program, in LaTeX."""
    if "*" in text:
        text = _STARS.sub(lambda star: "^" if star.group() == "**" else r" \cdot ", text)
    if not _PLAIN_FUNCTION.search(text):
        return text
    text = _PLAIN_FUNCTION.sub(lambda name: "\\" + name.group(1), text)
    for name, start in ((r"\sqrt", r"\sqrt{"), (r"\exp", "e^{")):
        text = _with_braces(text, name, start)
    return text


def _with_braces(text: str, name: str, start: str) -> str:
    """name(x) -> start x}, for the calls whose parentheses close."""
    at = text.find(name)
    while at >= 0:
        opened = re.compile(r"\s*\(").match(text, at + len(name))
        close = _closing(text, opened.end(), "()") if opened else None
        if close is not None:
            inner = text[opened.end() : close]
            text = f"{text[:at]}{start}{inner}}}{text[close + 1 :]}"
        at = text.find(name, at + len(name))
    return text


def _closing(text: str, start: int, pair: str) -> int | None:
    """Where the bracket closes that opened before `start`; None if it does not."""
    depth = 1
    for place in range(start, len(text)):
        if text[place] in pair and text[place - 1] != "\\":
            depth += 1 if text[place] == pair[0] else -1
            if depth == 0:
                return place
    return None
