"""Statistics over the cells of a sweep: how often a metric rises, and p-values of many tests."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from experiments.statistics.compare import Comparison


@dataclasses.dataclass(frozen=True, kw_only=True)
class RiseSummary:
    """How often and by how much a metric rises over cells, as figure 3a of the paper sums it up.

    Attributes:
      cells: in which the relative change is defined.
      share: of these cells in which it is above zero, clear or not; NaN without cells.
      mean_change: mean relative change over all of them, falls included; NaN without cells.
    """

    cells: int
    share: float
    mean_change: float


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction: family-wise error over all tests of a sweep.

    Args:
      p_values: of m tests; NaN marks a test not made, passes through and does not count.

    Returns:
      Corrected p-values [m] in the same order: the k-th smallest times m - k + 1, at least its
      predecessor, at most 1.

    Raises:
      ValueError: a p-value is outside [0, 1].
    """
    given_m = np.asarray(p_values, np.float64).reshape(-1)
    made = np.flatnonzero(~np.isnan(given_m))
    if ((given_m[made] < 0) | (given_m[made] > 1)).any():
        raise ValueError(f"p-values: expected numbers in [0, 1], found {given_m[made].tolist()}")
    order = made[np.argsort(given_m[made], kind="stable")]
    corrected_m = np.full(given_m.shape, math.nan)
    steps = np.arange(len(order), 0, -1)
    corrected_m[order] = np.minimum(np.maximum.accumulate(given_m[order] * steps), 1.0)
    return corrected_m


def rise_summary(comparisons: Iterable[Comparison]) -> RiseSummary:
    """In what share of cells a metric rises and by how much; one metric's comparison a cell."""
    changes = [found.relative for found in comparisons if math.isfinite(found.relative)]
    if not changes:
        return RiseSummary(cells=0, share=math.nan, mean_change=math.nan)
    return RiseSummary(
        cells=len(changes),
        share=sum(change > 0 for change in changes) / len(changes),
        mean_change=float(np.mean(changes)),
    )
