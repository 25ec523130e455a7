"""Decoding a workload of mixed lengths: refilled rows against whole batches and transformers.

96 prompts of 16 to 200 tokens with answers of 8 to 400, most of them short: 8 plus an exponential
length of mean 100, so that 2 % run to the limit. Lengths are imposed: random weights stop nowhere.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from eap_jax.generation import Sampling, generate
from eap_jax.parameters import separate_layers
from eap_jax.transformer import init_parameters
from experiments.bench.measure import in_turn
from experiments.bench.programs import Preset, has_torch

_ROWS = 32
_PROMPTS, _MEAN, _LIMIT = 96, 100, 400


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """Prompts and how many tokens each answer has."""

    prompts: list[list[int]]
    lengths: list[int]


def workload(vocab_size: int, seed: int = 0) -> Workload:
    """The mixed workload."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(8 + rng.exponential(_MEAN, _PROMPTS), _LIMIT).astype(int)
    return Workload(
        prompts=[
            rng.integers(0, vocab_size, length).tolist()
            for length in rng.integers(16, 201, _PROMPTS)
        ],
        lengths=lengths.tolist(),
    )


def in_batches(work: Workload, rows: int, answer: Callable) -> list[list[int]]:
    """Answers by a program that decodes a batch until its longest answer has ended.

    Args:
      work: what to answer; batches have prompts of similar length.
      rows: prompts of a batch.
      answer: (prompts, lengths) -> ids of at least that many tokens each.
    """
    order = sorted(range(len(work.prompts)), key=lambda number: len(work.prompts[number]))
    found: list[list[int]] = [[] for _ in order]
    for first in range(0, len(order), rows):
        batch = order[first : first + rows]
        lengths = [work.lengths[number] for number in batch]
        answers = answer([work.prompts[number] for number in batch], lengths)
        for number, ids, length in zip(batch, answers, lengths, strict=True):
            found[number] = list(ids[:length])
    return found


def bench_answers(
    preset: Preset, repeats: int, work: Workload | None = None, rows: int = _ROWS
) -> dict[str, float]:
    """Tokens a second of each program, in turn, and the share of equal answers.

    Args:
      preset: the model.
      repeats: measured runs of each program.
      work: what to answer, or None for the mixed workload.
      rows: prompts decoded together by every program.
    """
    config = preset.config
    params = separate_layers(init_parameters(config, jax.random.key(0), preset.dtype))
    work = workload(config.vocab_size) if work is None else work
    sampling, found = Sampling(max_new_tokens=max(work.lengths)), {}

    def whole_batch(prompts, lengths):
        return generate(
            params, prompts, config=config, sampling=Sampling(max_new_tokens=max(lengths))
        )

    def refilled():
        found["refilled"] = generate(
            params, work.prompts, config=config, sampling=sampling, rows=rows, limits=work.lengths
        )

    def batches():
        found["batches"] = in_batches(work, rows, whole_batch)

    programs = {"refilled": refilled, "batches": batches}
    if has_torch() and preset.dtype == "float32":
        from experiments.bench import torch_peer

        model = torch_peer.torch_model(config, init_parameters(config, jax.random.key(0)))

        def transformers():
            found["transformers"] = in_batches(
                work, rows, lambda *batch: torch_peer.generate_mixed(model, *batch)
            )

        programs["transformers"] = transformers
    times = in_turn(programs, repeats)
    tokens = sum(work.lengths)
    figures: dict[str, float] = {"answers": len(work.prompts), "answer_tokens": tokens}
    for name, seconds in times.items():
        figures[f"{name}_tokens_per_second"] = tokens / seconds
        if name != "refilled":
            equal = sum(
                mine == theirs for mine, theirs in zip(found["refilled"], found[name], strict=True)
            )
            figures[f"refilled_speed_over_{name}"] = seconds / times["refilled"]
            figures[f"answers_as_{name}"] = equal / len(work.prompts)
    return figures
