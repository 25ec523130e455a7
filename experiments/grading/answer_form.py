r"""The form of an answer: one spelling of LaTeX, and its parts: items, names, choices, words."""

import dataclasses
import re
from decimal import Decimal, InvalidOperation

from experiments.grading.functions import FUNCTIONS, OPERATORS
from experiments.grading.plain_formula import in_latex, without_braces

_SIGNS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ",
    "°": r"^\circ ", "≤": r"\le ", "≥": r"\ge ", "<=": r"\le ", ">=": r"\ge ", "∪": r"\cup ",
    "∈": r"\in ", "±": r"\pm ", "’": "'", "€": "", "£": "", r"\$": "", "$": "", r"\(": "", r"\)": "",
    r"\[": "", r"\]": "", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\langle": "(", r"\rangle": ")",
    r"\displaystyle": "", r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac",
    r"\leqslant": r"\le", r"\geqslant": r"\ge",
    r"\leq": r"\le", r"\geq": r"\ge", r"\varnothing": r"\emptyset", r"\degree": r"^\circ",
    r"\mathrm{i}": "i", r"\mathrm{e}": "e", "infinity": r"\infty", r"\lor": ",", r"\%": "%",
}  # fmt: skip
_SIGN = re.compile(
    "|".join(
        (r"(?<!\\)" if sign[0] == "\\" else "")  # Not the end of a matrix's row.
        + re.escape(sign)
        + (r"(?![A-Za-z])" if sign[-1].isalpha() and sign[0] == "\\" else "")
        for sign in sorted(_SIGNS, key=len, reverse=True)
    )
)
_TEXT = r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mbox|operatorname|rm)\b\s*"
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*")
_SPACE_IN_NUMBER = re.compile(r"(?<=\d)(?:\{,\}|,?\\[,!;: ]|,\s*\\!)\s*(?=\d{3}(?!\d))")
_SPACES = re.compile(r"(?:(?<!\\)\\[,;:! ]|\\q?quad(?![a-z])|~|\s)+")
_AND_OR = re.compile(
    r"\s*,?\s*(?:\\text\{\s*(?:and|or)\s*\}|(?<![A-Za-z])(?:and|or)(?![A-Za-z]))\s*|;\s*"
)
_LABEL = re.compile(
    r"^\s*(?:the\s+)?(?:general\s+)?(?:solution|answer|result|value)s?\s*(?:is|are)?\s*:",
    re.IGNORECASE,
)

_OPENING = re.compile(r"\s*(?:[A-Za-z]{3,}\s*[.:]|(?i:yes|no)\b|[A-Za-z]{3,} [A-Za-z]{2,}\b)")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_TEN_TO = re.compile(
    r"\s*(?:\\times|\\cdot|[*x×])\s*10\s*\^\s*(?:\{\s*([-+]?\d+)\s*\}|([-+]?\d+))$"
)
_VARIABLE = re.compile(r"[A-Za-df-hj-z]")
_LONGEST_NUMBER = 2000
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|lt|gt|ne|neq|equiv)(?![A-Za-z])")
_NAME = re.compile(
    r"(?:\\text\{[^{}]*\}|\\?[A-Za-z]+(?: [A-Za-z]+)*)(?:'|_\{?\w+\}?|\^\{-1\})*"
    r"(?:\([A-Za-z\\, ]*\))?|\\frac\{d\w*\}\{d\w*\}"
)


