r"""Formulas, numbers and words in a line of text, as patterns."""

import re

from experiments.grading.functions import FUNCTIONS

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_TEN_TO = r"(?:\s*(?:[x×*]|\\times)\s*10\^\{?[-−]?\d+\}?)"
NUMBER = rf"(?:(?<![\w)])[-−+])?\$?(?:{_DIGITS})(?:/\d+|[eE][-+]?\d+|{_TEN_TO})?(?:\s*\\?%)?"
# An opening $ stands before a formula and a closing one after it; others are currency. With spaces
# inside, only what holds no word is a formula.
_LETTERS = r"\\[A-Za-z]+(?:\s*\{[^{}$\n]*\})?|\\.|(?<![A-Za-z])[A-Za-z](?![A-Za-z])|[^$\n\\A-Za-z]"
_DOLLARS = r"\$\$[^$]+\$\$|\$(?![\s$])[^$\n]*[^$\s\\]\$(?!\d)"
_SPACED = rf"\$(?:[ \t]+(?:{_LETTERS})+?|(?![\s$])(?:{_LETTERS})+?[ \t]+)\$(?!\d)"
# A formula holds no second opening, so that unclosed ones are not searched again and again.
_BRACKETED = r"\\\((?:(?!\\\().)+?\\\)|\\\[(?:(?!\\\[).)+?\\\]"
FORMULA = rf"{_DOLLARS}|{_SPACED}|{_BRACKETED}"
FORMULA_OR_NUMBER = re.compile(rf"(?P<formula>{FORMULA})|{NUMBER}", re.DOTALL)
_WHOLE_FORMULA = re.compile(FORMULA, re.DOTALL)

_NO_WORDS = {*FUNCTIONS, "gcd", "lcm", "infinity", "inf", "deg", "and", "or"}
_MARKUP = re.compile(r"\\[A-Za-z]+\s*\{[^{}]*\}|\\[A-Za-z]+|[_^]\{?\w+\}?")
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2,}(?![A-Za-z])")
_LEFT_SIDE = re.compile(r"\s*(?:[A-Za-z](?:\([a-z]\))?|(?:\\[A-Za-z]+|[^A-Za-z])*)\s*")


def is_formula(text: str) -> bool:
    """Whether the whole text is one formula between its delimiters."""
    return _WHOLE_FORMULA.fullmatch(text) is not None


def holds_words(text: str) -> bool:
    r"""Whether there are words that are no function's name; what stands in `\text{}` is none."""
    found = (word.group().casefold() for word in _WORD.finditer(_MARKUP.sub(" ", text)))
    return any(word not in _NO_WORDS for word in found)


def bare(text: str) -> str:
    """A formula without its delimiters, and a calculation or a named value without its left side."""
    text = text.strip()
    if is_formula(text):
        text = text.strip("$") if text.startswith("$") else text[2:-2]
    text = text.strip().rstrip(".").strip()
    if re.search(r",(?!\d{3}(?!\d))|\b(?:and|or)\b|\\text|[<>]|\\[lg]e", text):
        return text  # Several values, each perhaps with its name.
    left, equals, right = text.rpartition("=")
    if equals and right.strip() and ("=" in left or _LEFT_SIDE.fullmatch(left)):
        text = right
    return text.strip()
