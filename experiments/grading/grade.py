"""Verdicts on responses.

Formulas are compared in a process of their own (`experiments.grading.equivalence`), which the operating
system ends when an answer takes too long. Equal texts and plain numbers need no such process.
"""

import dataclasses
import functools

from experiments import child_python
from experiments.grading.answer_form import join_thousands, plain_number
from experiments.grading.extraction import candidates

_SECONDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a response is right, and the answer that was found in it (None: no answer)."""

    correct: bool
    extracted: str | None


def grade(response: str, reference: str, *, seconds: float = _SECONDS) -> Verdict:
    """Grade a response. Any thread may call it.

    Args:
      response: the model's text.
      reference: the right answer, bare (`42`, `\\frac{1}{2}`).
      seconds: limit for comparing; past it the response counts as wrong.

    Returns:
      `Verdict`.

    Raises:
      RuntimeError: the process that compares formulas does not start.
    """
    answers = candidates(response)
    for answer in answers:
        if _equivalent(answer, reference.strip(), seconds):
            return Verdict(correct=True, extracted=answer)
    return Verdict(correct=False, extracted=answers[0] if answers else None)


# Post-training grades the same few short answers over and over.
@functools.lru_cache(maxsize=65536)
def _equivalent(answer: str, reference: str, seconds: float) -> bool:
    if answer == reference:
        return True
    found, expected = plain_number(join_thousands(answer)), plain_number(join_thousands(reference))
    if found is not None and expected is not None:
        return found == expected
    try:
        return _COMPARER.ask({"answer": answer, "reference": reference, "seconds": seconds})
    except child_python.WorkerEnded:
        return False


_COMPARER = child_python.Worker("experiments.grading.equivalence", "compares formulas")
