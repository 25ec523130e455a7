"""Paired statistics against hand arithmetic, scipy, literal resampling and simulated studies."""

import math

import numpy as np
import pytest
import scipy.stats

from eap_jax import metrics
from eap_jax.graph import edge_mask
from experiments.report.results import METRICS, Sensitivity
from experiments.statistics import across_cells, bootstrap, functionals, paired_tests
from experiments.statistics import compare as comparing
from experiments.statistics.sensitivity import sensitivities

KEYS = [metric.key for metric in METRICS]
NAN = math.nan
every_metric = pytest.mark.parametrize("key", KEYS)


def draw_scores(draw, samples, num_layers=2, spread=0.6):
    """(base, rl) [n, W, R] from one population: heavy-tailed entries, questions of unlike scale,
    each question more or less like the typical one, both sides of a question alike."""
    mask = edge_mask(num_layers)
    fixed = np.random.default_rng(7)
    typical = fixed.normal(size=mask.shape) * np.exp(fixed.normal(size=mask.shape)) * mask
    later = typical * (0.8 + 0.5 * fixed.normal(size=mask.shape))
    scale = np.exp(spread * draw.normal(size=(samples, 1, 1)))
    unlike = draw.beta(2, 2, size=(samples, 1, 1))
    noise, news = draw.standard_t(4, size=(2, samples, *mask.shape))
    base = scale * (typical * (1 - unlike) + np.abs(typical) * unlike * noise)
    rl = scale * (later * (1 - unlike) + np.abs(later) * unlike * (0.6 * noise + 0.8 * news))
    return base, rl


@pytest.fixture
def sides():
    return draw_scores(np.random.default_rng(0), 12)


def measure(key, scores, upper):
    """The metric by `eap_jax.metrics`; `upper` for the entropies."""
    options = {"upper": upper} if "complexity" in key or "entropy" in key else {}
    return getattr(metrics, key)(scores, **options)


def largest(key, scores):
    return np.abs(scores[:, :, -1] if key == "output_edge_entropy" else scores).max()


# Values.


def test_values_are_exactly_those_of_the_metrics(sides):
    base, rl = sides
    for key, found in comparing.compare(base, rl, resamples=20).items():
        measured = [getattr(metrics, key)(side) for side in sides]
        assert [found.base, found.rl] == measured
        assert found.difference == measured[1] - measured[0]
        assert found.relative == (measured[1] - measured[0]) / abs(measured[0])
        assert (found.metric, found.samples) == (key, 12)


def test_options_reach_the_metrics(sides):
    base, rl = sides
    mask = edge_mask(2)
    found = comparing.compare(
        base, rl, resamples=20, support_WR=mask, bins=7, upper=2.5, output_upper=1.5
    )
    assert found["activation_intensity"].rl == metrics.activation_intensity(rl, mask)
    assert found["distribution_kurtosis"].rl == metrics.distribution_kurtosis(rl, mask)
    assert found["sample_diversity"].rl == metrics.sample_diversity(rl, mask)
    expected = metrics.information_complexity(rl, mask, bins=7, upper=2.5)
    assert found["information_complexity"].rl == expected
    assert found["output_edge_entropy"].rl == metrics.output_edge_entropy(rl, bins=7, upper=1.5)


def test_one_range_is_the_larger_of_both_sides(sides):
    base, rl = sides
    found = comparing.compare(base, rl, resamples=20, one_range=True)
    for key in ("information_complexity", "output_edge_entropy"):
        widest = max(largest(key, base), largest(key, rl))
        assert found[key].base == measure(key, base, widest)
        assert found[key].rl == measure(key, rl, widest)


# Resampling.


@every_metric
def test_a_resample_equals_the_metric_of_the_drawn_questions(key, sides):
    """Literally: matrices of the drawn questions stacked; diversity without pairs of a question
    with itself; entropies on the full sample's range."""
    scores = sides[0]
    weights = bootstrap.draw_weights(12, 30, seed=3)
    assert (weights.sum(axis=1) == 12).all()
    _, functional = functionals.functionals_of(
        scores, None, bins=100, upper=None, output_upper=None
    )[key]
    found = functional.resample(weights).values_B
    for weight, value in zip(weights.astype(int), found, strict=True):
        drawn = np.repeat(np.arange(12), weight)
        if key == "sample_diversity":
            flat = scores.reshape(12, -1)
            pairs = [
                np.corrcoef(flat[i], flat[j])[0, 1]
                for place, i in enumerate(drawn)
                for j in drawn[:place]
                if i != j
            ]
            expected = 1 - np.mean(pairs)
        else:
            expected = measure(key, scores[drawn], largest(key, scores))
        assert value == pytest.approx(expected, rel=1e-9)


