"""The choices of a multiple-choice row, however its data set keeps them."""

import json
import re
import string
from typing import Any

_FIELDS = ("choices", "options", "Options", "endings")
_LETTERED = re.compile(r"\(?[A-Z]\s*[).:]")


def choices_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    """(letter as printed, text) of each choice, or nothing where the row has none.

    Read are lists of texts, lists whose texts have their letters (AQuA), `{"text": [...],
    "label": [...]}` (ARC), `{"A": ...}`, fields A, B, C, D, and each of these as JSON text. Choices
    without letters get them.
    """
    found = next((row[name] for name in _FIELDS if row.get(name)), None)
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return []
    if found is None and all(isinstance(row.get(letter), str) for letter in "ABCD"):
        found = {letter: row[letter] for letter in string.ascii_uppercase if row.get(letter)}
    if isinstance(found, dict) and isinstance(found.get("text"), list):
        labels, texts = found.get("label") or string.ascii_uppercase, found["text"]
    elif isinstance(found, dict):
        labels, texts = list(found), list(found.values())
    elif isinstance(found, list):
        labels, texts = string.ascii_uppercase, found
    else:
        return []
    if len(texts) < 2 or not all(isinstance(text, (str, int, float)) for text in texts):
        return []
    texts = [str(text).strip() for text in texts]
    if all(_LETTERED.match(text) for text in texts):
        return [("", text) for text in texts]
    return [(f"{label}. ", text) for label, text in zip(labels, texts, strict=False)]
