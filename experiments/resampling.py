"""Studentised bootstrap intervals over questions.

Every resample has its value and, from the questions' influences on it, a standard error of its own;
the spread of (resampled value - value) / error says how far an interval must reach (bootstrap-t).

Why studentised: in simulated studies with heavy-tailed scores, 95 % intervals of the five metrics
at n = 100 covered the true value in 93 to 97 %. Percentile and BCa intervals of the output-edge
entropy covered it in 76 to 93 %: a sample's entropy lies too low, a resample's lies lower still,
and only the studentised interval moves up for that. Differences of paired sides are nearly
symmetric; their intervals are, too, which at n = 30 kept 93 to 97 % where equal tails kept 90 to
95 %.

Axes: B sets of weights (the first one is the sample itself), n questions, E numbers a question.
"""

import numpy as np
import scipy.stats

from experiments.functionals import Resampled

# A smaller share of the numbers that a value is made of is rounding in float64.
ROUNDING = 1e-12
# With fewer questions hardly a resample has a standard error of use.
_FEWEST_FOR_BOOTSTRAP = 5


def draw_weights(samples: int, resamples: int, seed: int) -> np.ndarray:
    """How often each question counts: [1 + resamples, n] float64, first the sample as it is."""
    draw = np.random.default_rng(seed)
    drawn_Bn = draw.multinomial(samples, np.full(samples, 1 / samples), size=resamples)
    return np.concatenate([np.ones((1, samples)), drawn_Bn])


def interval(
    resampled: Resampled, weights_Bn: np.ndarray, *, confidence: float, symmetric: bool = False
) -> tuple[float, float]:
    """Studentised bootstrap interval of a statistic.

    Args:
      resampled: the statistic under `weights_Bn`, the sample itself first.
      weights_Bn: see `draw_weights`.
      confidence: chance to cover the true value.
      symmetric: equally far to both sides, for statistics without a skew or a bias; else both tails
        have the same chance.

    Returns:
      (low, high): NaN where the statistic or its standard error is not defined (always for one
      question); the value itself, twice, where no question differs from another. Below 5 questions
      quantiles are Student's.
    """
    samples = weights_Bn.shape[1]
    value = float(resampled.values_B[0])
    if samples < 2 or not np.isfinite(value):
        return (np.nan, np.nan)
    squares_B = (weights_Bn * resampled.influences_Bn**2).sum(axis=1)
    errors_B = np.sqrt(squares_B / (samples * (samples - 1)))
    rounding = ROUNDING * resampled.size
    if not np.isfinite(errors_B[0]):
        return (np.nan, np.nan)
    if errors_B[0] <= rounding:
        # A difference that is rounding must not exclude zero.
        return (min(value, 0.0), max(value, 0.0)) if abs(value) <= rounding else (value, value)
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    if samples < _FEWEST_FOR_BOOTSTRAP:
        low, high = scipy.stats.t.ppf(ends, samples - 1)
    else:
        # A few equal questions: no spread, no standard error.
        usable_B = np.isfinite(resampled.values_B) & (errors_B > rounding)
        usable_B[0] = False
        if not usable_B.any():
            return (np.nan, np.nan)
        steps_b = (resampled.values_B[usable_B] - value) / errors_B[usable_B]
        if symmetric:
            high = np.quantile(np.abs(steps_b), confidence)
            low = -high
        else:
            low, high = np.quantile(steps_b, ends)
    return (float(value - high * errors_B[0]), float(value - low * errors_B[0]))


def mean_intervals(
    values_nE: np.ndarray, weights_Bn: np.ndarray, *, confidence: float, chunk: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric studentised intervals of many means at once; each equals that of `Mean`.

    Args:
      values_nE: E numbers a question, at least 2 questions.
      weights_Bn: see `draw_weights`.
      confidence: chance of each interval on its own to cover its true mean.
      chunk: columns done at a time; bounds the memory.

    Returns:
      (low_E, high_E); the mean itself, twice, in a column of equal numbers.
    """
    samples, columns = values_nE.shape
    resampled_bn = weights_Bn[1:]
    mean_E = values_nE.mean(axis=0)
    centred_nE = values_nE - mean_E
    error_E = np.sqrt((centred_nE**2).sum(axis=0) / (samples * (samples - 1)))
    rounding_E = ROUNDING * np.abs(values_nE).max(axis=0)
    reach_E = np.zeros(columns)
    varied_E = np.flatnonzero(error_E > rounding_E)
    if samples < _FEWEST_FOR_BOOTSTRAP:
        reach_E[varied_E] = scipy.stats.t.ppf((1 + confidence) / 2, samples - 1)
        varied_E = varied_E[:0]
    for start in range(0, len(varied_E), chunk):
        part_E = varied_E[start : start + chunk]
        # Edges first: a quantile is taken over neighbours in memory.
        values_En = centred_nE[:, part_E].T
        shift_Eb = values_En @ resampled_bn.T / samples
        spread_Eb = values_En**2 @ resampled_bn.T / samples - shift_Eb**2
        errors_Eb = np.sqrt(np.maximum(spread_Eb, 0) / (samples - 1))
        # Questions drawn with the same numbers leave rounding of the squares, hence its root.
        usable_Eb = errors_Eb > np.sqrt(ROUNDING) * error_E[part_E, None]
        steps_Eb = np.full_like(shift_Eb, np.nan)
        np.divide(np.abs(shift_Eb), errors_Eb, out=steps_Eb, where=usable_Eb)
        if usable_Eb.all():
            reach_E[part_E] = np.quantile(steps_Eb, confidence, axis=1, overwrite_input=True)
        else:
            reach_E[part_E] = np.nanquantile(steps_Eb, confidence, axis=1)
    return mean_E - reach_E * error_E, mean_E + reach_E * error_E
