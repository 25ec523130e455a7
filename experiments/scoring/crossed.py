"""Each model's scores on the other model's texts, where the two texts of a question differ.

A cell's base scores rest on base's own answers and rl's on rl's, so a change may be the model's or
the text's. With all four of model x text it can be split (`statistics.model_text`). Saved in a cell
whose counted texts are not all the same, in the published format with a further array:

    base_on_rl_text.npz, rl_on_base_text.npz
        scores [W, R], all_scores [n, W, R] float32     of every question, in the cell's order
        losses [n] float32                              nats a token

Where a question's two texts are the same, these are the model's own scores. Cells of one group share
the passes, as their own scores do.
"""

import math
from pathlib import Path

import numpy as np

from experiments import store
from experiments.errors import InputError
from experiments.scoring.cells import Cell, counted_texts, longest_of, results_path, scores_of
from experiments.study.distributed import agreed, mirror
from experiments.study.opened import OpenStudy, Say
from experiments.study.pairs import Side

OTHER: dict[Side, Side] = {"base": "rl", "rl": "base"}


def crossed_path(cell: Cell, side: Side) -> Path:
    """Scores of one side's model on the other side's texts."""
    return cell.directory / f"{side}_on_{OTHER[side]}_text.npz"


def say_texts(cells: list[Cell], say: Say) -> None:
    """Say of each cell of a group whether its texts differ, and what that costs."""
    for cell in cells:
        differing, samples = len(cell.selection.differing), len(cell.selection.rows)
        say(
            f"{cell.name}: counted texts differ in {differing} of {samples} samples: both models "
            "are scored on both texts"
            if differing
            else f"{cell.name}: base and rl have the same counted text in all {samples} samples"
        )


def score_crossed(opened: OpenStudy, cells: list[Cell], side: Side) -> None:
    """Attribute all edges of one side's model on the other side's texts, and save what is not saved.

    Args:
      opened: the study.
      cells: of one group, scored on their own texts already (`cells.score_cells`).
      side: whose model.

    Raises:
      InputError: a file of the cell's own scores is broken.
    """
    differ = [cell for cell in cells if cell.selection.differing]
    missing = {cell.directory for cell in differ if not agreed(crossed_path(cell, side).exists())}
    if not missing:
        return
    # Texts that differ in a shorter cut differ in the longest. All cells together, saved or not, so
    # that a killed run rounds as a whole one.
    places = longest_of(differ).selection.differing
    others = counted_texts(differ, OTHER[side])
    found = scores_of(
        opened,
        differ,
        side,
        texts=[others[place] for place in places],
        doing=f"attribute {OTHER[side]}'s text",
    )
    for cell, scores in zip(differ, found, strict=True):
        if cell.directory not in missing:
            continue
        scores_nWR, losses_n = _own(opened, cell, side)
        differs = set(cell.selection.differing)
        for row, place in enumerate(places):
            if place in differs:
                scores_nWR[place], losses_n[place] = scores.scores_nWR[row], scores.losses_n[row]
        store.write_arrays(
            crossed_path(cell, side),
            scores=scores_nWR.mean(axis=0),
            all_scores=scores_nWR,
            losses=losses_n,
        )


def read_crossed(cell: Cell, side: Side) -> tuple[np.ndarray, np.ndarray] | None:
    """(scores [n, W, R], losses [n]) of a side's model on the other's texts; None if not scored.

    Raises:
      InputError: the file is broken or not of this cell.
    """
    path = crossed_path(cell, side)
    if not path.exists():
        return None
    scores_nWR = store.read_results(path)
    losses_n = store.read_arrays(path, ("losses",))["losses"]
    samples = len(cell.selection.rows)
    if scores_nWR.shape[:1] != (samples,) or losses_n.shape != (samples,):
        raise InputError(
            f"{path}: expected scores and losses of {samples} samples, found "
            f"{scores_nWR.shape} and {losses_n.shape}; delete it"
        )
    if not (np.issubdtype(losses_n.dtype, np.floating) and np.isfinite(losses_n).all()):
        raise InputError(f"{path}: losses: expected finite numbers; delete it")
    return scores_nWR, losses_n


def _own(opened: OpenStudy, cell: Cell, side: Side) -> tuple[np.ndarray, np.ndarray]:
    """A copy of a side's scores and losses on its own texts."""
    saved, facts = results_path(opened, cell, side), cell.directory / f"losses_{side}.json"
    mirror(saved, facts)
    scores_nWR = store.read_results(saved)
    losses_n = np.array(
        [math.nan if loss is None else loss for loss in store.read_json(facts)["losses"]],
        np.float32,
    )
    samples = len(cell.selection.rows)
    if len(scores_nWR) != samples or len(losses_n) != samples:
        raise InputError(
            f"{saved}: expected {samples} samples, found {len(scores_nWR)} and {len(losses_n)} losses"
        )
    return scores_nWR, losses_n
