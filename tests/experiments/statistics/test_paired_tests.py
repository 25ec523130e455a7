"""Tests of the questions' changes against hand arithmetic, scipy and studies without a change."""

import math

import numpy as np
import pytest
import scipy.stats
from paired_scores import draw_scores

from experiments.statistics import compare as comparing
from experiments.statistics import paired_tests
from experiments.statistics.compare import question_changes
from experiments.statistics.metrics import METRIC_BY_KEY, METRICS, FreeChoices

KEYS = [metric.key for metric in METRICS]


def test_tests_reject_a_true_null_as_often_as_they_claim():
    """Sides exchanged at random, question by question: 200 studies at the 5 % level."""
    studies, rejected = 200, dict.fromkeys(KEYS, 0)
    for study in range(studies):
        draw = np.random.default_rng(study)
        base, rl = draw_scores(draw, 30)
        swap = (draw.random(30) < 0.5)[:, None, None]
        exchanged = np.where(swap, rl, base), np.where(swap, base, rl)
        for key in KEYS:
            changes = question_changes(*exchanged, METRIC_BY_KEY[key], FreeChoices())
            found = paired_tests.paired_tests(changes)
            rejected[key] += found.wilcoxon_p < 0.05
    most = scipy.stats.binom.ppf(1 - 1e-4, studies, 0.05)
    assert all(count <= most for count in rejected.values()), rejected


def test_changes_of_questions_by_hand():
    base = np.array([[[1.0, -1.0], [0.0, 2.0]], [[2.0, 2.0], [0.0, 0.0]]])
    rl = np.array([[[2.0, -2.0], [0.0, 2.0]], [[1.0, 2.0], [0.0, 0.0]]])
    changes = {
        metric.key: question_changes(base, rl, metric, FreeChoices(bins=2)) for metric in METRICS
    }
    assert changes["activation_intensity"].values_n.tolist() == [0.5, -0.25]
    # Magnitudes below 1 and from 1 to 2: 5 against 11 of 16. Only question 2 does not change.
    low, high = -math.log(5 / 16), -math.log(11 / 16)
    surprise = {side: [] for side in "br"}
    for name, side in (("b", base), ("r", rl)):
        for matrix in side:
            share = (np.abs(matrix) < 1).mean()
            surprise[name].append(share * low + (1 - share) * high)
    np.testing.assert_allclose(
        changes["information_complexity"].values_n,
        np.subtract(surprise["r"], surprise["b"]),
        atol=1e-9,
    )


def test_changes_average_to_the_metrics_difference():
    """Exactly; for entropies, on one range, to second order: closely if the sides are close."""
    base, rl = draw_scores(np.random.default_rng(0), 60)
    rl = 0.8 * base + 0.2 * rl
    choices = FreeChoices(bins=4)
    compared = comparing.compare(base, rl, choices, resamples=20, one_range=True)
    for key in KEYS:
        expected = compared[key].difference
        tolerance = 0.02 if "complexity" in key or "entropy" in key else 1e-9
        changes = question_changes(base, rl, METRIC_BY_KEY[key], choices)
        assert changes.values_n.mean() == pytest.approx(expected, rel=tolerance, abs=1e-9)


def test_p_values_and_effect_size_are_scipys_and_those_of_the_definition():
    values = np.array([3.0, -1.0, 2.0, 5.0, 0.0, 4.0, -2.5])
    found = paired_tests.paired_tests(paired_tests.Changes(values_n=values, size=5.0))
    changed = values[values != 0]
    assert found.wilcoxon_p == scipy.stats.wilcoxon(changed).pvalue
    assert found.sign_p == pytest.approx(2 * (1 + 6 + 15) / 64)  # at most 2 of 6 fall
    # Ranks of 3, -1, 2, 5, 4, -2.5 by size: 4, 1, 2, 6, 5, 3.
    assert found.effect_size == pytest.approx((17 - 4) / 21)


def test_all_rises_are_an_effect_of_one():
    base = np.random.default_rng(0).normal(size=(10, 5, 9))
    found = comparing.compare(base, 2 * base, resamples=50)
    assert found["activation_intensity"].effect_size == 1
    assert found["activation_intensity"].sign_p == pytest.approx(2 / 2**10)
    assert found["activation_intensity"].relative_interval == pytest.approx((1, 1))
    assert found["sample_diversity"].difference_interval[0] <= 0
    assert found["distribution_kurtosis"].wilcoxon_p == 1


def test_changes_that_differ_by_rounding_are_ties_and_smaller_ones_are_none():
    """Of numbers of size 4: a change of 1.5e-12 is none, those of 1 and 1 + 1.5e-12 have one rank."""

    def found(values, size):
        return paired_tests.paired_tests(paired_tests.Changes(values_n=np.array(values), size=size))

    near = [1.0, -1 - 1.5e-12, 1 + 1.2e-12, 2.0, -1.5e-12]
    exact = found([1.0, -1.0, 1.0, 2.0, 0.0], 4.0)
    assert found(near, 4.0) == exact
    assert exact.effect_size == pytest.approx((2 + 2 + 4 - 2) / 10), "ranks 2, 2, 2 and 4"
    assert exact.sign_p == pytest.approx(2 * (1 + 4) / 16), "at most 1 of 4 falls"
    # Of smaller numbers each of them is a change, and has a rank of its own.
    assert found(near, 1e-13).effect_size == pytest.approx((2 + 3 + 5 - 4 - 1) / 15)
    assert found([3e-9, -1e-9], 1.0).effect_size == pytest.approx((2 - 1) / 3)
    none = found([0.0, 0.0], 0.0)
    assert (none.wilcoxon_p, none.sign_p) == (1, 1)
    assert math.isnan(none.effect_size)