@every_metric
def test_an_influence_is_the_derivative_by_a_questions_weight(key, sides):
    """Central differences along (1 - h) * weights + h * n * (that question alone)."""
    base, rl = (
        functionals.functionals_of(side, None, bins=9, upper=3.0, output_upper=3.0)[key][1]
        for side in sides
    )
    weights = np.random.default_rng(0).integers(1, 4, size=(1, 12)).astype(float)
    weights *= 12 / weights.sum()

    def relative(weights):
        start, end = base.resample(weights), rl.resample(weights)
        return (end - start).over_magnitude(start)

    step = 1e-5
    for question in range(12):
        alone = 12.0 * (np.arange(12) == question)[None, :]
        ends = [relative((1 - h) * weights + h * alone).values_B[0] for h in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)
        influence = relative(weights).influences_Bn[0, question]
        assert influence == pytest.approx(slope, rel=1e-4, abs=1e-6)
    assert (relative(weights).influences_Bn * weights).sum() == pytest.approx(0, abs=1e-9)


def test_interval_of_a_mean_is_the_textbook_bootstrap_t():
    values = np.random.default_rng(1).gamma(2.0, size=20)
    weights = bootstrap.draw_weights(20, 400, seed=2)
    found = bootstrap.interval(
        functionals.Mean(values_n=values).resample(weights), weights, confidence=0.9
    )
    steps = []
    for weight in weights[1:].astype(int):
        drawn = np.repeat(values, weight)
        steps.append(abs(drawn.mean() - values.mean()) / (drawn.std() / math.sqrt(19)))
    reach = np.quantile(steps, 0.9) * scipy.stats.sem(values)
    assert found == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_entropy_correction_removes_most_of_the_bias_of_a_small_sample():
    """4,000 samples of 10 questions with 20 entries in 8 known bins."""
    draw = np.random.default_rng(0)
    chances = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.01, 0.01])
    truth = scipy.stats.entropy(chances)
    plain, corrected = [], []
    for shares in draw.multinomial(20, chances, size=(4000, 10)) / 20:
        found = functionals.PooledEntropy(shares_nb=shares).resample(np.ones((1, 10)))
        plain.append(found.values_B[0] - truth)
        corrected.append(found.corrected_B[0] - truth)
    # The Miller-Madow bias: (bins - 1) / (2 * entries).
    assert np.mean(plain) == pytest.approx(-7 / 400, rel=0.2)
    assert abs(np.mean(corrected)) < 0.2 * abs(np.mean(plain))


def test_intervals_cover_the_true_value_in_95_percent_of_simulated_studies():
    """150 studies of 40 questions against a population of 60,000. With a true coverage of 95 % a
    count this far off has a chance below 1e-4."""
    studies, range_ = 150, 6.0
    population = draw_scores(np.random.default_rng(99), 60_000)
    truth = []
    for side in population:
        flat = side.reshape(len(side), -1)
        units = flat - flat.mean(axis=1, keepdims=True)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        total = len(side)
        agreement = ((units.sum(axis=0) ** 2).sum() - total) / (total * (total - 1))
        truth.append(
            {key: measure(key, side, range_) for key in KEYS if key != "sample_diversity"}
            | {"sample_diversity": 1 - agreement}
        )
    hits = dict.fromkeys([(key, kind) for key in KEYS for kind in ("rl", "difference")], 0)
    for study in range(studies):
        base, rl = draw_scores(np.random.default_rng(1000 + study), 40)
        compared = comparing.compare(
            base, rl, resamples=400, seed=study, upper=range_, output_upper=range_
        )
        for key, found in compared.items():
            low, high = found.rl_interval
            hits[key, "rl"] += low <= truth[1][key] <= high
            low, high = found.difference_interval
            hits[key, "difference"] += low <= truth[1][key] - truth[0][key] <= high
    fewest, most = scipy.stats.binom.ppf([5e-5, 1 - 5e-5], studies, 0.95)
    assert fewest > 0.85 * studies
    for name, count in hits.items():
        assert fewest <= count <= most, f"{name}: {count} of {studies}"


