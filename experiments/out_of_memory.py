"""Out of memory is an event: the work is halved once or twice, then the user is told what would help.

An allocation fails with RESOURCE_EXHAUSTED in JAX, on a device or on the host, and with MemoryError in
Python, numpy and bound C++ code. Work that can be divided goes on in halves, from where it was; what
still does not fit ends the program in one line of advice.
"""

from collections.abc import Callable

import jax

from experiments.errors import InputError

_HALVINGS = 2
_STATUS = "RESOURCE_EXHAUSTED"
_SIGNS = (
    "Out of memory",
    "out of memory",
    "bad_alloc",
    "Cannot allocate memory",
)
_ADVICE = (
    "what needs less: a smaller --batch_answers (answers) or --batch_tokens (scores), "
    "--numerics=bfloat16, --mesh=model:2 on two devices, --memory=stream (scores only)"
)


class OutOfMemoryError(InputError):
    """The memory does not hold the smallest piece of work; the message says what would help."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, is a failed allocation."""
    while error is not None:
        if isinstance(error, MemoryError | OutOfMemoryError):
            return True
        # XLA's status, which JAX raises as its own error or as a ValueError.
        if str(error).startswith(_STATUS):
            return True
        # XLA again, and threads or files that the system refuses for want of memory.
        of_system = isinstance(error, jax.errors.JaxRuntimeError | RuntimeError | OSError)
        if of_system and any(sign in str(error) for sign in _SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


def end_of(error: BaseException, what: str = "") -> OutOfMemoryError:
    """The error that a run ends in: one line, with advice.

    Args:
      error: the failed allocation.
      what: what did not fit, if the caller knows.
    """
    if isinstance(error, OutOfMemoryError):
        return error
    # XLA's second line on begins a table of its buffers.
    reason = " ".join(str(error).strip().split("\n")[0].split())[:200] or type(error).__name__
    return OutOfMemoryError(f"{what}{': ' if what else ''}out of memory ({reason}); {_ADVICE}")


class Halving:
    """How much work is done at once, halved where it does not fit.

        most = Halving(128, "gsm8k base: answers", say)
        while work:
            try:
                ...  # most.size at a time
            except Exception as error:
                most.after(error)

    Args:
      size: what to begin with.
      what: what is counted, for messages.
      say: receives one line for each halving.
    """

    def __init__(self, size: int, what: str, say: Callable[[str], None]):
        self.size = size
        self._what, self._say, self._left = what, say, _HALVINGS

    def after(self, error: Exception, *, failed: int | None = None, least: int = 1) -> None:
        """Go on with half if the error is a failed allocation.

        Args:
          error: what was raised.
          failed: how much work failed, if it was less than `size`.
          least: the new size is a multiple of this.

        Raises:
          OutOfMemoryError: it was halved twice before, or there is no smaller piece.
          Exception: the error itself, if it is another.
        """
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise error
        failed = self.size if failed is None else failed
        half = failed // 2 // least * least
        # Several processes compute one program: no one of them can change its shape.
        if not self._left or not half or jax.process_count() > 1:
            raise end_of(error, f"{failed:,} {self._what} at once") from None
        self._say(f"{failed:,} {self._what} at once: out of memory, on with {half:,}")
        self.size, self._left = half, self._left - 1
