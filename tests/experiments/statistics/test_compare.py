"""Paired comparisons: values, options, symmetries and the edges of the domain."""

import math

import numpy as np
import pytest
import scipy.stats
from paired_scores import FORMULAS, draw_scores, largest, measure

from eap_jax import metrics
from eap_jax.graph import edge_mask
from experiments.statistics import bootstrap, functionals
from experiments.statistics import compare as comparing
from experiments.statistics.metrics import METRICS, FreeChoices

KEYS = [metric.key for metric in METRICS]


def test_values_are_exactly_those_of_the_metrics(sides):
    base, rl = sides
    compared = comparing.compare(base, rl, resamples=20)
    for key, formula in FORMULAS.items():
        found = compared[key]
        measured = [formula(side) for side in sides]
        assert [found.base, found.rl] == measured
        assert found.difference == measured[1] - measured[0]
        assert found.relative == (measured[1] - measured[0]) / abs(measured[0])
        assert (found.metric, found.samples) == (key, 12)


def test_options_reach_the_metrics(sides):
    base, rl = sides
    mask = edge_mask(2)
    found = comparing.compare(
        base, rl, FreeChoices(support_WR=mask, bins=7, upper=2.5, output_upper=1.5), resamples=20
    )
    assert found["activation_intensity"].rl == metrics.intensity(rl, mask)
    assert found["distribution_kurtosis"].rl == metrics.kurtosis(rl, mask)
    assert found["sample_diversity"].rl == metrics.diversity(rl, mask)
    expected = metrics.complexity(rl, mask, bins=7, upper=2.5)
    assert found["information_complexity"].rl == expected
    assert found["output_edge_entropy"].rl == metrics.output_entropy(rl, bins=7, upper=1.5)


def test_one_range_is_the_larger_of_both_sides(sides):
    base, rl = sides
    found = comparing.compare(base, rl, resamples=20, one_range=True)
    for key in ("information_complexity", "output_edge_entropy"):
        widest = max(largest(key, base), largest(key, rl))
        assert found[key].base == measure(key, base, widest)
        assert found[key].rl == measure(key, rl, widest)


def test_swapping_the_sides_flips_signs_only(sides):
    base, rl = sides
    there, back = (comparing.compare(*pair, resamples=100) for pair in ((base, rl), (rl, base)))
    for key in KEYS:
        one, other = there[key], back[key]
        assert other.difference == -one.difference
        assert (other.base_interval, other.rl_interval) == (one.rl_interval, one.base_interval)
        flipped = [-end for end in reversed(other.difference_interval)]
        assert flipped == pytest.approx(one.difference_interval, rel=1e-9)
        assert other.effect_size == pytest.approx(-one.effect_size)
        assert other.wilcoxon_p == pytest.approx(one.wilcoxon_p)
        assert other.sign_p == pytest.approx(one.sign_p)


def test_order_of_questions_changes_nothing_but_the_noise_of_the_seed(sides):
    order = np.random.default_rng(5).permutation(12)
    plain = comparing.compare(*sides, resamples=4000)
    mixed = comparing.compare(*(side[order] for side in sides), resamples=4000)
    for key in KEYS:
        one, other = plain[key], mixed[key]
        assert other.difference == pytest.approx(one.difference, rel=1e-9)
        assert other.wilcoxon_p == pytest.approx(one.wilcoxon_p)
        assert other.effect_size == pytest.approx(one.effect_size)
        low, high = one.difference_interval
        assert other.difference_interval == pytest.approx((low, high), abs=0.15 * (high - low))


def test_pairing_matters(sides):
    """Sides of a question are alike: pairing the wrong ones widens the intensity's interval."""
    base, rl = sides

    def width(rl):
        low, high = comparing.compare(base, rl)["activation_intensity"].difference_interval
        return high - low

    assert width(rl) < 0.7 * width(np.roll(rl, 1, axis=0))


def test_equal_seeds_give_equal_results_and_others_only_nearly(sides):
    assert comparing.compare(*sides, seed=1) == comparing.compare(*sides, seed=1)
    assert comparing.compare(*sides, seed=1) != comparing.compare(*sides, seed=2)


def test_identical_sides_do_not_differ(sides):
    for found in comparing.compare(sides[0], sides[0].copy(), resamples=50).values():
        assert found.difference == found.relative == 0
        assert found.difference_interval == found.relative_interval == (0, 0)
        assert found.wilcoxon_p == found.sign_p == 1
        assert math.isnan(found.effect_size)


def test_higher_confidence_is_a_wider_interval(sides):
    narrow, wide = (comparing.compare(*sides, confidence=level) for level in (0.8, 0.99))
    for key in KEYS:
        assert np.ptp(narrow[key].difference_interval) < np.ptp(wide[key].difference_interval)


