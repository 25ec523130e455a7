"""Tests of the questions' own changes: signed rank, sign, and an effect size.

Both sides of a question are held against the same reference, made of both sides of all questions,
so if the two models do not differ, each change is as likely as its negative and the tests are exact
for every metric. What a question's change is:
  activation_intensity, distribution_kurtosis: that of its own mean |W| and of its own kurtosis;
  information_complexity, output_edge_entropy: that of the mean surprise -log p of its |W| under the
    histogram of both sides together, on one range;
  sample_diversity: twice the fall of its mean correlation with the other questions' matrices of
    both sides.
The changes average to the metric's difference: exactly, but for entropies to second order only and
on that one range. Where a test and the interval of an entropy's difference disagree, the sides
differ by their ranges, that is by one largest |W| each.
"""

import dataclasses
import math

import numpy as np
import scipy.stats

from eap_jax import metrics
from experiments.statistics.bootstrap import ROUNDING
from experiments.statistics.functionals import correlations, entries_of, histogram_shares

_EPS = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes of all questions in one metric.

    Attributes:
      values_n: rl - base of each question; NaN where the metric is not defined.
      size: of the numbers they are differences of; tells rounding from a change.
    """

    values_n: np.ndarray
    size: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTests:
    """Whether and how much the questions' values go one way.

    Attributes:
      wilcoxon_p: two-sided signed-rank test; questions without a change are left out.
      sign_p: two-sided sign test, likewise.
      effect_size: matched-pairs rank-biserial correlation, (rank sum of rises - of falls) / rank
        sum: 1 if all questions rise, -1 if all fall.

    Without any change both p are 1 and the effect size is NaN. All three are NaN for fewer than 2
    questions or where the metric is not defined.
    """

    wilcoxon_p: float
    sign_p: float
    effect_size: float


def question_changes(
    base_nWR: np.ndarray,
    rl_nWR: np.ndarray,
    support_WR: np.ndarray | None = None,
    *,
    bins: int = 100,
    upper: float | None = None,
    output_upper: float | None = None,
) -> dict[str, Changes]:
    """Each question's change in each of the five metrics.

    Args:
      base_nWR, rl_nWR: finite scores [n, W, R] of the same questions.
      support_WR, bins: as in `eap_jax.metrics`.
      upper, output_upper: end of the one range of information complexity and of output-edge
        entropy; None: the largest |W| of both sides.
    """
    sides_2nWR = np.asarray([base_nWR, rl_nWR], np.float64)
    samples = len(base_nWR)
    both_mWR = sides_2nWR.reshape(2 * samples, *sides_2nWR.shape[2:])
    entries_mE = entries_of(both_mWR, support_WR)
    return {
        "activation_intensity": _own_change(metrics.sample_intensity(both_mWR, support_WR)),
        "information_complexity": _surprise_change(histogram_shares(entries_mE, bins, upper)),
        "distribution_kurtosis": _own_change(metrics.sample_kurtosis(both_mWR, support_WR)),
        "sample_diversity": _correlation_change(entries_mE),
        "output_edge_entropy": _surprise_change(
            histogram_shares(both_mWR[:, :, -1], bins, output_upper)
        ),
    }


def paired_tests(changes: Changes) -> PairedTests:
    """Test one metric's changes against none."""
    values_n = changes.values_n
    if len(values_n) < 2 or not np.isfinite(values_n).all():
        return PairedTests(wilcoxon_p=math.nan, sign_p=math.nan, effect_size=math.nan)
    # Whole steps of rounding: what is equal up to that is a tie.
    steps_n = np.rint(values_n / (ROUNDING * (changes.size or 1.0)))
    changed = steps_n[steps_n != 0]
    if not len(changed):
        return PairedTests(wilcoxon_p=1.0, sign_p=1.0, effect_size=math.nan)
    ranks = scipy.stats.rankdata(np.abs(changed))
    rises = changed > 0
    return PairedTests(
        wilcoxon_p=float(scipy.stats.wilcoxon(changed).pvalue),
        sign_p=float(scipy.stats.binomtest(int(rises.sum()), len(changed)).pvalue),
        effect_size=float((ranks[rises].sum() - ranks[~rises].sum()) / ranks.sum()),
    )


def _own_change(values_m: np.ndarray) -> Changes:
    base_n, rl_n = np.split(values_m, 2)
    return Changes(values_n=rl_n - base_n, size=float(np.abs(values_m).max()))


def _surprise_change(shares_mb: np.ndarray) -> Changes:
    surprise_m = -shares_mb @ np.log(shares_mb.mean(axis=0) + _EPS)
    base_n, rl_n = np.split(surprise_m, 2)
    return Changes(values_n=rl_n - base_n, size=1.0)


def _correlation_change(entries_mE: np.ndarray) -> Changes:
    samples = len(entries_mE) // 2
    if samples < 2 or not (np.ptp(entries_mE, axis=1) > 0).all():
        return Changes(values_n=np.full(samples, np.nan), size=1.0)
    sides_2n2n = correlations(entries_mE).reshape(2, samples, 2, samples)
    others_nn = 1 - np.eye(samples)
    # Twice the mean over the others, whose reference is the mean of both sides.
    base_n, rl_n = (sides_2n2n.sum(axis=2) * others_nn).sum(axis=-1) / (samples - 1)
    return Changes(values_n=base_n - rl_n, size=1.0)