def test_tests_reject_a_true_null_as_often_as_they_claim():
    """Sides exchanged at random, question by question: 200 studies at the 5 % level."""
    studies, rejected = 200, dict.fromkeys(KEYS, 0)
    for study in range(studies):
        draw = np.random.default_rng(study)
        base, rl = draw_scores(draw, 30)
        swap = (draw.random(30) < 0.5)[:, None, None]
        changes = paired_tests.question_changes(np.where(swap, rl, base), np.where(swap, base, rl))
        for key in KEYS:
            found = paired_tests.paired_tests(changes[key])
            rejected[key] += found.wilcoxon_p < 0.05
    most = scipy.stats.binom.ppf(1 - 1e-4, studies, 0.05)
    assert all(count <= most for count in rejected.values()), rejected


# Tests of the questions' changes.


def test_changes_of_questions_by_hand():
    base = np.array([[[1.0, -1.0], [0.0, 2.0]], [[2.0, 2.0], [0.0, 0.0]]])
    rl = np.array([[[2.0, -2.0], [0.0, 2.0]], [[1.0, 2.0], [0.0, 0.0]]])
    changes = paired_tests.question_changes(base, rl, bins=2)
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
    changes = paired_tests.question_changes(base, rl, bins=4)
    compared = comparing.compare(base, rl, resamples=20, bins=4, one_range=True)
    for key in KEYS:
        expected = compared[key].difference
        tolerance = 0.02 if "complexity" in key or "entropy" in key else 1e-9
        assert changes[key].values_n.mean() == pytest.approx(expected, rel=tolerance, abs=1e-9)


def test_p_values_and_effect_size_are_scipys_and_those_of_the_definition():
    values = np.array([3.0, -1.0, 2.0, 5.0, 0.0, 4.0, -2.5])
    found = paired_tests.paired_tests(paired_tests.Changes(values_n=values, size=5.0))
    changed = values[values != 0]
    assert found.wilcoxon_p == scipy.stats.wilcoxon(changed).pvalue
    assert found.sign_p == pytest.approx(2 * (1 + 6 + 15) / 64)  # at most 2 of 6 fall
    # Ranks of 3, -1, 2, 5, 4, -2.5 by size: 4, 1, 2, 6, 5, 3.
    assert found.effect_size == pytest.approx((17 - 4) / 21)


def test_all_rises_are_an_effect_of_one():
    base = np.random.default_rng(0).normal(size=(9, 5, 9))
    found = comparing.compare(base, 2 * base, resamples=50)
    assert found["activation_intensity"].effect_size == 1
    assert found["activation_intensity"].sign_p == pytest.approx(2 / 2**9)
    assert found["activation_intensity"].relative_interval == pytest.approx((1, 1))
    assert found["sample_diversity"].difference_interval[0] <= 0
    assert found["distribution_kurtosis"].wilcoxon_p == 1


# Symmetries.


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


# Edges of the domain.


def test_intervals_stay_inside_a_metrics_domain():
    base, rl = draw_scores(np.random.default_rng(3), 5, spread=2.0)
    found = comparing.compare(base, rl, bins=3, resamples=200)
    assert all(item.base_interval[0] >= 0 for key, item in found.items() if "kurt" not in key)
    fallen = comparing.compare(base, 0.05 * rl, resamples=200)["activation_intensity"]
    assert fallen.relative_interval[0] == -1
    assert found["distribution_kurtosis"].base_interval[0] >= -2
    assert found["sample_diversity"].base_interval[1] <= 2
    assert found["output_edge_entropy"].rl_interval[1] <= math.log(3)


def test_one_question_has_values_but_no_intervals_and_no_tests(sides):
    for key, found in comparing.compare(*(side[:1] for side in sides)).items():
        assert math.isfinite(found.base) == (key != "sample_diversity")
        assert np.isnan([*found.base_interval, *found.difference_interval]).all()
        assert np.isnan([found.wilcoxon_p, found.sign_p, found.effect_size]).all()


