"""Over seeds: Student's interval as scipy has it, and a conclusion only where nothing contradicts."""

import math

import pytest
import scipy.stats

from experiments.posttrain.seeds import over_seeds
from experiments.statistics.views import View


def seeds(*changes, seen=("falls",) * 9):
    return [
        View(
            view="published", metric="m", base=1, rl=1 + change, relative=change, low=-9, high=9,
            trend=trend, samples=50,
        )
        for change, trend in zip(changes, seen, strict=False)
    ]  # fmt: skip


@pytest.mark.parametrize("changes", [(-0.5, -0.6, -0.55), (-0.1, -0.9, -0.5, 0.2)])
def test_the_interval_is_that_of_a_t_test(changes):
    found = over_seeds(seeds(*changes))
    expected = scipy.stats.ttest_1samp(changes, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert (found.lowest, found.highest) == (min(changes), max(changes))
    assert found.seeds == len(changes)
    assert found.falls == len(changes)


def test_the_median_is_the_middle_seeds_change():
    assert over_seeds(seeds(-0.5, -0.9, -0.6)).median == -0.6


@pytest.mark.parametrize(
    ("changes", "seen", "conclusion"),
    [
        ((-0.5, -0.6, -0.55), ("falls", "falls", "falls"), "falls"),
        ((0.5, 0.6, 0.55), ("rises", "unclear", "rises"), "rises"),
        ((-0.5, -0.6, -0.55), ("falls", "rises", "falls"), "unclear"),
        ((-0.5, -9.0, -0.1), ("falls", "falls", "falls"), "unclear"),
        ((-0.5, -0.5), ("falls", "falls"), "unclear"),
        ((-0.5,), ("falls",), "unclear"),
        ((-0.5, math.nan, -0.5), ("falls", "unclear", "falls"), "unclear"),
    ],
)
def test_too_few_scattered_or_contradicting_seeds_decide_nothing(changes, seen, conclusion):
    found = over_seeds(seeds(*changes, seen=seen))
    assert found.conclusion == conclusion
    assert math.isnan(found.interval[0]) == (len(changes) < 3 or math.isnan(sum(changes)))
