"""The statistics against hand arithmetic, loops and scipy, and at the edges of validity."""

import math

import numpy as np
import pytest
import scipy.stats

from eap_jax import metrics
from eap_jax.graph import edge_mask

STATISTICS = (
    metrics.intensity,
    metrics.complexity,
    metrics.kurtosis,
    metrics.kurtosis_per_sample,
    metrics.intensity_per_sample,
    metrics.diversity,
)
ENTROPIES = (metrics.complexity, metrics.output_entropy)
EVERY = (
    *STATISTICS, metrics.output_entropy, metrics.column_sum_residual,
    metrics.entropy_of_strengths, metrics.entropy_of_strengths_per_sample,
)  # fmt: skip


@pytest.fixture
def scores():
    """4 heavy-tailed matrices of a 2-layer graph, structural zeros included, float32."""
    rng = np.random.default_rng(0)
    return (rng.standard_t(3, (4, 5, 9)) * edge_mask(2)).astype(np.float32)


def entropy_by_loops(values, bins, upper, eps):
    counts = [0] * bins
    for value in values:
        counts[min(int(abs(value) / upper * bins), bins - 1)] += 1
    return -sum(c / len(values) * math.log(c / len(values) + eps) for c in counts)


# Values.


def test_intensity_is_the_mean_magnitude_zeros_included():
    scores = np.asarray([[[1.0, -3.0], [0.0, 0.0]], [[0.0, 0.0], [-4.0, 0.0]]])
    assert metrics.intensity(scores) == 1.0
    assert metrics.intensity_per_sample(scores).tolist() == [1.0, 1.0]


def test_intensity_over_real_edges_leaves_structural_zeros_out(scores):
    share = edge_mask(2).mean()
    assert metrics.intensity(scores, edge_mask(2)) == pytest.approx(
        metrics.intensity(scores) / share
    )


def test_complexity_by_hand():
    """Magnitudes 0, 1, 2, 4 in 4 bins of [0, 4]: two share no bin, 4 is in the last one."""
    scores = np.asarray([[[0.0, -1.0], [2.0, 4.0]]])
    assert metrics.complexity(scores, bins=4) == pytest.approx(math.log(4))
    assert metrics.complexity(scores, bins=2) == pytest.approx(math.log(2))
    assert metrics.complexity(scores, bins=1) == pytest.approx(0, abs=1e-9)
    shares = 3 / 4 * math.log(4 / 3) + 1 / 4 * math.log(4)
    assert metrics.complexity(scores, bins=4, upper=16) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("bins", "upper", "eps"), [(100, None, 1e-12), (7, 2.5, 1e-3), (50, 99, 0.1)]
)
def test_complexity_equals_a_histogram_by_loops(scores, bins, upper, eps):
    found = metrics.complexity(scores, bins=bins, upper=upper, eps=eps)
    values = scores.astype(np.float64).ravel()
    expected = entropy_by_loops(values, bins, upper or np.abs(values).max(), eps)
    assert found == pytest.approx(max(expected, 0), rel=1e-12)


def test_complexity_pools_all_samples_before_it_bins(scores):
    """One histogram of all samples: not the mean of one entropy a sample."""
    each = np.mean([metrics.complexity(s[None]) for s in scores])
    assert metrics.complexity(scores) != pytest.approx(each, rel=1e-3)


def test_values_beyond_the_common_range_are_counted_in_the_last_bin(scores):
    clipped = np.clip(scores, -0.5, 0.5)
    assert metrics.complexity(scores, upper=0.5) == pytest.approx(
        metrics.complexity(clipped, upper=0.5), rel=1e-12
    )


def test_kurtosis_is_the_mean_over_samples_of_scipys_population_excess_kurtosis(scores):
    each = [scipy.stats.kurtosis(s.astype(np.float64).ravel()) for s in scores]
    assert metrics.kurtosis(scores) == pytest.approx(np.mean(each), rel=1e-9)
    np.testing.assert_allclose(metrics.kurtosis_per_sample(scores), each, rtol=1e-9)
    two_points = np.asarray([[[1.0, -1.0], [1.0, -1.0]]])
    assert metrics.kurtosis(two_points) == pytest.approx(-2)


