"""Answer extraction and equivalence, by math-verify.

The answer is the content of the last `\\boxed{}`, otherwise what follows the last `####`, otherwise
the last expression that math-verify finds. Equivalence is mathematical, not textual.
"""

import dataclasses
import functools
import logging
import re

from math_verify import parse, verify
from math_verify.errors import TimeoutException

# math-verify logs a traceback for every expression that it cannot read; the verdict says it all.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)

_SECONDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a response is right, and the answer that was found in it (None: no answer)."""

    correct: bool
    extracted: str | None


def grade(response: str, reference: str, *, seconds: int = _SECONDS) -> Verdict:
    """Grade a response.

    Args:
      response: the model's text.
      reference: the right answer, bare (`42`, `\\frac{1}{2}`).
      seconds: limit for each of parsing and comparing; past it the response counts as wrong.
        Needs the main thread, whose alarm signal enforces it.

    Returns:
      `Verdict`.
    """
    answer = extract_answer(response)
    if answer is None:
        return Verdict(correct=False, extracted=None)
    return Verdict(correct=_equivalent(answer, reference, seconds), extracted=answer)


def extract_answer(text: str) -> str | None:
    """The final answer in a response, as written, or None."""
    boxed = extract_boxed(text)
    if boxed is not None:
        return boxed.strip()
    if "####" in text:
        return text.rsplit("####", 1)[1].strip().split("\n")[0]
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?", text)
    return numbers[-1] if numbers else None


def extract_boxed(text: str) -> str | None:
    """Content of the last complete `\\boxed{...}`, braces balanced."""
    for start in reversed([m.end() for m in re.finditer(r"\\boxed\s*\{", text)]):
        depth = 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[start:end]
    return None


# Post-training grades the same few short answers over and over.
@functools.lru_cache(maxsize=65536)
def _equivalent(answer: str, reference: str, seconds: int) -> bool:
    if answer == reference:
        return True
    try:
        expected = parse(f"${reference}$", parsing_timeout=seconds)
        found = parse(f"${answer}$", parsing_timeout=seconds)
        return bool(expected and found and verify(expected, found, timeout_seconds=seconds))
    except TimeoutException:
        return False
