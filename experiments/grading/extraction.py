r"""The final answer in a response, as written.

Thinking (`<think>...</think>`) is left out first. The answer is then taken from the first of these
that the response has:

1. the last complete `\boxed{}` or `\fbox{}` that is not empty; boxes of one sentence that only words
   join are one answer of several values; a box that is not closed is no answer;
2. what follows the last `####` on its line, unless that is a heading (`#### Step 2`);
3. what follows the last "answer is" or "answer:", see `answer_line`;
4. the last formula or number.

Time is linear in the response's length, so that endless responses cost nothing.
"""

import re

from experiments.grading.answer_line import answer_after, first_line, sentence, tidy, value_in
from experiments.grading.boxes import extract_boxed, has_box
from experiments.grading.formulas import FORMULA_OR_NUMBER, bare
from experiments.grading.thinking import without_thinking

_HEADING = re.compile(r"(?:step|part|case|method|question)\b|\d+[.)]\s|.*:\s*$", re.IGNORECASE)


def candidates(text: str) -> tuple[str, ...]:
    """The final answer as written but for the formula's `$`, then longer readings of its place.

    Nothing where the response has none.

    "The answer is all numbers but 2" holds a number, and is an answer of words; an answer of several
    lines begins with a first one.
    """
    text = without_thinking(text)
    if has_box(text):
        return _some(extract_boxed(text))
    if (rest := _after_hashes(text)) is not None:
        rest = answer_after(rest) or rest
        line = first_line(rest)
        return _some(bare(line), *_longer(line, rest))
    if (rest := answer_after(text)) is not None:
        line = first_line(rest)
        return _some(value_in(line), *_longer(line, rest))
    heading = tidy(text.rpartition("####")[2]) if "####" in text else None
    return _some(_last(text), heading)


def _longer(line: str, rest: str) -> tuple[str, ...]:
    return sentence(line), line.rstrip(". "), tidy(rest).rstrip(". ")


def _some(*found: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in found if text))


def _after_hashes(text: str) -> str | None:
    rest = text.rpartition("####")[2].strip() if "####" in text else ""
    return rest if rest and not _HEADING.match(rest.split("\n", 1)[0]) else None


def _last(text: str) -> str | None:
    found = None
    for found in FORMULA_OR_NUMBER.finditer(text):  # noqa: B007
        pass
    return bare(found.group()) if found else None
