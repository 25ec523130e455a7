"""A trend needs two views: the interval of the difference and the signed-rank test."""

import dataclasses
import math

import pytest
from toy_study import comparison

from experiments.statistics.trend import disputed, trend

RISE = comparison("activation_intensity", base=1.0, rl=2.0, spread=0.1)
NAN = math.nan


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "rises"),
        ({"difference_interval": (-0.9, -0.1), "effect_size": -0.5}, "falls"),
        ({"difference_interval": (-0.1, 0.9)}, "unclear"),
        ({"difference_interval": (0.0, 0.9)}, "unclear"),
        ({"difference_interval": (-0.9, 0.0), "effect_size": -0.5}, "unclear"),
        ({"wilcoxon_p": 0.06}, "unclear"),
        ({"wilcoxon_p": 0.05}, "unclear"),
        ({"wilcoxon_p": 0.0499}, "rises"),
        # The interval says up, the questions say down.
        ({"effect_size": -0.5}, "unclear"),
        ({"difference_interval": (-0.9, -0.1), "effect_size": 0.5}, "unclear"),
        ({"effect_size": 0.0, "difference_interval": (0.1, 0.9)}, "unclear"),
        # Where the test is not defined, the interval decides.
        ({"wilcoxon_p": NAN, "effect_size": NAN}, "rises"),
        ({"wilcoxon_p": NAN, "difference_interval": (-0.1, 0.9)}, "unclear"),
        ({"difference_interval": (NAN, NAN)}, "unclear"),
    ],
)
def test_a_trend_needs_the_interval_and_the_signed_rank_test(changes, expected):
    assert trend(dataclasses.replace(RISE, **changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"effect_size": -0.5}, True),
        ({"difference_interval": (-0.9, -0.1)}, True),
        ({}, False),
        ({"effect_size": -0.5, "wilcoxon_p": 0.06}, False),
        ({"effect_size": -0.5, "difference_interval": (-0.1, 0.9)}, False),
        ({"effect_size": -0.5, "wilcoxon_p": NAN}, False),
    ],
)
def test_views_dispute_a_change_only_if_both_find_one_and_opposite_ways(changes, expected):
    assert disputed(dataclasses.replace(RISE, **changes)) is expected
