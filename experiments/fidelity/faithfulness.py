"""What is left of a model when only some of its edges are: circuits of rising size, run and saved.

What is cut reads nothing (ablation by zero), or what its writer writes on average (by the mean, see
`eap_jax.circuit`). `rankings` says which circuits, `recovery` what comes of their losses.
faithfulness.json holds by side the figures by zero, and those by the mean under `mean`.

Axes: m samples, W writers, R readers, D width of the stream.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from converters.stored import StoredWeights
from eap_jax.batching import PaddedBatch, Text, in_order, put_rows
from eap_jax.circuit import circuit_losses, mean_writes
from eap_jax.config import ModelConfig
from eap_jax.sharding import gathered, place_batch
from eap_jax.streamed_circuit import circuit_losses_streamed, mean_writes_streamed
from experiments import store
from experiments.fidelity.choice import ALWAYS, operations
from experiments.fidelity.fitting import FittingRuns, circuit_batches
from experiments.fidelity.rankings import circuits_of
from experiments.fidelity.recovery import summary
from experiments.scoring.cells import Cell, counted_texts, results_path
from experiments.study.distributed import mirror
from experiments.study.numerics import weight_dtype
from experiments.study.opened import OpenStudy
from experiments.study.pairs import SIDES, Side

ABLATIONS = ("zero", "mean")
# Forward passes at most, in attributions of the same texts, one of which costs two; but some samples
# are always worth having, and so is what any machine does in some seconds.
_TIMES, _FEWEST_SAMPLES = 4, 8


def is_measured(cell: Cell, side: Side) -> bool:
    """Whether one side of a cell's faithfulness.json is there.

    Raises:
      InputError: the file is broken.
    """
    path = faithfulness_path(cell)
    return path.exists() and side in store.read_json(path)


def faithfulness_path(cell: Cell) -> Path:
    """A cell's faithfulness.json."""
    return cell.directory / "faithfulness.json"


def measure_faithfulness(opened: OpenStudy, cell: Cell, side: Side) -> None:
    """Run one side's circuits and put them into the cell's faithfulness.json, unless they are there.

    Args:
      opened: the study; its `fidelity` is auto or all.
      cell: both sides' scores exist. No process that computes apart from this one measures it.
      side: whose model and texts.
    """
    mirror(faithfulness_path(cell))
    if is_measured(cell, side):
        return
    mirror(*(results_path(opened, cell, name) for name in SIDES))
    means = {
        name: store.read_results(results_path(opened, cell, name)).mean(axis=0, dtype=np.float64)
        for name in SIDES
    }
    other = SIDES[1 - SIDES.index(side)]
    circuits = circuits_of(means[side], means[other], cell.rule.seed)
    texts = counted_texts([cell], side)
    every = opened.study.fidelity == "all"
    most = len(texts) if every else affordable_samples(
        opened.configs[side], texts, len(ABLATIONS) * len(circuits.different)
    )  # fmt: skip
    rows = chosen_rows(len(texts), most, cell.rule.seed)
    losses = _losses(
        opened, side, [texts[row] for row in rows], circuits.different,
        _mean_writes(opened, side, texts),
    )  # fmt: skip
    by_zero, by_mean = (summary(circuits, losses[name], cell.rule.seed) for name in ABLATIONS)
    found = {"estimator": opened.study.estimator, "rows": rows} | by_zero | {"mean": by_mean}
    path = faithfulness_path(cell)
    saved = store.read_json(path) if path.exists() else {}
    saved[side] = found
    store.write_json(path, {name: saved[name] for name in SIDES if name in saved})


def affordable_samples(config: ModelConfig, texts: list[Text], passes: int) -> int:
    """Samples that so many forward passes of each may have: they cost four attributions of all texts
    or next to nothing, and some are always worth having."""
    attribution, _ = operations(config, texts)
    forward = attribution / 2 / len(texts)
    most = max(_TIMES * attribution, ALWAYS) / (passes * forward)
    return max(_FEWEST_SAMPLES, int(most))


