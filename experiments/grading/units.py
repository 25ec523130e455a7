"""Units and percent signs at the end of an answer."""

import re

from experiments.grading.functions import FUNCTIONS, OPERATORS

_NO_UNITS = {*FUNCTIONS, *OPERATORS}


def split_percent(text: str) -> tuple[str, bool]:
    """(text without its percent sign, whether it had one)."""
    bare = re.sub(r"\s*(?:%|\\text\{\s*(?:%|percent)\s*\}|percent)$", "", text)
    return (bare, True) if bare and bare != text else (text, False)


_UNITS = {
    "cm": "centimeter centimetre", "mm": "millimeter millimetre", "m": "meter metre",
    "km": "kilometer kilometre", "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile",
    "g": "gram", "kg": "kilogram", "mg": "milligram", "lb": "pound", "oz": "ounce",
    "s": "second sec", "min": "minute", "h": "hour hr", "d": "day", "wk": "week", "yr": "year",
    "l": "liter litre", "ml": "milliliter millilitre", "gal": "gallon", "degree": "deg circ",
    "degc": "circc", "degf": "circf", "km/h": "kmh kmph kph", "mi/h": "mph", "m/s": "", "rad": "radian",
    "dollar": "usd", "cent": "", "am": "", "pm": "", "unit": "", "n": "newton", "j": "joule",
}  # fmt: skip
_UNIT = {alias: unit for unit, aliases in _UNITS.items() for alias in [unit, *aliases.split()]}
_POWER = r"(?:\s*\^\s*\{?\d\}?)?"
_UNIT_TAIL = re.compile(
    rf"(?<=[\d}})\w.])\s*(?P<unit>\^\s*\\circ\s*(?:\\text\{{)?\s*[CF]?\}}?|"
    rf"(?:(?:\\text\{{[^{{}}]*\}}{_POWER}|/|\\cdot|\s)+)|"
    rf"(?:\s|(?<=\d))(?:[A-Za-z]{{2,}}|(?<=\s)[a-zA-Z](?=\s|\^|/|$)){_POWER}"
    rf"(?:\s*/\s*[A-Za-z]+{_POWER}|\s+[A-Za-z.]+{_POWER})*)$"
)


def split_unit(text: str) -> tuple[str, str]:
    """(text without its unit, the unit in one spelling, or an empty string)."""
    found = _UNIT_TAIL.search(text)
    if not found or not found.group("unit").strip() or not text[: found.start()].strip(" ({"):
        return text, ""
    raw = re.sub(r"\\text|[\\{}^.]|cdot", " ", found.group("unit")).casefold()
    if any(name in _NO_UNITS for name in raw.split()):
        return text, ""
    letters = re.fullmatch(r"\s*[a-z]\s*", raw) and "\\text" not in found.group("unit")
    if letters and raw.strip() not in _UNIT:
        return text, ""
    return text[: found.start()].strip(), _unit(raw)


def _unit(raw: str) -> str:
    """`square centimeters` and `cm 2` -> `cm2`; words that are no unit say nothing."""
    power = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
    tail = "".join(power.get(word, "") for word in raw.split())
    names = []
    for word in re.findall(r"[a-z]+|\d|/", raw.replace("per", "/")):
        name = (
            _UNIT.get(word)
            or _UNIT.get(word.removesuffix("s"))
            or (word if not word.isalpha() else "")
        )
        names.append(name)
    name = "".join(names) + tail
    return _UNIT.get(name, name)
