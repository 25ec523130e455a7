"""Exact effects of a study's edges: each cut by a forward pass, saved as effects_<side>.npz.

    effects [m, W, R] float32   loss with the edge cut minus the loss, nats a token; NaN: not cut
    rows [m]                    places of those samples in the cell's all_scores

Which edges of which samples: `choice`. Cells of one group share the passes: a shorter counted answer
is the beginning of a longer one, and a cut gives the loss at every place.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from converters.stored import StoredWeights
from eap_jax.ablation import CutLosses, cut_losses
from eap_jax.batching import PaddedBatch, Text, put_rows
from eap_jax.graph import edge_mask
from eap_jax.sharding import place_batch
from eap_jax.streamed_ablation import cut_losses_streamed
from experiments import store
from experiments.fidelity.choice import (
    Choice,
    affordable_choice,
    keep_choice,
    kept_choice,
    plan_path,
    whole_choice,
)
from experiments.fidelity.fitting import cut_batches
from experiments.scoring.cells import Cell, counted_texts
from experiments.study.distributed import agreed, mirror
from experiments.study.numerics import weight_dtype
from experiments.study.opened import OpenStudy, Say
from experiments.study.pairs import Side


def effects_path(cell: Cell, side: Side) -> Path:
    """One side's effects."""
    return cell.directory / f"effects_{side}.npz"


def choose(opened: OpenStudy, cells: list[Cell], say: Say) -> None:
    """Decide what is cut in each cell of a group, unless that is decided, and say it.

    Args:
      opened: the study; its `fidelity` is auto or all.
      cells: of one group.
      say: receives one line a cell.

    Raises:
      InputError: all edges are asked for and the cell's plan has fewer; its plan is broken.
    """
    config = opened.configs["base"]
    for cell in cells:
        mirror(plan_path(cell))
        choice = kept_choice(cell, config)
        if opened.study.fidelity == "all":
            choice = whole_choice(config, len(cell.selection.rows))
        elif choice is None:
            texts = counted_texts(cells, "base")
            choice = affordable_choice(config, texts, cell.rule.seed)
        keep_choice(cell, choice)
        say(f"{cell.name}: {choice.text} cut exactly")


def cut_cells(opened: OpenStudy, cells: list[Cell], side: Side) -> None:
    """Cut what `choose` chose on one side, and save the effects that are not saved yet.

    Args:
      opened: the study.
      cells: of one group.
      side: whose model and texts.
    """
    choices = {cell.directory: kept_choice(cell, opened.configs[side]) for cell in cells}
    missing = {cell.directory for cell in cells if not agreed(effects_path(cell, side).exists())}
    for choice in dict.fromkeys(choices.values()):
        # All cells of one choice together, saved or not, so that a killed run rounds as a whole one.
        group = [cell for cell in cells if choices[cell.directory] == choice]
        if not missing.isdisjoint(cell.directory for cell in group):
            found = _effects(opened, group, side, choice)
            for cell, effects_mWR in zip(group, found, strict=True):
                if cell.directory in missing:
                    store.write_arrays(
                        effects_path(cell, side),
                        effects=effects_mWR,
                        rows=np.asarray(choice.rows, np.int64),
                    )


def _effects(opened: OpenStudy, cells: list[Cell], side: Side, choice: Choice) -> list[np.ndarray]:
    """Effects [m, W, R] of each cell."""
    texts = counted_texts(cells, side)
    texts = [texts[row] for row in choice.rows]
    cuts = tuple(cell.selection.cut for cell in cells)
    mask_WR = edge_mask(opened.configs[side].num_layers)
    effects = [np.full((len(texts), *mask_WR.shape), math.nan, np.float32) for _ in cells]
    writers_E, readers_E = np.asarray(choice.edges).T
    progress = tqdm(
        total=len(texts) * len(choice.edges),
        desc=f"{cells[0].dataset}, {side}: cut edges",
        unit="cut",
    )
    with progress:
        for padded, found in _cut_batches(opened, side, texts, cuts, choice, progress):
            for effects_mWR, weights_BJ in zip(effects, padded.weights_ABJ, strict=True):
                effects_BE = found.effects(weights_BJ)
                found_BWR = np.full((len(effects_BE), *mask_WR.shape), math.nan, np.float32)
                found_BWR[:, writers_E, readers_E] = effects_BE
                put_rows(effects_mWR, padded, found_BWR)
    return effects


def _cut_batches(
    opened: OpenStudy,
    side: Side,
    texts: list[Text],
    cuts: tuple[int, ...],
    choice: Choice,
    progress: tqdm,
) -> Iterator[tuple[PaddedBatch, CutLosses]]:
    """Losses of every batch, in memory or streamed as the study says."""
    study, config = opened.study, opened.configs[side]
    fitting = cut_batches(
        opened.placed(side, weight_dtype(study.numerics)),
        texts,
        batch_tokens=study.batch_tokens,
        cuts=cuts,
        kept_bytes=study.stream_bytes,
    )
    if study.stream_bytes is None:
        params = opened.load(side).params
        for padded in fitting.batches:
            yield (
                padded,
                cut_losses(
                    params,
                    place_batch(padded.batch, opened.mesh),
                    choice.edges,
                    config=config,
                    rows=fitting.rows(padded),
                    most_logits=fitting.most_logits,
                    progress=_by_texts(progress, padded),
                ),
            )
        return
    with StoredWeights(opened.checkpoints[side], dtype=weight_dtype(study.numerics)) as weights:
        for padded in fitting.batches:
            yield (
                padded,
                cut_losses_streamed(
                    weights,
                    padded.batch,
                    choice.edges,
                    config=config,
                    rows=fitting.rows(padded),
                    most_kept=study.stream_bytes,
                    progress=_by_texts(progress, padded),
                ),
            )


def _by_texts(progress: tqdm, padded: PaddedBatch) -> Callable[[int], object]:
    """Counts the cuts of so many edges in every text of a batch."""
    return lambda edges: progress.update(edges * len(padded.indices))
