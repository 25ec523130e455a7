"""Kinds of statistics as functions of the questions' weights: mean, pooled entropy, mean of pairs.

A statistic is kept as what each question contributes to it (a number, histogram shares,
correlations with the others), so its value under any weights is a small matrix product. `resample`
gives B such values and, at each, the influence of every question: n times the derivative of the
value by the question's weight. For a mean that is the question's number minus the mean.
Which metric is of which kind: `experiments.statistics.metrics`.

Axes: B sets of weights (the first one is the sample itself), n questions, b bins of a histogram,
E entries of a score matrix.
"""

import abc
import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampled:
    """A statistic of resampled questions.

    Attributes:
      values_B: its value under each set of weights, NaN where it is not defined.
      corrected_B: the same minus an estimate of its bias.
      influences_Bn: influence of each question at each value; their weighted sum is zero.
      size: of the numbers the values are made of; a spread far below it is rounding.
    """

    values_B: np.ndarray
    corrected_B: np.ndarray
    influences_Bn: np.ndarray
    size: float

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(
            values_B=self.values_B - other.values_B,
            corrected_B=self.corrected_B - other.corrected_B,
            influences_Bn=self.influences_Bn - other.influences_Bn,
            size=max(self.size, other.size),
        )

    def over_magnitude(self, other: "Resampled") -> "Resampled":
        """self / |other|, by the quotient rule."""
        with np.errstate(divide="ignore", invalid="ignore"):
            sizes_B = np.abs(other.values_B)
            values_B = self.values_B / sizes_B
            corrected_B = self.corrected_B / np.abs(other.corrected_B)
            turns_Bn = other.influences_Bn * (np.sign(other.values_B) * values_B)[:, None]
            influences_Bn = (self.influences_Bn - turns_Bn) / sizes_B[:, None]
            size = self.size / sizes_B[0]
        return Resampled(
            values_B=values_B, corrected_B=corrected_B, influences_Bn=influences_Bn, size=size
        )


class Functional(abc.ABC):
    """A statistic as a function of the questions' weights."""

    @abc.abstractmethod
    def resample(self, weights_Bn: np.ndarray) -> Resampled:
        """Values and influences under weights [B, n], each row of sum n."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean(Functional):
    """The mean of one number a question."""

    values_n: np.ndarray

    def resample(self, weights_Bn: np.ndarray) -> Resampled:
        """See Functional."""
        values_B = weights_Bn @ self.values_n / len(self.values_n)
        return Resampled(
            values_B=values_B,
            corrected_B=values_B,
            influences_Bn=self.values_n - values_B[:, None],
            size=float(np.abs(self.values_n).max()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PooledEntropy(Functional):
    """-sum_b p_b log(p_b + eps) of the mean p of the questions' histogram shares [n, b].

    The entropy of a sample lies too low by about half of sum_b var(p_b) / p_b, its second-order
    term; the correction adds that, with the variance of p_b between questions.
    """

    shares_nb: np.ndarray
    eps: float = 1e-12

    def resample(self, weights_Bn: np.ndarray) -> Resampled:
        """See Functional."""
        pooled_Bb = weights_Bn @ self.shares_nb / len(self.shares_nb)
        logs_Bb = np.log(pooled_Bb + self.eps)
        slopes_Bb = -logs_Bb - pooled_Bb / (pooled_Bb + self.eps)
        parts_Bn = slopes_Bb @ self.shares_nb.T
        values_B = -(pooled_Bb * logs_Bb).sum(axis=1)
        samples = len(self.shares_nb)
        squares_Bb = weights_Bn @ self.shares_nb**2 / samples - pooled_Bb**2
        variances_Bb = np.maximum(squares_Bb, 0.0) / max(samples - 1, 1)
        biases_B = -(variances_Bb / (pooled_Bb + self.eps)).sum(axis=1) / 2
        return Resampled(
            values_B=values_B,
            corrected_B=values_B - biases_B,
            influences_Bn=parts_Bn - (slopes_Bb * pooled_Bb).sum(axis=1)[:, None],
            size=1.0,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairMean(Functional):
    """1 - the mean of a symmetric matrix [n, n] over pairs of different questions.

    A U-statistic. A question drawn twice is not paired with itself, so weights w give
    1 - sum_{i != j} w_i w_j c_ij / sum_{i != j} w_i w_j; undefined if only one question is drawn.
    Two questions make one pair, and one number has no spread: their influences are NaN.
    """

    matrix_nn: np.ndarray

    def resample(self, weights_Bn: np.ndarray) -> Resampled:
        """See Functional."""
        off_diagonal_nn = self.matrix_nn - np.diag(np.diag(self.matrix_nn))
        total_B = weights_Bn.sum(axis=1)
        pairs_B = total_B**2 - (weights_Bn**2).sum(axis=1)
        sums_Bn = weights_Bn @ off_diagonal_nn
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_B = (weights_Bn * sums_Bn).sum(axis=1) / pairs_B
            excess_Bn = sums_Bn - mean_B[:, None] * (total_B[:, None] - weights_Bn)
            influences_Bn = -2 * total_B[:, None] * excess_Bn / pairs_B[:, None]
        if len(off_diagonal_nn) < 3:
            influences_Bn = np.full_like(influences_Bn, math.nan)
        return Resampled(
            values_B=1 - mean_B, corrected_B=1 - mean_B, influences_Bn=influences_Bn, size=1.0
        )


def entries_of(scores_nWR: np.ndarray, support_WR: np.ndarray | None) -> np.ndarray:
    """Entries that count, one row a question: [n, E]."""
    if support_WR is None:
        return scores_nWR.reshape(len(scores_nWR), -1)
    return scores_nWR[:, support_WR]


def histogram_shares(entries_nE: np.ndarray, bins: int, upper: float | None) -> np.ndarray:
    """Each row's share of |entries| in the bins of `eap_jax.metrics`, [n, bins].

    `upper` None: the largest of all rows.
    """
    magnitudes_nE = np.abs(entries_nE)
    upper = (magnitudes_nE.max() or 1.0) if upper is None else upper
    places_nE = np.minimum(magnitudes_nE / upper, 1.0)
    counts = [np.histogram(places_E, bins=bins, range=(0.0, 1.0))[0] for places_E in places_nE]
    return np.asarray(counts, np.float64) / entries_nE.shape[1]


def correlations(entries_nE: np.ndarray) -> np.ndarray:
    """Pearson correlations between rows, [n, n]; no row is constant."""
    # Scores may be as small as 1e-30; their squares keep their digits only after scaling.
    return np.atleast_2d(np.corrcoef(entries_nE / np.abs(entries_nE).max(axis=1, keepdims=True)))
