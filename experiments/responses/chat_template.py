"""Messages in a tokenizer's chat template, which is a program that came with the model."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from experiments.errors import InputError
from experiments.study.pairs import CHAT

# Seconds that a template may take; a usual one takes less than a millisecond.
_PATIENCE = 5.0


def render_messages(tokenizer, messages: list[dict[str, str]]) -> str:
    """Chat messages as the tokenizer's template writes them, up to where the answer begins.

    Raises:
      InputError: there is no template, or it is broken, refuses them or does not end.
    """
    if tokenizer.chat_template is None:
        raise InputError(f"prompt {CHAT}: the tokenizer has no chat template")
    try:
        with _limit(_PATIENCE):
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
    # Whatever the template's own words raise: errors of jinja, of types, of memory.
    except Exception as error:
        found = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise InputError(
            f"prompt {CHAT}: {tokenizer.name_or_path}: the chat template fails: {found}; --prompt gives "
            "a text with {question} instead"
        ) from None
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            f"prompt {CHAT}: {tokenizer.name_or_path}: expected a chat template that gives text, "
            f"found {str(text)[:60]!r}; --prompt gives a text with {{question}} instead"
        )
    return text


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Stop what runs too long. Signals reach the main thread only; elsewhere there is no limit."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return

    def stop(*_):
        raise TimeoutError(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
