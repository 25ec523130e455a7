"""Which way a metric goes between the two models, from the two views of a paired comparison."""

import math
from typing import Literal

from experiments.statistics.compare import Comparison

Trend = Literal["rises", "falls", "unclear"]


def trend(comparison: Comparison) -> Trend:
    """Which way a metric goes; `unclear` unless two views agree on it.

    The difference's interval must exclude zero, and the signed-rank test must find the questions'
    changes on the same side at p < 0.05. The interval alone does not do for the entropies: each
    side's histogram ends at its own largest score, so a single entry moves the metric, while the
    test puts both sides on one range. Where the test is not defined, the interval decides.
    """
    seen = _by_interval(comparison)
    if math.isnan(comparison.wilcoxon_p):
        return seen
    return seen if seen == _by_test(comparison) else "unclear"


def disputed(comparison: Comparison) -> bool:
    """Whether the two views of `trend` contradict each other: both find a change, opposite ways."""
    return {_by_interval(comparison), _by_test(comparison)} == {"rises", "falls"}


def _by_interval(comparison: Comparison) -> Trend:
    low, high = comparison.difference_interval
    return "rises" if low > 0 else "falls" if high < 0 else "unclear"


def _by_test(comparison: Comparison) -> Trend:
    if not comparison.wilcoxon_p < 0.05:
        return "unclear"
    return "rises" if comparison.effect_size > 0 else "falls"