def canonical(text: str) -> str:
    """One spelling for what looks the same in print."""
    text = re.sub(r"\$[\s;,]*\n\s*\$", ", ", text).replace("\n", " ")
    text = _LABEL.sub("", _SPACE_IN_NUMBER.sub("", text))
    text = _SIGN.sub(lambda sign: _SIGNS[sign.group()], text)
    text = re.sub(_TEXT + r"\{", r"\\text{", _SIZES.sub("", text))
    text = _AND_OR.sub(", ", text) if not _is_prose(text) else text
    text = _SPACES.sub(" ", text)
    text = without_braces(text)
    text = text if _is_prose(text) else in_latex(text)
    text = re.sub(r"\\text\{\s*\}", "", text)
    text = re.sub(r"\^\{\s*\\circ\s*\}", r"^\\circ", text)
    text = re.sub(r"\^\s*(-?\d{2,})", r"^{\1}", text)
    # 3\frac{1}{2} and 3 1/2 are sums.
    text = re.sub(r"(?<![\w}.^_])(\d+)\s+(\d+)/(\d+)(?![\w/])", r"\1\\frac{\2}{\3}", text)
    text = re.sub(
        r"(?<![\w}.^_])(\d+)\s*\\frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?(?!\w)",
        r"(\1+\\frac{\2}{\3})",
        text,
    )
    text = text.strip().rstrip(".,").removeprefix(r"\approx").strip()
    text = re.sub(r"^[A-Za-z]\s*\\in(?![A-Za-z])\s*", "", text)
    # An inequality with its interval beside it: the interval.
    text = re.sub(r"^[^:]*(?:[<>]|\\[lg]e(?![a-z]))[^:]*:\s*(?=[(\[])", "", text)
    # A series with its dots parses only if they are a term.
    text = re.sub(r"(?<=[-+])\s*\\[cl]?dots(?![a-z])", r"\\Xi ", text)
    # {x | x < 0} is x < 0.
    text = re.sub(r"\\\{\s*[A-Za-z]\s*(?:\\mid|\\vert|:|\|)\s*((?:(?!\\\}).)*)\\\}", r"\1", text)
    return re.sub(r"\\(max|min)(?=\s*(?:at\b|\.))", r"\1", text).strip()


def join_thousands(text: str) -> str:
    """1,234 as one number."""
    return re.sub(
        r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d)", lambda n: n.group().replace(",", ""), text
    )


def plain_number(text: str) -> Decimal | None:
    """The value of a plain number, or None. Exact and quick, however large the exponent."""
    text = text.strip()
    if len(text) > _LONGEST_NUMBER:
        return None
    power = _TEN_TO.search(text)
    if power:
        text = f"{text[: power.start()]}e{power.group(1) or power.group(2)}"
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collection:
    """Several values: their brackets (None: bare) and the texts between the commas."""

    brackets: tuple[str, str] | None
    items: list[str]


