"""Bootstrap intervals against the textbook and against simulated studies with known truth."""

import math

import numpy as np
import pytest
import scipy.stats
from paired_scores import draw_scores, measure

from experiments.statistics import bootstrap, functionals
from experiments.statistics import compare as comparing
from experiments.statistics.metrics import METRICS, FreeChoices

KEYS = [metric.key for metric in METRICS]


@pytest.mark.parametrize(("samples", "least"), [(20, 0.7), (30, 0.25)])
def test_interval_of_a_mean_is_the_textbook_bootstrap_t(samples, least):
    """With no resample's error below a share of the sample's, and no end beyond the values."""
    values = np.append(np.random.default_rng(1).gamma(2.0, size=samples - 1), 30.0)
    weights = bootstrap.draw_weights(samples, 400, seed=2)
    found = bootstrap.interval(
        functionals.Mean(values_n=values).resample(weights), weights, confidence=0.9
    )
    error = scipy.stats.sem(values)
    steps, small = [], 0
    for weight in weights[1:].astype(int):
        drawn = np.repeat(values, weight)
        own = drawn.std() / math.sqrt(samples - 1)
        small += own < least * error
        steps.append(abs(drawn.mean() - values.mean()) / max(own, least * error))
    assert small
    reach = np.quantile(steps, 0.9) * error
    expected = (max(values.mean() - reach, values.min()), values.mean() + reach)
    assert found == pytest.approx(expected)


def heavy_tailed(kind, shape, draw):
    """Differences of questions, and their true mean."""
    if kind == "t, 3 df":
        return draw.standard_t(3, size=shape), 0.0
    first, second = np.exp(1.5 * draw.normal(size=(2, *shape)))
    if kind == "difference of log-normals":
        return first - second, 0.0
    return first, math.exp(1.125)


def coverage(kind, samples, studies, seed):
    """Share of simulated studies whose 95 % interval holds the true mean; the studies, their ends."""
    values, truth = heavy_tailed(kind, (samples, studies), np.random.default_rng(seed))
    weights = bootstrap.draw_weights(samples, 2000, seed=seed)
    low, high = bootstrap.mean_intervals(values, weights, confidence=0.95)
    return np.mean((low <= truth) & (truth <= high)), values, low, high


@pytest.mark.parametrize("samples", [12, 20, 30, 100])
@pytest.mark.parametrize("kind", ["t, 3 df", "difference of log-normals", "log-normal"])
def test_intervals_of_heavy_tailed_differences_cover_and_stay_in_their_range(kind, samples):
    """400 studies a case. One log-normal is skewed so much that a sample's largest number is often
    below its mean: see `bootstrap` for what is reached there and by other intervals."""
    covered, values, low, high = coverage(kind, samples, 400, seed=samples)
    if kind == "log-normal":
        assert {12: 0.63, 20: 0.67, 30: 0.79, 100: 0.84}[samples] < covered < 0.95
    else:
        assert 0.92 <= covered <= (0.98 if samples < 30 else 0.995)
    assert (low >= values.min(axis=0)).all()
    assert (high <= values.max(axis=0)).all()
    half_width = scipy.stats.t.ppf(0.975, samples - 1) * scipy.stats.sem(values)
    assert ((high - low) / 2 <= (1.3 if samples < 30 else 3.5) * half_width).all()


def test_an_outlier_that_resamples_miss_does_not_blow_an_interval_up():
    """Twelve differences within +-1.78 once had the interval -13.4 to 13.1."""
    for samples in (12, 30):
        values = np.append(np.full(samples - 2, 1e-3), [-1.78, 1.7])[:, None]
        weights = bootstrap.draw_weights(samples, 2000, seed=0)
        low, high = bootstrap.mean_intervals(values, weights, confidence=0.95)
        mean = functionals.Mean(values_n=values[:, 0]).resample(weights)
        assert bootstrap.interval(mean, weights, confidence=0.95) == pytest.approx(
            (low[0], high[0])
        )
        assert -0.6 < low[0] < 0 < high[0] < 0.6


def test_intervals_cover_the_true_value_in_95_percent_of_simulated_studies():
    """150 studies of 40 questions against a population of 60,000. With a true coverage of 95 % a
    count this far off has a chance below 1e-4."""
    studies, range_ = 150, 6.0
    choices = FreeChoices(upper=range_, output_upper=range_)
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
        compared = comparing.compare(base, rl, choices, resamples=400, seed=study)
        for key, found in compared.items():
            low, high = found.rl_interval
            hits[key, "rl"] += low <= truth[1][key] <= high
            low, high = found.difference_interval
            hits[key, "difference"] += low <= truth[1][key] - truth[0][key] <= high
    fewest, most = scipy.stats.binom.ppf([5e-5, 1 - 5e-5], studies, 0.95)
    assert fewest > 0.85 * studies
    for name, count in hits.items():
        assert fewest <= count <= most, f"{name}: {count} of {studies}"


@pytest.mark.parametrize("size", [1e6, 1.0, 1e-20])
def test_numbers_that_differ_by_rounding_have_no_spread_and_others_have(size):
    """By up to 1e-14 and by up to 1e-8 of their size, whatever the size is."""
    steps = np.arange(12)
    columns = size * np.stack([1 + 1e-15 * steps, 1 + 1e-9 * steps], axis=1)
    weights = bootstrap.draw_weights(12, 50, seed=0)
    low, high = bootstrap.mean_intervals(columns, weights, confidence=0.95)
    mean = columns.mean(axis=0)
    assert (low[0], high[0]) == (mean[0], mean[0])
    assert low[1] < mean[1] < high[1]
    for column, spread in ((0, False), (1, True)):
        resampled = functionals.Mean(values_n=columns[:, column]).resample(weights)
        value = resampled.values_Z[0]
        found = bootstrap.interval(resampled, weights, confidence=0.95)
        assert (found == (value, value)) != spread
        assert (found[0] < value < found[1]) == spread


def test_a_difference_of_rounding_holds_zero_and_zeros_have_no_spread():
    weights = bootstrap.draw_weights(10, 50, seed=0)
    sum_, same, none = (
        functionals.Mean(values_n=np.full(10, value)).resample(weights)
        for value in (0.1 + 0.2, 0.3, 0.0)
    )
    difference = sum_ - same
    assert difference.values_Z[0] > 0
    assert bootstrap.interval(difference, weights, confidence=0.95) == (0, difference.values_Z[0])
    other = bootstrap.interval(same - sum_, weights, confidence=0.95)
    assert other == (-difference.values_Z[0], 0)
    assert bootstrap.interval(none, weights, confidence=0.95) == (0, 0)
    assert bootstrap.interval(same, weights, confidence=0.95) == (same.values_Z[0],) * 2


def test_a_mean_an_ulp_beside_equal_numbers_is_its_own_interval():
    columns = np.repeat(np.linspace(0.05, 0.95, 19)[None], 11, axis=0)
    mean = columns.mean(axis=0)
    assert (mean < columns[0]).any()
    assert (mean > columns[0]).any()
    weights = bootstrap.draw_weights(11, 20, seed=0)
    low, high = bootstrap.mean_intervals(columns, weights, confidence=0.95)
    assert (low == mean).all()
    assert (high == mean).all()
