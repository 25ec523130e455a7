"""What a training has changed by each step, from saved files and by hand arithmetic."""

import dataclasses
import math

import numpy as np
import pytest
from saved_study import PAIR, save_answers, save_study
from toy_study import scores

from experiments.report.along import along_points
from experiments.report.changes import ACCURACY, FIDELITY
from experiments.report.gather import gather
from experiments.statistics.metrics import METRICS
from experiments.statistics.trend import trend


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 2 and 10, the later one first; only the scores of step 10 have doubled."""
    workdir, steps = tmp_path_factory.mktemp("along"), {}
    start = scores(1, 12, seed=1)
    for step in (10, 2):
        pair = dataclasses.replace(PAIR, key=f"toy_step{step}", series=f"toy_step{step}")
        directory = save_study(
            workdir, start, start * np.float32(2 if step == 10 else 1), pair=pair
        )
        save_answers(directory, "base", [True, False, False, False])
        save_answers(directory, "rl", [True, step == 10, False, False])
        steps[directory] = step
    return gather(list(steps)).cells, steps


def test_every_measure_of_every_step_stands_once_and_steps_rise_as_numbers(saved):
    cells, steps = saved
    points = along_points(cells, steps)
    assert list(dict.fromkeys(point.step for point in points)) == [2, 10]
    for step in (2, 10):
        own = [p.measure for p in points if p.step == step and p.view in ("", "published")]
        assert own == [ACCURACY, *(metric.key for metric in METRICS)], "nothing was cut"
    (cell,) = [cell for cell in cells if cell.pair == "toy_step10"]
    for metric, comparison in cell.measured:
        (point,) = [
            p for p in points if (p.step, p.measure, p.view) == (10, metric.key, "published")
        ]
        assert (point.start, point.snapshot) == (comparison.base, comparison.rl)
        assert (point.low, point.high) == comparison.relative_interval
        assert (point.trend, point.choice) == (trend(comparison), "0.3")
    doubled = next(p for p in points if p.step == 10 and p.measure == METRICS[0].key)
    assert doubled.relative == pytest.approx(1.0)
    assert doubled.trend == "rises"
    right = [p.snapshot for p in points if p.measure == ACCURACY]
    assert right == [0.25, 0.5]


def test_fidelity_has_changed_where_the_intervals_do_not_meet(saved):
    cells, steps = saved

    def side(low, value, high):
        return {"spearman": value, "samples": 12, "intervals": {"spearman": [low, high]}}

    def fidelity_of(rl, base):
        fidelity = {"base": base, "rl": rl}
        changed = [dataclasses.replace(cell, fidelity=fidelity) for cell in cells]
        points = along_points(changed, steps)
        found = [p for p in points if p.measure == FIDELITY]
        assert [p.step for p in found] == [2, 10]
        return found[0]

    def trend_of(rl):
        found = fidelity_of(rl, side(0.4, 0.5, 0.6))
        assert found.relative == pytest.approx((rl["spearman"] - 0.5) / 0.5)
        return found.trend

    assert trend_of(side(0.1, 0.2, 0.3)) == "falls"
    assert trend_of(side(0.61, 0.7, 0.8)) == "rises"
    assert trend_of(side(0.55, 0.7, 0.8)) == "unclear"
    assert trend_of(side(math.nan, 0.9, math.nan)) == "unclear"
    below = fidelity_of(side(0.1, 0.2, 0.3), side(-0.5, -0.4, -0.3))
    assert (below.trend, below.relative) == ("rises", pytest.approx(1.5)), "by 150 % of its size"