_TOKEN = re.compile(r"\\[{}]|\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPEN, _CLOSE = ("(", "[", "{", "\\{"), (")", "]", "}", "\\}")


def _split(text: str, separator: str) -> list[str]:
    """Parts between the separators that stand in no bracket."""
    parts, depth = [""], 0
    for token in _TOKEN.findall(text):
        depth += (token in _OPEN) - (token in _CLOSE)
        if token == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def collection(text: str) -> Collection | None:
    """The items of a list, tuple, set or interval; None where the text is one value."""
    items = _split(text, ",")
    if len(items) > 1:
        return Collection(brackets=None, items=[item for item in items if item])
    tokens = _TOKEN.findall(text)
    if len(tokens) < 2 or tokens[0] not in ("(", "[", "\\{") or tokens[-1] not in (")", "]", "\\}"):
        return None
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth == 0 and i < len(tokens) - 1:
            return None
    items = _split("".join(tokens[1:-1]), ",")
    if len(items) == 1 and tokens[0] != "\\{":
        return None
    return Collection(brackets=(tokens[0], tokens[-1]), items=[item for item in items if item])


def union(text: str) -> list[str]:
    r"""The parts of a union, between `\cup`."""
    return _split(text, r"\cup")


def plus_minus(text: str) -> list[str]:
    r"""The two values of an expression with `\pm`, or the expression alone."""
    if not re.search(r"\\pm(?![a-z])", text) or len(_split(text, ",")) > 1:
        return [text]
    signs = (("+", "-"), ("-", "+"))
    return [
        re.sub(r"\\mp(?![a-z])", minus, re.sub(r"\\pm(?![a-z])", plus, text)).strip()
        for plus, minus in signs
    ]


def has_relation(text: str) -> bool:
    """Whether the text is an equation or an inequality."""
    return bool(_RELATION.search(_outside(text)))


def _outside(text: str) -> str:
    r"""The text with brackets emptied: \sum_{n=1} holds no equation."""
    kept, depth = [], 0
    for token in _TOKEN.findall(text):
        depth -= token in _CLOSE
        if depth <= 0:
            kept.append(token)
        depth += token in _OPEN
    return "".join(kept)


def assignment(text: str) -> tuple[str, str]:
    """(name, value) of `x = 5`; the name is empty where nothing is named."""
    exact, *rounded = _split(text, r"\approx")
    if rounded and _NAME.fullmatch(exact):
        text = f"{exact}={rounded[0]}"
    elif rounded:
        text = exact
    name, *values = _split(text, "=")
    if not values or re.search(r"[<>]|\\[lg]e(?![a-z])", _outside(text)):
        return "", text
    # \log_6(216) = 3 is its value.
    if "\\" in name and not _VARIABLE.search(re.sub(r"\\[A-Za-z]+", "", name)):
        return "", values[-1]
    if not _NAME.fullmatch(name) and not _is_quantity(name):
        return "", text
    return re.sub(r"\s", "", name), values[-1]


def _is_quantity(name: str) -> bool:
    r"""Whether a left side names one thing by capital letters: |AB|, \frac{NO}{BO}, S_{ABC} : S."""
    letters = re.sub(r"\\[A-Za-z]+|_\{?\w+\}?", " ", name)
    return bool(re.search(r"[A-Z]", letters)) and not re.search(r"[a-z]", letters)


_CHOICE = re.compile(
    r"(?:\\text\{\s*)?(?:\(([A-J])\)\s*\}?[.:]?|([A-J])\s*[.):])\s*(?:\\text\{\s*\})?(?=\S)(.+)",
    re.DOTALL,
)


def split_choice(text: str) -> tuple[str, str]:
    """(letter, text) of a choice such as `(C) 42` or `C. 42`; the letter is empty for other texts."""
    found = _CHOICE.fullmatch(text)
    return (found.group(1) or found.group(2), found.group(3)) if found else ("", text)


def _is_prose(text: str) -> bool:
    """Whether words, not formulas, make the answer."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r"\1", re.sub(_TEXT + r"\{", r"\\text{", text))
    plain = re.sub(r"\\(?:begin|end)\{[a-z]+\*?\}(?:\{[a-z|]+\})?", " ", plain)
    plain = re.sub(r"\\[A-Za-z]+|[_^]\{?\w+\}?", " ", plain)
    found = re.findall(r"[A-Za-z]{2,}", plain)
    found = [word for word in found if word.casefold() not in ("and", "or", *FUNCTIONS, *OPERATORS)]
    # "No. Consider", "radius: 5, centre: ...", "local min. (0, 0)"
    if _OPENING.match(text) or "@" in text:
        return True
    return len(found) > 2 and not re.match(r"\s*[-(]?[\d.\\]", text)


def words(text: str, *, force: bool = False) -> str | None:
    r"""The words of an answer that is words (`\text{odd}`, (C), Yes), in lower case; None for a formula.

    Args:
      text: canonical.
      force: read any text as words.
    """
    bare = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    is_words = (
        re.fullmatch(r"\(?(?:\\text\{[^{}\d]*\}\s*)+\)?", text)
        or re.fullmatch(r"\([A-Z]\)", text)
        or re.fullmatch(r"[A-Za-z]{3,}(?:[ '-]+[A-Za-z]+)*", text)
        or re.fullmatch(r"(?i:no|yes|dne)", text)
        or _is_prose(text)
    )
    if not is_words and not force:
        return None
    bare = re.sub(r"\s+", " ", bare).strip(" .")
    bare = re.sub(r"^\(\s*(\w+)\s*\)$", r"\1", bare)
    return bare if len(bare) == 1 and not is_words else bare.casefold()
