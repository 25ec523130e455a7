"""Texts that a user gives in Python, as text or as token ids -> token ids that a model knows.

Text becomes the ids that the study gives it: a prompt gets the tokenizer's special tokens once, and an
answer is tokenised behind its prompt and cut there (`responses.continuation`). Special tokens written
in an answer are text; give ids for a stop token that counts.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eap_jax.batching import Text
from eap_jax.config import ModelConfig
from experiments.errors import InputError
from experiments.responses.continuation import continue_prompt, prompt_of_ids, prompt_of_text
from experiments.scoring.memory import check_length

Tokens = str | Sequence[int]


def given_prompts(
    prompts: Iterable[Tokens], *, tokenizer: Callable[[], Any], config: ModelConfig
) -> list[tuple[int, ...]]:
    """Prompts as token ids.

    Args:
      prompts: texts or token ids.
      tokenizer: gives the tokenizer; called for text only, since ids need none.
      config: the model.

    Raises:
      InputError: one is empty, or the model does not know one of its tokens.
    """
    return [
        _prompt(prompt, f"text {place}: prompt", tokenizer, config)
        for place, prompt in enumerate(prompts)
    ]


def given_texts(
    texts: Iterable[tuple[Tokens, Tokens]],
    *,
    tokenizer: Callable[[], Any],
    config: ModelConfig,
) -> list[Text]:
    """(prompt, answer) pairs as texts whose targets are the answers' tokens.

    Args:
      texts: the pairs.
      tokenizer, config: as in `given_prompts`.

    Raises:
      InputError: there is none, one is longer than the model reads, an answer's tokens do not give its
        text back, or as `given_prompts`.
    """
    prepared = []
    for place, (prompt, answer) in enumerate(texts):
        name = f"text {place}"
        read = _prompt(prompt, f"{name}: prompt", tokenizer, config)
        if isinstance(answer, str):
            before = (
                prompt_of_text(tokenizer(), prompt)
                if isinstance(prompt, str)
                else prompt_of_ids(tokenizer(), list(read))
            )
            answer = continue_prompt(tokenizer(), before, answer, name).tokens
        targets = _known(answer, f"{name}: answer", config)
        prepared.append(Text(tokens=(*read, *targets[:-1]), targets=targets))
        check_length(prepared[-1], config, name)
    if not prepared:
        raise InputError("texts: expected at least one (prompt, answer) pair, found none")
    return prepared


def _prompt(
    given: Tokens, place: str, tokenizer: Callable[[], Any], config: ModelConfig
) -> tuple[int, ...]:
    if isinstance(given, str):
        given = prompt_of_text(tokenizer(), given).tokens
    return _known(given, place, config)


def _known(given: Iterable[int], place: str, config: ModelConfig) -> tuple[int, ...]:
    tokens, vocabulary = tuple(int(token) for token in given), config.vocab_size
    if not tokens or not all(0 <= token < vocabulary for token in tokens):
        found = "none" if not tokens else f"{min(tokens)} to {max(tokens)}"
        raise InputError(f"{place}: expected token ids from 0 to {vocabulary - 1}, found {found}")
    return tokens
