"""Python processes of our own that import this program, whatever folder they start in.

`python -m` and `python -c` look in the folder at hand first, and a user's folder may well hold an
`experiments` of its own. `-P` leaves that folder out; PYTHONPATH names the place of this program.

A `Worker` does what may not end, or may take all memory, in a process that the operating system ends: an
alarm in this process would wait for a huge power to be computed, and reaches the main thread only.
"""

import atexit
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PACKAGES = Path(__file__).resolve().parents[1]


def command(*words: str) -> list[str]:
    """A Python with these arguments, to be started with `environment()`."""
    return [sys.executable, "-P", *words]


def environment() -> dict[str, str]:
    """This process's environment, in which a `command` finds the packages of this program first."""
    paths = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


class WorkerEnded(Exception):  # noqa: N818
    """A worker ended over a question: its alarm, or the end of its memory or stack.

    Attributes:
      in_time: False where it was its alarm.
    """

    def __init__(self, in_time: bool):
        super().__init__("a process of this program ended over a question")
        self.in_time = in_time


class Worker:
    """A process that answers questions, started at the first one and again after its death. Any thread
    may ask.

    Args:
      module: run as a program, it calls `answer_questions`.
      task: what it does, for a message.
    """

    def __init__(self, module: str, task: str):
        self._module, self._task = module, task
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner = 0
        atexit.register(self.stop)

    def ask(self, question: dict[str, Any]) -> Any:
        """The process's reply to a question, both of what JSON holds.

        Raises:
          WorkerEnded: it ended over the question.
          RuntimeError: it does not start.
        """
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
            if not reply.endswith("\n"):
                ended = self._process
                with contextlib.suppress(subprocess.TimeoutExpired):
                    ended.wait(1)  # for how it ended
                self.stop()
                raise WorkerEnded(
                    in_time=ended.returncode not in (-signal.SIGALRM, -signal.SIGPROF)
                )
            return json.loads(reply)

    def _start(self) -> None:
        # In a session of its own it does not get the interrupts that a user sends to this one.
        self._process = subprocess.Popen(
            command("-m", self._module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # What transformers has to say on its import, this process has said already.
            env=environment() | {"TRANSFORMERS_VERBOSITY": "error"},
            start_new_session=True,
        )
        self._owner = os.getpid()
        if self._process.stdout.readline() != "ready\n":
            self.stop()
            raise RuntimeError(
                f"expected the process that {self._task} to start, found that {sys.executable} -m "
                f"{self._module} ended"
            )

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # What was not sent yet is not missed.
            process.stdin.close()


def answer_questions(
    answer: Callable[[dict[str, Any]], Any], *, memory: int, computing: bool = False
) -> None:
    """A worker's program: answer every line of standard input with one line.

    Args:
      answer: from a question, which has the key `seconds`, to the reply; it raises nothing.
      memory: bytes of address space that it may have beyond those of its imports, where the system
        tells them.
      computing: seconds are those that the process computes, not those that pass.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    timer, alarm = (
        (signal.ITIMER_PROF, signal.SIGPROF) if computing else (signal.ITIMER_REAL, signal.SIGALRM)
    )
    # The alarm ends the process: no handler runs while one huge power is being computed.
    signal.signal(alarm, signal.SIG_DFL)
    held = Path("/proc/self/statm")
    pages = int(held.read_text(encoding="ascii").split()[0]) if held.exists() else 0
    memory += pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # Parsers print what they cannot read; the reply says it all.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        signal.setitimer(timer, question["seconds"])
        reply = answer(question)
        signal.setitimer(timer, 0)
        print(json.dumps(reply), file=replies, flush=True)
