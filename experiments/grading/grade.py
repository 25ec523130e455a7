"""Verdicts on responses.

Formulas are compared in a process of their own (`experiments.grading.equivalence`), which the operating
system ends when an answer takes too long: an alarm in this process would wait for a huge power to be
computed, and would work in the main thread only. Equal texts and plain numbers need no such process.
"""

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
import threading

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
    return _COMPARER.ask(answer, reference, seconds)


class _Comparer:
    """The process that compares formulas: started at the first question, again after its death."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner = 0

    def ask(self, answer: str, reference: str, seconds: float) -> bool:
        question = {"answer": answer, "reference": reference, "seconds": seconds}
        with self._lock:
            # A forked process must not read the answers to its parent's questions.
            if self._process is None or self._owner != os.getpid():
                self._start()
            try:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
                reply = self._process.stdout.readline()
            except BrokenPipeError:
                reply = ""
            except BaseException:  # An interrupt: its answer must not go to the next question.
                self.stop()
                raise
            if not reply.endswith("\n"):  # Its alarm, or the end of its memory or stack.
                self.stop()
                return False
            return json.loads(reply)

    def _start(self) -> None:
        # In a session of its own it does not get the interrupts that a user sends to this one.
        self._process = subprocess.Popen(
            child_python.command("-m", "experiments.grading.equivalence"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=child_python.environment(),
            start_new_session=True,
        )
        self._owner = os.getpid()
        if self._process.stdout.readline() != "ready\n":
            self.stop()
            raise RuntimeError(
                "grading: expected the process that compares formulas to start, found that "
                f"{sys.executable} -m experiments.grading.equivalence ended"
            )

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # What was not sent yet is not missed.
            process.stdin.close()


_COMPARER = _Comparer()
atexit.register(_COMPARER.stop)
