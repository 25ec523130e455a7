"""What the paper leaves open, tried out: bins and range of the histograms, number of samples."""

from collections.abc import Sequence

import numpy as np

from eap_jax import metrics
from experiments.report.results import METRICS, Sensitivity

BINS = (20, 50, 100, 200, 500)
SAMPLES = (10, 25, 50)
OWN_RANGE, ONE_RANGE = "own range on each side", "one range for both"


def sensitivities(
    base_nWR: np.ndarray,
    rl_nWR: np.ndarray,
    *,
    cell: str,
    bins: Sequence[int] = BINS,
    samples: Sequence[int] = SAMPLES,
) -> list[Sensitivity]:
    """Metrics of a cell under other settings than the report's.

    Information complexity under each number of bins, with each side's own range, as published, and
    with one range for both; then every metric of the first N questions, all of them last. A range
    is that of the questions measured.

    Args:
      base_nWR, rl_nWR: scores [n, W, R] of the same questions.
      cell: name of the cell.
      bins: numbers of bins.
      samples: Ns; those that are not below n are left out.

    Returns:
      one row a metric and setting; a metric that is not defined is NaN.

    Raises:
      ValueError: see `eap_jax.metrics`.
    """
    sides = (np.asarray(base_nWR), np.asarray(rl_nWR))
    widest = max(float(np.abs(side_nWR).max()) for side_nWR in sides) or None

    def row(metric: str, choice: str, base: float, rl: float) -> Sensitivity:
        return Sensitivity(cell=cell, metric=metric, choice=choice, base=base, rl=rl)

    def complexity(choice: str, number: int, upper: float | None) -> Sensitivity:
        values = (metrics.information_complexity(s, bins=number, upper=upper) for s in sides)
        return row("information_complexity", choice, *values)

    found = [complexity(f"{number} bins", number, None) for number in bins]
    found.append(complexity(OWN_RANGE, 100, None))
    found.append(complexity(ONE_RANGE, 100, widest))
    total = len(sides[0])
    choices = [(count, f"{count} samples") for count in samples if count < total]
    for count, choice in [*choices, (total, f"all {total} samples")]:
        for metric in METRICS:
            measure = getattr(metrics, metric.key)
            found.append(row(metric.key, choice, *(measure(side[:count]) for side in sides)))
    return found
