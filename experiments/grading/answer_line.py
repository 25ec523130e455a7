r"""The value in a line that gives the answer: `The answer is: \frac{1}{2}.`, `Answer: **C**`.

The rest of the line counts, without its final period, its markup, and the ` ки` that one public
training set ends its steps with. Words before the value do not win over it ("the largest $n$ is 34"),
nor do words after it ("42 because ...").
"""

import re

from experiments.grading.formulas import (
    FORMULA,
    FORMULA_OR_NUMBER,
    NUMBER,
    bare,
    holds_words,
    is_formula,
)

_BETWEEN = r"(?:\s+(?:to|for|of|in)\s+[^.:\n=$\\]{1,60}?|\s*\([A-Za-z ]{1,20}\))?"
_ANSWER_IS = re.compile(
    rf"\b(?:answers?|(?:correct|right)\s+(?:option|choice))\b\W{{0,3}}?{_BETWEEN}[*_]{{0,2}}\s*"
    r"(?:\b(?:is|are|equals|was|will\s+be|would\s+be|should\s+be|must\s+be)\b|[:：=])[:：\s*_]*"
    r"|答案(?:是|为|：|:)[:：\s*_]*",
    re.IGNORECASE,
)
_TRAILING = re.compile(r"(?:\s*ки|[\s*_`]|(?<!\\)\\\\|<[^<>\s]{1,20}>|<\|[^|]*\|>)+$")
_HOPE = re.compile(r"\s*I hope (?:it|this) is correct\.?\s*$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?=\s+[A-Z(\\$]|\s*$)|[;!?](?=\s|$)|(?<=[\d$)}])\.(?=\s)")
_CHOICE = re.compile(r"\(?([A-J])\)?(?:[.:)]\s|\s*$|(?<=\))\s)")
_OPTION = re.compile(r"(?:option|choice)\s+(\(?[A-J]\)?)(?![A-Za-z])", re.IGNORECASE)
_SEVERAL = re.compile(rf"{NUMBER}(?:\s*(?:,|,?\s+(?:and|or)\s)\s*{NUMBER})+")
_FORMULAS = re.compile(
    rf"(?:{FORMULA})(?:\s*(?:,|,?\s+(?:and|or)\s)\s*(?:{FORMULA}|{NUMBER}))*", re.DOTALL
)
_VALUE_START = re.compile(r"[-−+]?\s*(?:[\d.$(\[{|]|\\(?!text|mathrm|textbf)|[A-Za-z](?![A-Za-z]))")
_LONE_NAME = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?|\\[A-Za-z]+")
_VERB = re.compile(r"\b(?:is|are|equals|equal\s+to|be)\b[:\s*]*|:\s+", re.IGNORECASE)
_BREAK = re.compile(r"[^\\]\s+(?!(?:and|or)\b)(?=[A-Za-z]{2,})|,\s+(?=[A-Za-z]{2,}(?!\s*[=(]))")
_WORDS = re.compile(r"[^\n.!?;]{1,80}")
_DISPLAY = re.compile(r"\$\$[^$]+\$\$|\\\[(?:(?!\\\[).)+?\\\]", re.DOTALL)
_LONGEST = 4000


def answer_after(text: str) -> str | None:
    """What follows the last "answer is" of a response, to its end; None where there is none."""
    last = None
    for last in _ANSWER_IS.finditer(text):  # noqa: B007
        pass
    return (text[last.end() :].lstrip(" \t*_\n\r") or None) if last else None


def first_line(rest: str) -> str:
    """The first line of what follows, or its first displayed formula, without marks around it."""
    display = _DISPLAY.match(rest)
    return tidy(display.group() if display else rest.split("\n", 1)[0])


def tidy(text: str) -> str:
    """A text without the marks around it."""
    text = _HOPE.sub("", text.strip()[:_LONGEST])
    text = _TRAILING.sub("", text)
    return text.replace("**", "").strip("*_` ")


def value_in(line: str) -> str | None:
    """The value that a line gives, as written but for the formula's delimiters."""
    text = sentence(line)
    if not text:
        return None
    if is_formula(text) or not holds_words(text):
        return _single(text)
    choice = _OPTION.match(text)
    if choice or _CHOICE.match(text):
        return choice.group(1) if choice else text
    formulas = _FORMULAS.match(text)
    if formulas and not _is_name(formulas.group()):
        return _single(formulas.group())
    if not formulas and _VALUE_START.match(text):
        several = _SEVERAL.match(text)
        return several.group() if several else _value_at_start(text)
    return _value_after_words(text)


def sentence(line: str) -> str:
    """The first sentence of a line; a period inside a formula ends none."""
    inside = [formula.span() for formula in re.finditer(FORMULA, line, re.DOTALL)]
    for end in _SENTENCE_END.finditer(line):
        if not any(first < end.start() < last for first, last in inside):
            line = line[: end.start()]
            break
    return line.strip().rstrip(".").strip()


def _is_name(formula: str) -> bool:
    return _LONE_NAME.fullmatch(formula.strip("$ ").strip()) is not None


def _single(text: str) -> str | None:
    several = _SEVERAL.fullmatch(text)
    found = several.group() if several else bare(text)
    return found or None


def _value_at_start(text: str) -> str | None:
    # An equation leads on to its value: 3 + 4 = 7 apples.
    cut = _BREAK.search(text)
    value = text[: cut.start() + 1] if cut else text
    value = value.strip().rstrip(",:")
    if "=" in value:
        return bare(value)
    number = FORMULA_OR_NUMBER.match(value)
    return number.group() if number and holds_words(value) else value or None


def _value_after_words(text: str) -> str | None:
    for verb in reversed(list(_VERB.finditer(text))):
        tail = text[verb.end() :].strip()
        if tail and (is_formula(tail) or not holds_words(tail)):
            return _single(tail)
        if FORMULA_OR_NUMBER.match(tail):
            return value_in(tail)
    found = FORMULA_OR_NUMBER.search(text)
    if found and found.group("formula"):
        return bare(found.group())
    if found:
        number = re.search(NUMBER, text.rpartition("=")[2])
        return number.group() if number else found.group()
    words = _WORDS.match(text)
    return words.group().strip(" *") or None if words else None
