"""What the paper leaves open, tried out: bins and range of the histograms, number of samples."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.statistics.metrics import METRICS, FreeChoices, Metric

BINS = (20, 50, 100, 200, 500)
SAMPLES = (10, 25, 50)
OWN_RANGE, ONE_RANGE = "own range on each side", "one range for both"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What a free choice does to a metric.

    Attributes:
      cell: name of the cell.
      metric: key of the metric.
      choice: the setting, as text: `50 bins`, `one range for both`, `25 samples`.
      base, rl: the metric's values under it.
    """

    cell: str
    metric: str
    choice: str
    base: float
    rl: float


def sensitivities(
    base_nWR: np.ndarray,
    rl_nWR: np.ndarray,
    *,
    cell: str,
    bins: Sequence[int] = BINS,
    samples: Sequence[int] = SAMPLES,
) -> list[Sensitivity]:
    """Metrics of a cell under other settings than the report's.

    First each metric with `histogram_tried` under each number of bins, with each side's own range,
    as published, and with one range for both; then every metric of the first N questions, all of
    them last. A range is that of the questions measured.

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
    total = len(base_nWR)

    def row(metric: Metric, choice: str, choices: FreeChoices, count: int) -> Sensitivity:
        base, rl = (metric.value(side_nWR[:count], choices) for side_nWR in (base_nWR, rl_nWR))
        return Sensitivity(cell=cell, metric=metric.key, choice=choice, base=base, rl=rl)

    published = FreeChoices()
    histograms = [(f"{number} bins", FreeChoices(bins=number)) for number in bins]
    histograms += [
        (OWN_RANGE, published),
        (ONE_RANGE, published.with_one_range(base_nWR, rl_nWR)),
    ]
    counts = [(count, f"{count} samples") for count in samples if count < total]
    return [
        row(metric, choice, choices, total)
        for metric in METRICS
        if metric.histogram_tried
        for choice, choices in histograms
    ] + [
        row(metric, choice, published, count)
        for count, choice in [*counts, (total, f"all {total} samples")]
        for metric in METRICS
    ]
