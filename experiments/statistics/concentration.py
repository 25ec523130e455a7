"""Where the loss and the intensity are: on which answer positions, in how many questions.

A mean over questions hides it when one position or a handful of questions decide it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import store
from experiments.statistics.functionals import Mean
from experiments.statistics.metrics import METRICS, FreeChoices

TOP_QUESTIONS = 5
# Above these a reader is warned.
LARGE_SHARE, LARGE_RATIO = 0.5, 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concentration:
    """One side of a cell.

    Attributes:
      position_shares: share of the loss on each counted answer token, from the first on; empty
        where it was not saved.
      effective_positions: exp of the shares' entropy: over how many positions the loss spreads; 0
        where it was not saved.
      top_questions: share of the loss in the 5 questions that have most of it.
      top_intensity: share of the activation intensity in the 5 questions that have most of it.
    """

    position_shares: tuple[float, ...]
    effective_positions: float
    top_questions: float
    top_intensity: float

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Concentration":
        """As a file holds it: null is NaN."""
        return cls(**store.restored(dict(fields)))

    @property
    def largest_position(self) -> int:
        """The position with the largest share, from 0; -1 where they were not saved."""
        return int(np.argmax(self.position_shares)) if self.position_shares else -1


def concentration(
    scores_nWR: np.ndarray, losses_n: np.ndarray, positions_J: np.ndarray | None
) -> Concentration:
    """Where one side's loss and intensity are.

    Args:
      scores_nWR: its scores.
      losses_n: loss of each question.
      positions_J: mean loss on each counted answer token, or None.
    """
    shares: tuple[float, ...] = ()
    effective = 0.0
    if positions_J is not None and positions_J.sum() > 0:
        shares_J = positions_J / positions_J.sum()
        shares = tuple(float(share) for share in shares_J)
        held_J = shares_J[shares_J > 0]
        effective = float(np.exp(-(held_J * np.log(held_J)).sum()))
    return Concentration(
        position_shares=shares,
        effective_positions=effective,
        top_questions=_top_share(losses_n),
        top_intensity=_top_share(np.abs(scores_nWR).mean(axis=(1, 2), dtype=np.float64)),
    )


def median_ratios(base_nWR: np.ndarray, rl_nWR: np.ndarray) -> dict[str, float]:
    """Median over questions of rl / base, for every metric that is a mean over questions.

    A mean's ratio may rest on a few questions; the median's does not.
    """
    found = {}
    for metric in METRICS:
        kinds = []
        for scores_nWR in (base_nWR, rl_nWR):
            scores_nWR = np.asarray(scores_nWR, np.float64)
            if math.isfinite(metric.value(scores_nWR, FreeChoices())):
                kinds.append(metric.functional(scores_nWR, FreeChoices()))
        if len(kinds) == 2 and all(isinstance(kind, Mean) for kind in kinds):
            base_n, rl_n = (kind.values_n for kind in kinds)
            if (base_n > 0).all():
                found[metric.key] = float(np.median(rl_n / base_n))
    return found


def losses_ratio(base_losses_n: np.ndarray, rl_losses_n: np.ndarray) -> float:
    """How many times larger the larger of the two mean losses is."""
    low, high = sorted((float(np.mean(base_losses_n)), float(np.mean(rl_losses_n))))
    return high / low if low > 0 else math.inf


def _top_share(values_n: np.ndarray) -> float:
    """Share of the 5 largest in the sum."""
    total = float(np.sum(values_n, dtype=np.float64))
    if not total > 0:
        return math.nan
    return float(np.sort(values_n)[::-1][:TOP_QUESTIONS].sum(dtype=np.float64)) / total