def test_kurtosis_of_normal_numbers_is_zero():
    normal = np.random.default_rng(0).normal(size=(1, 400, 400))
    assert metrics.kurtosis(normal) == pytest.approx(0, abs=0.05)


def test_diversity_is_one_minus_the_mean_correlation_of_all_pairs(scores):
    pairs = [
        np.corrcoef(scores[i].ravel(), scores[j].ravel())[0, 1] for i in range(4) for j in range(i)
    ]
    assert metrics.diversity(scores) == pytest.approx(1 - np.mean(pairs), rel=1e-6)


def test_diversity_of_scaled_copies_is_zero_and_of_opposites_two(scores):
    assert metrics.diversity(np.stack([scores[0], 5 * scores[0]])) == pytest.approx(0, abs=1e-12)
    assert metrics.diversity(np.stack([scores[0], -scores[0]])) == pytest.approx(2)


def test_output_edge_entropy_reads_the_logits_column_only(scores):
    expected = entropy_by_loops(
        scores[:, :, -1].astype(np.float64).ravel(), 100, np.abs(scores[:, :, -1]).max(), 1e-12
    )
    assert metrics.output_entropy(scores) == pytest.approx(expected, rel=1e-9)
    other = scores.copy()
    other[:, :, :-1] = 7
    assert metrics.output_entropy(other) == metrics.output_entropy(scores)


def test_entropy_of_strengths_by_hand():
    """Shares 1/4, 1/4, 1/2 and 0 of the first sample; all in one edge of the second."""
    scores = np.asarray([[[1.0, -1.0], [2.0, 0.0]], [[0.0, -7.0], [0.0, 0.0]]])
    found = metrics.entropy_of_strengths_per_sample(scores)
    assert found == pytest.approx([1.5 * math.log(2), 0])
    assert metrics.entropy_of_strengths(scores) == pytest.approx(0.75 * math.log(2))
    support = np.asarray([[True, True], [False, True]])
    assert metrics.entropy_of_strengths(scores[:1], support) == pytest.approx(math.log(2))


def test_column_residual_by_hand():
    scores = np.asarray([[[1.0, 2.0], [-1.0, 1.0]], [[0.0, -5.0], [0.0, 5.0]]])
    assert metrics.column_sum_residual(scores) == pytest.approx(3 / 15)
    healthy = np.asarray([[[3.0, -1.0], [-3.0, 1.0]]])
    assert metrics.column_sum_residual(healthy) == 0


