"""Paired comparison of two models: how large a change is, and how sure.

Questions are the sample: both models answered the same ones, so a resample draws questions and
takes both models' scores for each. Results hold for questions like these, this T_cut and these two
checkpoints. Training again with another seed would give another checkpoint; no interval here covers
that.

Intervals: bootstrap.py. Tests and effect size of the questions' own changes: paired_tests.py.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from experiments import store
from experiments.statistics.bootstrap import (
    FEWEST,
    UNDEFINED,
    Interval,
    Method,
    draw_weights,
    interval,
    mean_intervals,
    method,
)
from experiments.statistics.metrics import METRICS, FreeChoices, Metric
from experiments.statistics.paired_tests import Changes, paired_tests


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of two models on the same questions.

    Attributes:
      metric: its key.
      base, rl: its values.
      difference: rl - base.
      relative: difference / |base|; NaN if base is zero.
      base_interval, rl_interval, difference_interval, relative_interval: (low, high); NaN for
        fewer than 10 questions, or where not defined. Those of a difference and of a relative
        change are computed separately and may, in a close case, disagree about zero:
        `difference_interval` decides.
      wilcoxon_p, sign_p, effect_size: see `experiments.statistics.paired_tests.PairedTests`.
      samples: number of questions.
      interval_method: how the intervals were made, see `bootstrap`. Files older than this field
        hold intervals of any number of questions.
    """

    metric: str
    base: float
    rl: float
    difference: float
    relative: float
    base_interval: Interval
    rl_interval: Interval
    difference_interval: Interval
    relative_interval: Interval
    wilcoxon_p: float
    sign_p: float
    effect_size: float
    samples: int
    interval_method: Method = "bootstrap-t"

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Comparison":
        """A comparison as a file holds it: null is NaN, an interval is a list."""
        return cls(**store.restored(dict(fields)))


def compare(
    base_nWR: np.ndarray,
    rl_nWR: np.ndarray,
    choices: FreeChoices | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    one_range: bool = False,
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, Comparison]:
    """Compare metrics of two stacks of score matrices.

    Resamples keep the histogram range of the full sample, so an entropy's interval says how sure
    the entropy is on this scale, not how sure the scale is. If each side has a range of its own, as
    published, two sides that differ by chance only mostly get an interval without zero, since one
    largest |W| sets each scale; the tests use one range and do not.

    Args:
      base_nWR, rl_nWR: scores [n, W, R], the same question at the same place.
      choices: what the metrics' definitions leave open; None: as published.
      resamples: number of bootstrap resamples, at least 20.
      confidence: of the intervals.
      seed: of the resampling; equal seeds give equal results.
      one_range: see `FreeChoices.with_one_range`. Not the published reading, but its difference
        does not depend on one largest entry a side.
      metrics: which.

    Returns:
      {metric key: comparison}, in the order of `metrics`.

    Raises:
      ValueError: the stacks differ in shape, are not [n, W, R] or hold a number that is not finite;
        an option makes no sense.
    """
    _check(base_nWR, rl_nWR, confidence, resamples)
    choices = choices or FreeChoices()
    if one_range:
        choices = choices.with_one_range(base_nWR, rl_nWR)
    sides = {
        "base": np.asarray(base_nWR, np.float64),
        "rl": np.asarray(rl_nWR, np.float64),
    }
    weights_Zn = draw_weights(len(base_nWR), resamples, seed)
    return {
        metric.key: _compared(metric, sides, choices, weights_Zn, confidence) for metric in metrics
    }


def question_changes(
    base_nWR: np.ndarray, rl_nWR: np.ndarray, metric: Metric, choices: FreeChoices
) -> Changes:
    """Each question's change in one metric.

    A histogram's range, where none is given, ends at the largest |W| of both sides.

    Args:
      base_nWR, rl_nWR: finite scores [n, W, R] of the same questions.
      metric, choices: what is measured.
    """
    both_sWR = np.concatenate([np.asarray(base_nWR, np.float64), np.asarray(rl_nWR, np.float64)])
    return metric.changes(both_sWR, choices)