def test_two_questions_have_students_interval_and_no_interval_of_diversity(sides):
    found = comparing.compare(*(side[:2] for side in sides))
    low, high = found["activation_intensity"].difference_interval
    changes = metrics.sample_intensity(sides[1][:2]) - metrics.sample_intensity(sides[0][:2])
    expected = scipy.stats.t.interval(0.95, 1, changes.mean(), scipy.stats.sem(changes))
    assert (low, high) == pytest.approx(expected)
    assert math.isfinite(found["sample_diversity"].difference)
    assert np.isnan(found["sample_diversity"].difference_interval).all()


def test_all_zero_scores_do_not_differ_and_have_no_kurtosis_or_diversity():
    zeros = np.zeros((6, 5, 9))
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


# Edges.


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


def test_edges_of_few_questions(sides):
    base, rl = sides
    assert comparing.edge_intervals(base[:1], rl[:1]) == (None, None)
    low, high = comparing.edge_intervals(base[:3], rl[:3])
    changes = (rl - base)[:3, 0, -1]
    expected = scipy.stats.t.interval(0.95, 2, changes.mean(), scipy.stats.sem(changes))
    assert (low[0, -1], high[0, -1]) == pytest.approx(expected)
    low, high = comparing.edge_intervals(base, base + 0.5)
    np.testing.assert_allclose([low, high], 0.5)


# Over cells.


def test_holm_by_hand_and_nan_passes_through():
    found = across_cells.holm([0.01, NAN, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, NAN, 0.06, 0.06, 0.02])
    assert across_cells.holm([0.9, 0.8]).tolist() == [1, 1]
    assert across_cells.holm([]).tolist() == []
    assert np.isnan(across_cells.holm([NAN])).all()
    with pytest.raises(ValueError, match="p-values"):
        across_cells.holm([0.5, 1.5])


def test_holm_keeps_the_family_wise_error():
    """10 true nulls: any rejection at 5 % in at most 5 % of 2,000 families."""
    families = np.random.default_rng(0).random((2000, 10))
    wrong = sum((across_cells.holm(family) < 0.05).any() for family in families)
    assert scipy.stats.binom.ppf(1e-4, 2000, 0.04) < wrong
    assert wrong < scipy.stats.binom.ppf(1 - 1e-4, 2000, 0.05)


def test_rise_summary_counts_cells_in_which_the_change_is_defined(sides):
    base, rl = sides
    twice = comparing.compare(base, 2 * base, resamples=20)["activation_intensity"]
    half = comparing.compare(base, 0.5 * base, resamples=20)["activation_intensity"]
    none = comparing.compare(0 * base, rl, resamples=20)["activation_intensity"]
    found = across_cells.rise_summary([twice, twice, half, none])
    assert found.cells == 3
    assert found.share == pytest.approx(2 / 3)
    assert found.mean_change == pytest.approx((1 + 1 - 0.5) / 3)
    empty = across_cells.rise_summary([none])
    assert empty.cells == 0
    assert math.isnan(empty.share)


def test_proportion_interval_is_wilsons():
    right, total, z = 33, 60, scipy.stats.norm.ppf(0.975)
    centre = (right + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * math.sqrt(right * (total - right) / total + z * z / 4)
    assert comparing.proportion_interval(33, 60) == pytest.approx((centre - half, centre + half))
    assert comparing.proportion_interval(0, 5)[0] == 0
    for right, total in ((0, 0), (6, 5), (-1, 5)):
        with pytest.raises(ValueError, match="accuracy"):
            comparing.proportion_interval(right, total)


def test_sensitivities_are_the_metrics_under_other_settings(sides):
    base, rl = sides
    rows = sensitivities(base, rl, cell="c", bins=(50, 100), samples=(10, 12, 50))
    found = {(row.metric, row.choice): (row.base, row.rl) for row in rows}
    assert len(found) == len(rows) == 2 + 2 + 2 * 5
    assert all(isinstance(row, Sensitivity) and row.cell == "c" for row in rows)
    complexity = metrics.information_complexity
    key = "information_complexity"
    assert found[key, "50 bins"] == (complexity(base, bins=50), complexity(rl, bins=50))
    own = found[key, "own range on each side"]
    assert own == found[key, "100 bins"] == found[key, "all 12 samples"]
    widest = max(np.abs(base).max(), np.abs(rl).max())
    shared = (complexity(base, upper=widest), complexity(rl, upper=widest))
    assert found[key, "one range for both"] == shared
    diversity = found["sample_diversity", "10 samples"]
    assert diversity == (metrics.sample_diversity(base[:10]), metrics.sample_diversity(rl[:10]))
