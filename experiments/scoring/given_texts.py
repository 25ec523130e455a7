"""Texts that a user gives in Python, as text or as token ids -> token ids that a model knows."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eap_jax.batching import Text
from eap_jax.config import ModelConfig
from experiments.errors import InputError
from experiments.scoring.memory import check_length

Tokens = str | Sequence[int]


def given_tokens(
    given: Tokens, part: str, place: int, *, tokenizer: Callable[[], Any], vocabulary: int
) -> tuple[int, ...]:
    """Token ids as the study makes them: a prompt gets the tokenizer's special tokens.

    Args:
      given: text or token ids.
      part: `prompt` or `answer`.
      place: number of the text, for messages.
      tokenizer: gives the tokenizer; called for text only, since ids need none.
      vocabulary: number of ids that the model knows.

    Raises:
      InputError: it is empty, or the model does not know one of its tokens.
    """
    if isinstance(given, str):
        given = tokenizer()(given, add_special_tokens=part == "prompt")["input_ids"]
    tokens = tuple(int(token) for token in given)
    if not tokens or not all(0 <= token < vocabulary for token in tokens):
        found = "none" if not tokens else f"{min(tokens)} to {max(tokens)}"
        raise InputError(
            f"text {place}: {part}: expected token ids from 0 to {vocabulary - 1}, found {found}"
        )
    return tokens


def given_texts(
    texts: Iterable[tuple[Tokens, Tokens]],
    tokens: Callable[[Tokens, str, int], tuple[int, ...]],
    config: ModelConfig,
) -> list[Text]:
    """(prompt, answer) pairs as texts whose targets are the answers' tokens.

    Args:
      texts: the pairs.
      tokens: `given_tokens` with its model.
      config: that model.

    Raises:
      InputError: there is none, one is longer than the model reads, or as `given_tokens`.
    """
    prepared = []
    for place, (prompt, answer) in enumerate(texts):
        read, targets = tokens(prompt, "prompt", place), tokens(answer, "answer", place)
        prepared.append(Text(tokens=(*read, *targets[:-1]), targets=targets))
        check_length(prepared[-1], config, f"text {place}")
    if not prepared:
        raise InputError("texts: expected at least one (prompt, answer) pair, found none")
    return prepared