def edge_intervals(
    base_nWR: np.ndarray,
    rl_nWR: np.ndarray,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Interval of each edge's mean difference rl - base over questions.

    Each is symmetric around the mean difference, cut off at the range of the questions, and holds for
    its edge on its own: of many edges without a change, one in twenty excludes zero at the default
    confidence.

    Args:
      base_nWR, rl_nWR, resamples, confidence, seed: as in `compare`.

    Returns:
      (low_WR, high_WR), zero where there is no edge; (None, None) for fewer than 10 questions.

    Raises:
      ValueError: as in `compare`.
    """
    _check(base_nWR, rl_nWR, confidence, resamples)
    difference_nWR = np.asarray(rl_nWR, np.float64) - np.asarray(base_nWR, np.float64)
    samples, *shape = difference_nWR.shape
    if not np.isfinite(difference_nWR).all():
        raise ValueError("edge intervals: expected finite scores, found a NaN or an infinity")
    if samples < FEWEST:
        return None, None
    low_E, high_E = mean_intervals(
        difference_nWR.reshape(samples, -1),
        draw_weights(samples, resamples, seed),
        confidence=confidence,
    )
    return low_E.reshape(shape), high_E.reshape(shape)


def proportion_interval(right: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a share of right answers.

    Raises:
      ValueError: not 0 <= right <= total with a positive total.
    """
    if not (0 <= right <= total and total > 0):
        raise ValueError(f"accuracy: expected 0 <= right <= total > 0, found {right} of {total}")
    found = scipy.stats.binomtest(right, total).proportion_ci(confidence, method="wilson")
    return (float(found.low), float(found.high))


def _check(base_nWR, rl_nWR, confidence: float, resamples: int) -> None:
    if np.shape(base_nWR) != np.shape(rl_nWR) or np.ndim(base_nWR) != 3 or not np.size(base_nWR):
        raise ValueError(
            "scores: expected base and rl of one shape [n, W, R], none of them 0, found "
            f"{np.shape(base_nWR)} and {np.shape(rl_nWR)}"
        )
    if not (0 < confidence < 1 and resamples >= 20):
        raise ValueError(
            "bootstrap: expected 0 < confidence < 1 and at least 20 resamples, found "
            f"{confidence} and {resamples}"
        )


def _compared(
    metric: Metric,
    sides: Mapping[str, np.ndarray],
    choices: FreeChoices,
    weights_Zn: np.ndarray,
    confidence: float,
) -> Comparison:
    """One metric of both sides' scores [n, W, R] under `weights_Zn`."""
    values = {}
    for side, scores_nWR in sides.items():
        try:
            values[side] = metric.value(scores_nWR, choices)
        except ValueError as error:
            raise ValueError(f"{side} {error}") from None
    lowest, highest = metric.domain(choices)
    resampled = {
        side: metric.functional(scores_nWR, choices).resample(weights_Zn)
        for side, scores_nWR in sides.items()
        if math.isfinite(values[side])
    }
    intervals = dict.fromkeys(("base", "rl", "difference", "relative"), UNDEFINED)
    for side, found in resampled.items():
        ends = interval(found, weights_Zn, confidence=confidence)
        intervals[side] = _within(ends, lowest, highest)
    if len(resampled) == 2:
        difference = resampled["rl"] - resampled["base"]
        relative = difference.over_magnitude(resampled["base"])
        intervals["difference"] = interval(difference, weights_Zn, confidence=confidence)
        intervals["relative"] = interval(relative, weights_Zn, confidence=confidence)
        if lowest == 0:  # what cannot be negative falls by 100 % at most
            intervals["relative"] = _within(intervals["relative"], -1.0, math.inf)
    tests = paired_tests(question_changes(sides["base"], sides["rl"], metric, choices))
    base, rl = values["base"], values["rl"]
    return Comparison(
        metric=metric.key,
        base=base,
        rl=rl,
        difference=rl - base,
        relative=(rl - base) / abs(base) if base else math.nan,
        base_interval=intervals["base"],
        rl_interval=intervals["rl"],
        difference_interval=intervals["difference"],
        relative_interval=intervals["relative"],
        wilcoxon_p=tests.wilcoxon_p,
        sign_p=tests.sign_p,
        effect_size=tests.effect_size,
        samples=weights_Zn.shape[1],
        interval_method=method(weights_Zn.shape[1]),
    )


def _within(ends: Interval, lowest: float, highest: float) -> Interval:
    """The interval without what lies outside [lowest, highest]."""
    low, high = (float(np.clip(end, lowest, highest)) for end in ends)
    return (low, high)
