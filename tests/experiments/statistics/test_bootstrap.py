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
