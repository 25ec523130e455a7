"""Scores of a second objective: the runner-up's lead over the answer's token, in logits.

The loss of a certain model is flat and its scores small; a difference of logits is not. The metrics
of these scores are a view of their own (`statistics.views`). Saved as logit_difference_<side>.npz in
the published format.
"""

from pathlib import Path

from eap_jax.objective import runner_up_lead
from experiments import store
from experiments.scoring.cells import Cell, scores_of
from experiments.study.distributed import agreed
from experiments.study.opened import OpenStudy
from experiments.study.pairs import Side


def logit_difference_path(cell: Cell, side: Side) -> Path:
    """One side's scores of the logit difference."""
    return cell.directory / f"logit_difference_{side}.npz"


def score_logit_difference(opened: OpenStudy, cells: list[Cell], side: Side) -> None:
    """Attribute the logit difference on one side's counted texts, where that is not saved yet.

    Args:
      opened: the study.
      cells: of one group.
      side: whose model and texts.
    """
    missing = {
        cell.directory for cell in cells if not agreed(logit_difference_path(cell, side).exists())
    }
    if not missing:
        return
    found = scores_of(
        opened, cells, side, objective=runner_up_lead, doing="attribute the logit difference"
    )
    for cell, scores in zip(cells, found, strict=True):
        if cell.directory in missing:
            store.write_results(logit_difference_path(cell, side), scores.scores_nWR)
