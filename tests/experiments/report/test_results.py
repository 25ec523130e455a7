"""A trend needs two views, and data that do not fit together are refused."""

import dataclasses
import math

import numpy as np
import pytest
from toy_study import comparison, toy_cell, toy_study

from experiments.report.results import METRICS
from experiments.statistics.trend import trend

RISE = comparison("activation_intensity", base=1.0, rl=2.0, spread=0.1)
NAN = float("nan")


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


def test_metrics_have_the_papers_directions():
    assert [(metric.key, metric.paper) for metric in METRICS] == [
        ("activation_intensity", "rises"),
        ("information_complexity", "rises"),
        ("distribution_kurtosis", "falls"),
        ("sample_diversity", "rises"),
        ("output_edge_entropy", "rises"),
    ]


CELL = toy_cell(num_layers=1, samples=3)


def with_nan(scores_nWR):
    scores_nWR = scores_nWR.copy()
    scores_nWR[1, 0, 0] = math.nan
    return scores_nWR


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rl_nWR": CELL.rl_nWR[:2]}, "one row and two matrices a sample"),
        ({"rows": CELL.rows[:2]}, "one row and two matrices a sample"),
        ({"base_nWR": CELL.base_nWR[0], "rl_nWR": CELL.rl_nWR[0]}, "one row and two matrices"),
        ({"rl_nWR": with_nan(CELL.rl_nWR)}, "expected finite scores"),
        ({"edge_low_WR": None}, "an edge interval has two ends"),
        ({"edge_high_WR": np.zeros((2, 2))}, "edge intervals: expected"),
        ({"rl_losses_n": np.zeros(2)}, "losses: expected 3, found 2"),
        ({"base_nWR": np.zeros((3, 4, 5)), "rl_nWR": np.zeros((3, 4, 5))}, "4"),
    ],
)
def test_a_cell_whose_parts_do_not_fit_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(CELL, **changes)


def test_a_study_needs_a_cell_and_its_pair():
    with pytest.raises(ValueError, match="at least one cell"):
        dataclasses.replace(toy_study([CELL]), cells=[])
    with pytest.raises(ValueError, match=r"tiny_grpo.*expected one of the pairs \[\]"):
        toy_study([CELL], pairs=[])