def test_column_residual_shows_a_missing_a_doubled_and_a_misplaced_writer():
    rng = np.random.default_rng(0)
    healthy = rng.normal(size=(3, 5, 9))
    healthy -= healthy.mean(axis=1, keepdims=True)
    assert metrics.column_sum_residual(healthy) < 1e-12
    for factor in (0, 2):
        broken = healthy.copy()
        broken[:, 2] *= factor
        assert metrics.column_sum_residual(broken) > 0.1
    rolled = healthy.copy()
    rolled[:, 2] = np.roll(rolled[:, 2], 1, axis=-1)
    assert metrics.column_sum_residual(rolled) > 0.1


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda f: f.__name__)
def test_support_takes_exactly_the_chosen_entries(statistic, scores):
    """The same statistic of a smaller matrix that holds these entries alone."""
    support = edge_mask(2)
    alone = scores[:, support][:, None, :]
    np.testing.assert_allclose(statistic(scores, support), statistic(alone), rtol=1e-12)
    assert not np.allclose(statistic(scores, support), statistic(scores), rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize(
    "statistic",
    [metrics.complexity, metrics.kurtosis, metrics.diversity,
     metrics.output_entropy, metrics.column_sum_residual, metrics.entropy_of_strengths],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_shapes_of_distributions_do_not_change_with_scale(statistic, scale, scores):
    expected = statistic(scores.astype(np.float64))
    assert statistic(scores.astype(np.float64) * scale) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("statistic", EVERY, ids=lambda f: f.__name__)
def test_a_statistic_leaves_its_input_alone_and_does_not_depend_on_the_order_of_samples(
    statistic, scores
):
    before = scores.copy()
    found, reversed_ = np.sort(statistic(scores), axis=None), statistic(scores[::-1])
    np.testing.assert_array_equal(scores, before)
    np.testing.assert_allclose(np.sort(reversed_, axis=None), found, rtol=1e-9)


# Edges of the domain.


@pytest.mark.parametrize("statistic", EVERY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(0, 5, 9), (2, 0, 9), (2, 5, 0), (5, 9), (1, 2, 5, 9), ()])
def test_an_empty_array_or_one_of_another_rank_is_refused(statistic, shape):
    with pytest.raises(ValueError, match=r"expected \[n, W, R\]"):
        statistic(np.zeros(shape))


@pytest.mark.parametrize("statistic", EVERY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_place(statistic, value, scores):
    scores[2, 3, 8] = value
    with pytest.raises(ValueError, match=f"found {value} in sample 2, writer 3, reader 8"):
        statistic(scores)


def test_all_zero_scores_have_zero_intensity_and_entropy_and_no_other_statistic():
    zeros = np.zeros((3, 5, 9))
    assert metrics.intensity(zeros) == 0
    for entropy in ENTROPIES:
        assert entropy(zeros) == 0
        assert entropy(zeros, upper=1.0) == pytest.approx(0, abs=1e-9)
    assert math.isnan(metrics.kurtosis(zeros))
    assert math.isnan(metrics.diversity(zeros))
    assert math.isnan(metrics.column_sum_residual(zeros))
    assert math.isnan(metrics.entropy_of_strengths(zeros))


@pytest.mark.parametrize("value", [0.1, 1e-30, -3.0])
def test_constant_scores_have_no_kurtosis_and_no_diversity(value):
    """0.1 is not exact in binary: rounding must not pass for a spread."""
    constant = np.full((3, 5, 9), value)
    assert math.isnan(metrics.kurtosis(constant))
    assert math.isnan(metrics.diversity(constant))
    assert metrics.complexity(constant) == 0
    assert metrics.column_sum_residual(constant) == pytest.approx(1)


def test_one_constant_sample_makes_the_mean_kurtosis_and_the_diversity_undefined(scores):
    scores[1] = 0
    assert math.isnan(metrics.kurtosis(scores))
    assert np.isnan(metrics.kurtosis_per_sample(scores)).tolist() == [False, True, False, False]
    assert math.isnan(metrics.diversity(scores))


def test_one_sample_has_no_diversity_but_all_else(scores):
    assert math.isnan(metrics.diversity(scores[:1]))
    for statistic in EVERY:
        if statistic is not metrics.diversity:
            assert np.isfinite(statistic(scores[:1])).all()


@pytest.mark.parametrize("entropy", ENTROPIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "argument",
    [{"bins": 0}, {"eps": 0}, {"eps": -1}, {"upper": 0}, {"upper": -1}, {"upper": math.nan}],
)
def test_a_histogram_that_makes_no_sense_is_refused(entropy, argument, scores):
    with pytest.raises(ValueError, match="histogram"):
        entropy(scores, **argument)


@pytest.mark.parametrize(
    "support",
    [np.ones((9, 5), bool), np.ones((5, 9), int), np.zeros((5, 9), bool), np.ones((4, 5, 9), bool)],
)
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda f: f.__name__)
def test_a_support_of_another_shape_or_type_or_without_entries_is_refused(
    statistic, support, scores
):
    with pytest.raises(ValueError, match="support"):
        statistic(scores, support)


def test_entropy_lies_between_zero_and_the_logarithm_of_the_bins():
    uniform = np.linspace(0, 1, 9 * 5 * 20).reshape(20, 5, 9)
    assert metrics.complexity(uniform, bins=10) == pytest.approx(math.log(10), rel=1e-3)
    for bins in (1, 2, 10, 1000):
        assert 0 <= metrics.complexity(uniform, bins=bins) <= math.log(bins) + 1e-9
