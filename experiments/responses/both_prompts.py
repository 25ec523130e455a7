"""Both models' prompts, compared before any work.

The published rule keeps a row only where its two prompts have the same number of tokens; which tokens
they are is not looked at, so each model reads its own. Where they differ, a change may be the prompt's:
that is said, with the first difference.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.errors import InputError
from experiments.responses.questions import Question
from experiments.responses.shared_ids import SharedIds
from experiments.responses.tokenization import encode_prompt, load_tokenizer
from experiments.study.opened import OpenStudy, Say
from experiments.study.pairs import SIDES, Side

# What of an idx, base's prompt and rl's prompt.
Prompts = tuple[int | str, Sequence[int], Sequence[int]]


def check_prompts(
    opened: OpenStudy, dataset: str, questions: Sequence[Question], ids: SharedIds, say: Say
) -> None:
    """Both sides' prompts, before the first answer is generated: a broken tokenizer or template of the
    second side would be found after hours.

    Args:
      opened: the study.
      dataset: its name.
      questions: what will be asked.
      ids: what both models' ids are.
      say: receives a line where prompts differ.

    Raises:
      InputError, CheckpointError: a tokenizer is missing or broken, or is not its model's; a prompt has
        an id that only one side has; no prompt has the same number of tokens on both sides.
    """
    prompt, found, tokenizers = opened.study.pair.prompt, {}, {}
    for side in SIDES:
        tokenizers[side] = load_tokenizer(opened.checkpoints[side])
        found[side] = [encode_prompt(tokenizers[side], prompt, question) for question in questions]
        vocabulary = opened.configs[side].vocab_size
        highest = max(map(max, found[side]), default=0)
        if highest >= vocabulary:
            raise InputError(
                f"{side} checkpoint: {opened.checkpoints[side]}: expected token ids below the model's "
                f"vocabulary size {vocabulary}, found {highest}: the tokenizer is another's"
            )
    names = [question.idx for question in questions]
    prompts = list(zip(names, found["base"], found["rl"], strict=True))
    say_prompts(dataset, prompts, say, tokenizers)
    counted = [one for one in prompts if len(one[1]) == len(one[2])]
    if prompts and not counted:
        raise InputError(
            f"{dataset}: expected prompts with the same number of tokens on both sides, which the "
            f"published rule keeps, found none among {len(prompts)}; give both models one tokenizer and "
            "template, or a --prompt that both cut into as many tokens"
        )
    for idx, *both in counted:
        for side, tokens in zip(SIDES, both, strict=True):
            ids.check(
                tokens, side, f"{dataset}: question {idx}: {side}'s prompt",
                "give a --prompt without it",
            )  # fmt: skip


def say_prompts(
    dataset: str,
    prompts: Sequence[Prompts],
    say: Say,
    tokenizers: Mapping[Side, Any] | None = None,
) -> None:
    """Say how many prompts are not the same on both sides, and the first difference.

    Args:
      dataset: its name.
      prompts: idx, base's ids and rl's ids of each question.
      say: receives the line, if any.
      tokenizers: show the words of the first difference, where they are known.
    """
    differing = [one for one in prompts if list(one[1]) != list(one[2])]
    if not differing:
        return
    uneven = sum(len(base) != len(rl) for _, base, rl in differing)
    idx, *both = differing[0]
    shortest = min(map(len, both))
    at = next((i for i in range(shortest) if both[0][i] != both[1][i]), shortest)
    words = {side: _words(tokenizers and tokenizers[side]) for side in SIDES}
    parts = " and ".join(
        f"{words[side](tokens[at]) if at < len(tokens) else 'nothing'} in {side}"
        for side, tokens in zip(SIDES, both, strict=True)
    )
    lengths = (
        f"; {uneven} differ in their number of tokens and are not counted, as the published rule says"
        if uneven
        else ""
    )
    say(
        f"{dataset}: warning: {len(differing)} of {len(prompts)} prompts become other token ids in rl "
        f"than in base: the first is question {idx}, token {at + 1}: {parts}{lengths}; each model reads "
        "its own prompt, so a change may be the prompt's"
    )


def _words(tokenizer) -> Callable[[int], str]:
    if tokenizer is None:
        return str
    return lambda token: f"{token} ({tokenizer.convert_ids_to_tokens(token)!r})"
