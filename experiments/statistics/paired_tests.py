"""Tests of the questions' own changes: signed rank, sign, and an effect size.

Both sides of a question are compared with the same reference, made of both sides of all questions.
So if the two models do not differ, each change is as likely as its negative, and the tests are exact
for every metric. What a question's change is:
  a mean of one number a question: the change of that number (`changes_of_values`);
  an entropy: the change of the mean surprise -log p of its |W| under the histogram of both sides
    together, on one range (`changes_of_surprise`);
  a mean of correlations: twice the fall of its mean correlation with the other questions' matrices
    of both sides (`changes_of_correlation`).
The changes of a mean and of correlations average to the metric's difference exactly. Those of an
entropy do so to second order, and only if both sides' histograms have that one range. With a range
of its own on each side, a test and the interval of the difference may therefore disagree.

Axes: n questions; m = 2n matrices, those of base first; b bins; E entries of a matrix.
"""

import dataclasses
import math

import numpy as np
import scipy.stats

from experiments.statistics.bootstrap import ROUNDING
from experiments.statistics.functionals import correlations

_EPS = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes of all questions in one metric.

    Attributes:
      values_n: rl - base of each question; NaN where the metric is not defined.
      size: of the numbers they are differences of; a change far below it is rounding.
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


def paired_tests(changes: Changes) -> PairedTests:
    """Test one metric's changes against none."""
    values_n = changes.values_n
    if len(values_n) < 2 or not np.isfinite(values_n).all():
        return PairedTests(wilcoxon_p=math.nan, sign_p=math.nan, effect_size=math.nan)
    # Rounded to multiples of the rounding error, so that changes which differ by less are ties
    # and changes which are smaller count as none.
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


def changes_of_values(values_m: np.ndarray) -> Changes:
    """Changes of one number a question, given for each matrix [m]."""
    base_n, rl_n = np.split(values_m, 2)
    return Changes(values_n=rl_n - base_n, size=float(np.abs(values_m).max()))


def changes_of_surprise(shares_mb: np.ndarray) -> Changes:
    """Changes of the mean surprise, in nats, under the mean of all histograms [m, b]."""
    surprise_m = -shares_mb @ np.log(shares_mb.mean(axis=0) + _EPS)
    base_n, rl_n = np.split(surprise_m, 2)
    return Changes(values_n=rl_n - base_n, size=1.0)


def changes_of_correlation(entries_sE: np.ndarray) -> Changes:
    """Changes of 1 - the mean correlation with other questions, of entries [m, E]."""
    samples = len(entries_sE) // 2
    if samples < 2 or not (np.ptp(entries_sE, axis=1) > 0).all():
        return Changes(values_n=np.full(samples, math.nan), size=1.0)
    sides_2n2n = correlations(entries_sE).reshape(2, samples, 2, samples)
    others_nn = 1 - np.eye(samples)
    # Summed over both sides of the other questions: twice the mean over both sides.
    base_n, rl_n = (sides_2n2n.sum(axis=2) * others_nn).sum(axis=-1) / (samples - 1)
    return Changes(values_n=base_n - rl_n, size=1.0)
