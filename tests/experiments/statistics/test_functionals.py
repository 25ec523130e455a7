"""Metrics as functions of the questions' weights, against literal resampling and differences."""

import numpy as np
import pytest
import scipy.stats
from paired_scores import largest, measure

from experiments.statistics import bootstrap, functionals
from experiments.statistics.metrics import METRIC_BY_KEY, METRICS, FreeChoices

every_metric = pytest.mark.parametrize("key", [metric.key for metric in METRICS])


@every_metric
def test_a_resample_equals_the_metric_of_the_drawn_questions(key, sides):
    """Literally: matrices of the drawn questions stacked; diversity without pairs of a question
    with itself; entropies on the full sample's range."""
    scores = sides[0]
    weights = bootstrap.draw_weights(12, 30, seed=3)
    assert (weights.sum(axis=1) == 12).all()
    functional = METRIC_BY_KEY[key].functional(scores, FreeChoices())
    found = functional.resample(weights).values_Z
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
        METRIC_BY_KEY[key].functional(side, FreeChoices(bins=9, upper=3.0, output_upper=3.0))
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
        ends = [relative((1 - h) * weights + h * alone).values_Z[0] for h in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)
        influence = relative(weights).influences_Zn[0, question]
        assert influence == pytest.approx(slope, rel=1e-4, abs=1e-6)
    assert (relative(weights).influences_Zn * weights).sum() == pytest.approx(0, abs=1e-9)


def test_entropy_correction_removes_most_of_the_bias_of_a_small_sample():
    """4,000 samples of 10 questions with 20 entries in 8 known bins."""
    draw = np.random.default_rng(0)
    chances = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.01, 0.01])
    truth = scipy.stats.entropy(chances)
    plain, corrected = [], []
    for shares in draw.multinomial(20, chances, size=(4000, 10)) / 20:
        found = functionals.PooledEntropy(shares_nU=shares).resample(np.ones((1, 10)))
        plain.append(found.values_Z[0] - truth)
        corrected.append(found.corrected_Z[0] - truth)
    # The Miller-Madow bias: (bins - 1) / (2 * entries).
    assert np.mean(plain) == pytest.approx(-7 / 400, rel=0.2)
    assert abs(np.mean(corrected)) < 0.2 * abs(np.mean(plain))
