"""Data that do not fit together are refused; means and comparisons are those of the cell."""

import dataclasses
import math

import numpy as np
import pytest
from toy_study import toy_cell, toy_study

from experiments.report.results import comparisons_of
from experiments.statistics.metrics import METRICS

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


def test_means_over_questions_are_sums_in_double_precision():
    for found_WR, scores_nWR in ((CELL.base_WR, CELL.base_nWR), (CELL.rl_WR, CELL.rl_nWR)):
        assert found_WR.dtype == np.float64
        for (w, r), found in np.ndenumerate(found_WR):
            exact = math.fsum(float(matrix[w, r]) for matrix in scores_nWR) / 3
            assert found == pytest.approx(exact, rel=1e-14, abs=0)


def test_comparisons_come_in_the_metrics_order_without_those_not_measured():
    first, *others = METRICS
    turned = {metric.key: CELL.comparisons[metric.key] for metric in reversed(others)}
    partial = dataclasses.replace(CELL, comparisons=turned)
    assert [metric for metric, _ in partial.measured] == others
    assert all(found.metric == metric.key for metric, found in partial.measured)
    assert comparisons_of([CELL, partial], first) == [CELL.comparisons[first.key]]
    assert len(comparisons_of([CELL, partial], others[0])) == 2
