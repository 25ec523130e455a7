"""Which way a metric goes between the two models, from the two views of a paired comparison."""

import math
from typing import Literal

from experiments.results import Comparison

Trend = Literal["rises", "falls", "unclear"]


def disputed(comparison: Comparison) -> bool:
    """Whether the two views of `trend` contradict each other: both find a change, opposite ways."""
    low, high = comparison.difference_interval
    rises, falls = low > 0, high < 0
    tested = comparison.wilcoxon_p < 0.05
    return tested and (
        (rises and comparison.effect_size < 0) or (falls and comparison.effect_size > 0)
    )


def trend(comparison: Comparison) -> Trend:
    """Which way a metric goes; `unclear` unless two views agree on it.

    The difference's interval must exclude zero, and the signed-rank test must find the questions'
    changes on the same side at p < 0.05. The interval alone does not do for the entropies: each
    side's histogram ends at its own largest score, so a single entry moves the metric, while the
    test holds both sides to one range. Where the test is not defined, the interval decides.
    """
    low, high = comparison.difference_interval
    seen = "rises" if low > 0 else "falls" if high < 0 else "unclear"
    if math.isnan(comparison.wilcoxon_p) or seen == "unclear":
        return seen
    agrees = (comparison.effect_size > 0) == (seen == "rises")
    return seen if agrees and comparison.wilcoxon_p < 0.05 else "unclear"
