"""One metric's change in several training seeds: does it belong to the algorithm or to one seed?

Each seed is one training, so the seeds are the sample here, not the questions. The interval is
Student's t of the seeds' relative changes, mean +- t(0.975, s - 1) * sd / sqrt(s) of s seeds, for 3
seeds or more; with so few it is wide, and rightly so.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

import scipy.stats

from experiments.statistics.bootstrap import UNDEFINED, Interval
from experiments.statistics.trend import Trend
from experiments.statistics.views import View

FEWEST_SEEDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """Relative changes of one metric in one view, one a training seed.

    Attributes:
      seeds: how many.
      median, lowest, highest: of their relative changes; NaN where one is not defined.
      interval: 95 % interval of the mean relative change over seeds; NaN below 3 seeds.
      rises, falls: seeds in which the metric clearly rises or falls over questions.
      conclusion: the direction that the interval over seeds has and no seed clearly contradicts;
        else `unclear`, which is to say: cannot tell.
    """

    seeds: int
    median: float
    lowest: float
    highest: float
    interval: Interval
    rises: int
    falls: int
    conclusion: Trend


def over_seeds(views: Sequence[View]) -> OverSeeds:
    """Sum up one metric and view.

    Args:
      views: one a seed, at least one.
    """
    changes = [view.relative for view in views]
    defined = all(map(math.isfinite, changes))
    rises, falls = (sum(view.trend == way for view in views) for way in ("rises", "falls"))
    low, high = _interval(changes) if defined else UNDEFINED
    conclusion: Trend = "unclear"
    if low > 0 and not falls:
        conclusion = "rises"
    elif high < 0 and not rises:
        conclusion = "falls"
    return OverSeeds(
        seeds=len(changes),
        median=statistics.median(changes) if defined else math.nan,
        lowest=min(changes) if defined else math.nan,
        highest=max(changes) if defined else math.nan,
        interval=(low, high),
        rises=rises,
        falls=falls,
        conclusion=conclusion,
    )


def _interval(changes: Sequence[float]) -> Interval:
    """Student's interval of the mean."""
    count = len(changes)
    if count < FEWEST_SEEDS:
        return UNDEFINED
    middle = statistics.fmean(changes)
    reach = scipy.stats.t.ppf(0.975, count - 1) * statistics.stdev(changes) / math.sqrt(count)
    return float(middle - reach), float(middle + reach)