def test_intervals_stay_inside_a_metrics_domain():
    base, rl = draw_scores(np.random.default_rng(3), 10, spread=2.0)
    found = comparing.compare(base, rl, FreeChoices(bins=3), resamples=200)
    assert all(item.base_interval[0] >= 0 for key, item in found.items() if "kurt" not in key)
    unpaired = 0.05 * np.roll(rl, 1, axis=0)
    fallen = comparing.compare(base, unpaired, resamples=200)["activation_intensity"]
    assert fallen.relative_interval[0] == -1
    assert found["distribution_kurtosis"].base_interval[0] >= -2
    assert found["sample_diversity"].base_interval[1] <= 2
    assert found["output_edge_entropy"].rl_interval[1] <= math.log(3)


def test_one_question_has_values_but_no_intervals_and_no_tests(sides):
    for key, found in comparing.compare(*(side[:1] for side in sides)).items():
        assert math.isfinite(found.base) == (key != "sample_diversity")
        assert np.isnan([*found.base_interval, *found.difference_interval]).all()
        assert np.isnan([found.wilcoxon_p, found.sign_p, found.effect_size]).all()


def test_nine_questions_have_tests_but_no_intervals(sides):
    base, rl = sides
    assert {one.interval_method for one in comparing.compare(base, rl).values()} == {"bootstrap-t"}
    for one in comparing.compare(base[:9], rl[:9]).values():
        assert math.isfinite(one.difference)
        assert math.isfinite(one.wilcoxon_p)
        assert np.isnan([*one.base_interval, *one.difference_interval]).all()
        assert one.interval_method == "none"
    assert comparing.edge_intervals(base[:9], rl[:9]) == (None, None)


def test_all_zero_scores_do_not_differ_and_have_no_kurtosis_or_diversity():
    zeros = np.zeros((10, 5, 9))
    found = comparing.compare(zeros, zeros, one_range=True)
    assert found["activation_intensity"].base_interval == (0, 0)
    assert math.isnan(found["activation_intensity"].relative)
    assert found["information_complexity"].difference_interval == (0, 0)
    for key in ("distribution_kurtosis", "sample_diversity"):
        assert np.isnan([found[key].base, *found[key].base_interval, found[key].sign_p]).all()


def test_a_metric_undefined_on_one_side_keeps_the_other_sides_interval(sides):
    base, rl = sides
    rl = rl.copy()
    rl[3] = 1.0
    found = comparing.compare(base, rl)["distribution_kurtosis"]
    assert np.isfinite(found.base_interval).all()
    assert np.isnan([found.rl, *found.rl_interval, *found.difference_interval]).all()
    assert math.isnan(found.wilcoxon_p)


@pytest.mark.parametrize("function", [comparing.compare, comparing.edge_intervals])
def test_bad_input_is_refused_in_one_line(function, sides):
    base, rl = sides
    for pair, message in (
        ((base, rl[:5]), r"one shape.*\(12, 5, 9\) and \(5, 5, 9\)"),
        ((base[0], rl[0]), "one shape"),
        ((base[:0], rl[:0]), "one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            function(*pair)
    broken = rl.copy()
    broken[2, 1, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        function(base, broken)
    for options in ({"confidence": 1.0}, {"confidence": 0}, {"resamples": 19}):
        with pytest.raises(ValueError, match="bootstrap"):
            function(base, rl, **options)


def test_a_broken_side_is_named(sides):
    broken = sides[1].copy()
    broken[2, 1, 3] = np.inf
    with pytest.raises(ValueError, match="rl scores.*found inf in sample 2, writer 1, reader 3"):
        comparing.compare(sides[0], broken, one_range=True)


def test_an_edges_interval_is_that_of_the_mean_of_its_differences(sides):
    base, rl = (side.astype(np.float32) for side in sides)
    low, high = comparing.edge_intervals(base, rl, resamples=300, seed=4)
    weights = bootstrap.draw_weights(12, 300, seed=4)
    for writer, reader in np.argwhere(edge_mask(2)):
        values = (rl.astype(float) - base)[:, writer, reader]
        mean = functionals.Mean(values_n=values).resample(weights)
        expected = bootstrap.interval(mean, weights, confidence=0.95)
        assert (low[writer, reader], high[writer, reader]) == pytest.approx(expected, rel=1e-6)
    assert (low[~edge_mask(2)] == 0).all()
    assert (high[~edge_mask(2)] == 0).all()


def test_an_edge_that_always_changes_alike_has_an_interval_of_one_point(sides):
    low, high = comparing.edge_intervals(sides[0], sides[0] + 0.5)
    np.testing.assert_allclose([low, high], 0.5)


def test_proportion_interval_is_wilsons():
    right, total, z = 33, 60, scipy.stats.norm.ppf(0.975)
    centre = (right + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * math.sqrt(right * (total - right) / total + z * z / 4)
    assert comparing.proportion_interval(33, 60) == pytest.approx((centre - half, centre + half))
    assert comparing.proportion_interval(0, 5)[0] == 0
    for right, total in ((0, 0), (6, 5), (-1, 5)):
        with pytest.raises(ValueError, match="accuracy"):
            comparing.proportion_interval(right, total)
