"""Which way a metric goes between the two models, from the two views of a paired comparison."""

import math
from typing import Literal

from experiments.statistics.bootstrap import Interval
from experiments.statistics.compare import Comparison

Trend = Literal["rises", "falls", "unclear"]


def trend(comparison: Comparison) -> Trend:
    """Which way a metric goes; `unclear` unless two views agree on it.

    The difference's interval must exclude zero, and the signed-rank test must find the questions'
    changes on the same side at p < 0.05. The interval alone does not do for the entropies: each
    side's histogram ends at its own largest score, so a single entry moves the metric, while the
    test puts both sides on one range. Where the test is not defined, the interval decides.
    """
    return trend_of(comparison.difference_interval, comparison.wilcoxon_p, comparison.effect_size)


def trend_of(ends: Interval, wilcoxon_p: float, effect_size: float) -> Trend:
    """The same from a difference's interval and the signed-rank test of the questions' changes."""
    seen = _by_interval(ends)
    if math.isnan(wilcoxon_p):
        return seen
    return seen if seen == _by_test(wilcoxon_p, effect_size) else "unclear"


def disputed(comparison: Comparison) -> bool:
    """Whether the two views of `trend` contradict each other: both find a change, opposite ways."""
    by_interval = _by_interval(comparison.difference_interval)
    by_test = _by_test(comparison.wilcoxon_p, comparison.effect_size)
    return {by_interval, by_test} == {"rises", "falls"}


def _by_interval(ends: Interval) -> Trend:
    low, high = ends
    return "rises" if low > 0 else "falls" if high < 0 else "unclear"


def _by_test(wilcoxon_p: float, effect_size: float) -> Trend:
    if not wilcoxon_p < 0.05:
        return "unclear"
    return "rises" if effect_size > 0 else "falls"