def chosen_rows(samples: int, most: int, seed: int) -> list[int]:
    """Places of the samples that run, rising: `most` of them, drawn."""
    if most >= samples:
        return list(range(samples))
    return sorted(np.random.default_rng(seed).permutation(samples)[:most].tolist())


def _mean_writes(opened: OpenStudy, side: Side, texts: list[Text]) -> np.ndarray:
    """[W, D] float32: what each writer writes on average over all the cell's samples."""
    batches, config = _fitting(opened, side, texts).batches, opened.configs[side]
    if opened.study.stream_bytes is not None:
        with _stored(opened, side) as weights:
            means = mean_writes_streamed(
                weights, [padded.batch for padded in batches], config=config
            )
    else:
        params = opened.load(side).params
        means = [
            gathered(mean_writes(params, place_batch(padded.batch, opened.mesh), config=config))
            for padded in batches
        ]
    return in_order(batches, means).mean(axis=0)


def _losses(
    opened: OpenStudy,
    side: Side,
    texts: list[Text],
    circuits: list[np.ndarray],
    means_WD: np.ndarray,
) -> dict[str, dict[bytes, np.ndarray]]:
    """By ablation and circuit the loss of every text [m], nats a token."""
    fitting = _fitting(opened, side, texts)
    found = {
        name: {kept_WR.tobytes(): np.empty(len(texts), np.float32) for kept_WR in circuits}
        for name in ABLATIONS
    }
    # Both ablations are one compiled program.
    instead = dict(zip(ABLATIONS, (np.zeros_like(means_WD), means_WD), strict=True))
    passes = len(fitting.batches) * len(ABLATIONS) * len(circuits)
    with tqdm(total=passes, desc=f"{side}: circuits", unit="circuit") as progress:
        for padded, name in itertools.product(fitting.batches, ABLATIONS):
            losses = _batch_losses(
                opened, side, padded, circuits, instead[name], most_logits=fitting.most_logits
            )
            for kept_WR, losses_BJ in zip(circuits, losses, strict=True):
                losses_B = (losses_BJ * padded.batch.weights_BJ).sum(axis=1)
                put_rows(found[name][kept_WR.tobytes()], padded, losses_B)
                progress.update()
    return found


def _batch_losses(
    opened: OpenStudy,
    side: Side,
    padded: PaddedBatch,
    circuits: list[np.ndarray],
    instead_WD: np.ndarray,
    *,
    most_logits: int,
) -> Iterator[np.ndarray]:
    """Losses [B, J] of each circuit, in memory or streamed as the study says."""
    config = opened.configs[side]
    if opened.study.stream_bytes is not None:
        with _stored(opened, side) as weights:
            yield from circuit_losses_streamed(
                weights, padded.batch, circuits, instead_WD,
                config=config, most_kept=opened.study.stream_bytes,
            )  # fmt: skip
        return
    params, batch = opened.load(side).params, place_batch(padded.batch, opened.mesh)
    for kept_WR in circuits:
        kept_BWR = np.broadcast_to(kept_WR, (len(padded.batch.tokens_BT), *kept_WR.shape))
        losses_BJ = circuit_losses(
            params, batch, kept_BWR, instead_WD, config=config, most_logits=most_logits
        )
        yield gathered(losses_BJ)


def _fitting(opened: OpenStudy, side: Side, texts: list[Text]) -> FittingRuns:
    study = opened.study
    placed = opened.placed(side, weight_dtype(study.numerics))
    return circuit_batches(
        placed, texts, batch_tokens=study.batch_tokens, kept_bytes=study.stream_bytes
    )


def _stored(opened: OpenStudy, side: Side) -> StoredWeights:
    return StoredWeights(opened.checkpoints[side], dtype=weight_dtype(opened.study.numerics))
