"""Kinds of statistics as functions of the questions' weights: mean, pooled entropy, mean of pairs.

A statistic is kept as what each question contributes to it (a number, histogram shares,
correlations with the others), so its value under any weights is a small matrix product. `resample`
gives Z such values and, at each, the influence of every question: n times the derivative of the
value by the question's weight. For a mean that is the question's number minus the mean.
Which metric is of which kind: `experiments.statistics.metrics`.

Axes: Z sets of weights (the first one is the sample itself), n questions, U bins of a histogram,
E entries of a score matrix.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampled:
    """A statistic of resampled questions.

    Attributes:
      values_Z: its value under each set of weights, NaN where it is not defined.
      corrected_Z: the same minus an estimate of its bias.
      influences_Zn: influence of each question at each value; their weighted sum is zero.
      size: of the numbers the values are made of; a spread far below it is rounding.
    """

    values_Z: np.ndarray
    corrected_Z: np.ndarray
    influences_Zn: np.ndarray
    size: float

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(
            values_Z=self.values_Z - other.values_Z,
            corrected_Z=self.corrected_Z - other.corrected_Z,
            influences_Zn=self.influences_Zn - other.influences_Zn,
            size=max(self.size, other.size),
        )

    @classmethod
    def weighted_sum(cls, parts: Sequence[tuple[float, "Resampled"]]) -> "Resampled":
        """Sum of factor * statistic, all under the same weights of the questions."""
        return cls(
            values_Z=sum(factor * part.values_Z for factor, part in parts),
            corrected_Z=sum(factor * part.corrected_Z for factor, part in parts),
            influences_Zn=sum(factor * part.influences_Zn for factor, part in parts),
            size=max(abs(factor) * part.size for factor, part in parts),
        )

    def over_magnitude(self, other: "Resampled") -> "Resampled":
        """self / |other|, by the quotient rule."""
        with np.errstate(divide="ignore", invalid="ignore"):
            sizes_Z = np.abs(other.values_Z)
            values_Z = self.values_Z / sizes_Z
            corrected_Z = self.corrected_Z / np.abs(other.corrected_Z)
            turns_Zn = other.influences_Zn * (np.sign(other.values_Z) * values_Z)[:, None]
            influences_Zn = (self.influences_Zn - turns_Zn) / sizes_Z[:, None]
            size = self.size / sizes_Z[0]
        return Resampled(
            values_Z=values_Z, corrected_Z=corrected_Z, influences_Zn=influences_Zn, size=size
        )


class Functional(abc.ABC):
    """A statistic as a function of the questions' weights."""

    @abc.abstractmethod
    def resample(self, weights_Zn: np.ndarray) -> Resampled:
        """Values and influences under weights [Z, n], each row of sum n."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean(Functional):
    """The mean of one number a question."""

    values_n: np.ndarray

    def resample(self, weights_Zn: np.ndarray) -> Resampled:
        """See Functional."""
        values_Z = weights_Zn @ self.values_n / len(self.values_n)
        return Resampled(
            values_Z=values_Z,
            corrected_Z=values_Z,
            influences_Zn=self.values_n - values_Z[:, None],
            size=float(np.abs(self.values_n).max()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PooledEntropy(Functional):
    """-sum_b p_b log(p_b + eps) of the mean p of the questions' histogram shares [n, U].

    The entropy of a sample lies too low by about half of sum_b var(p_b) / p_b, its second-order
    term; the correction adds that, with the variance of p_b between questions.
    """

    shares_nU: np.ndarray
    eps: float = 1e-12

    def resample(self, weights_Zn: np.ndarray) -> Resampled:
        """See Functional."""
        pooled_ZU = weights_Zn @ self.shares_nU / len(self.shares_nU)
        logs_ZU = np.log(pooled_ZU + self.eps)
        slopes_ZU = -logs_ZU - pooled_ZU / (pooled_ZU + self.eps)
        parts_Zn = slopes_ZU @ self.shares_nU.T
        values_Z = -(pooled_ZU * logs_ZU).sum(axis=1)
        samples = len(self.shares_nU)
        squares_ZU = weights_Zn @ self.shares_nU**2 / samples - pooled_ZU**2
        variances_ZU = np.maximum(squares_ZU, 0.0) / max(samples - 1, 1)
        biases_Z = -(variances_ZU / (pooled_ZU + self.eps)).sum(axis=1) / 2
        return Resampled(
            values_Z=values_Z,
            corrected_Z=values_Z - biases_Z,
            influences_Zn=parts_Zn - (slopes_ZU * pooled_ZU).sum(axis=1)[:, None],
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

    def resample(self, weights_Zn: np.ndarray) -> Resampled:
        """See Functional."""
        off_diagonal_nn = self.matrix_nn - np.diag(np.diag(self.matrix_nn))
        total_Z = weights_Zn.sum(axis=1)
        pairs_Z = total_Z**2 - (weights_Zn**2).sum(axis=1)
        sums_Zn = weights_Zn @ off_diagonal_nn
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_Z = (weights_Zn * sums_Zn).sum(axis=1) / pairs_Z
            excess_Zn = sums_Zn - mean_Z[:, None] * (total_Z[:, None] - weights_Zn)
            influences_Zn = -2 * total_Z[:, None] * excess_Zn / pairs_Z[:, None]
        if len(off_diagonal_nn) < 3:
            influences_Zn = np.full_like(influences_Zn, math.nan)
        return Resampled(
            values_Z=1 - mean_Z, corrected_Z=1 - mean_Z, influences_Zn=influences_Zn, size=1.0
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
