"""Paired comparison of two models: how large a change is, and how sure.

Questions are the sample: both models answered the same ones, so a resample draws questions and
takes both models' scores for each. Results hold for questions like these, this T_cut and these two
checkpoints; another training seed is another draw that no interval here knows of.

Intervals: resampling.py. Tests and effect size of the questions' own changes: paired_tests.py.
"""

import dataclasses
import math

import numpy as np
import scipy.stats

from experiments.report.results import Interval
from experiments.statistics.bootstrap import draw_weights, interval, mean_intervals
from experiments.statistics.functionals import entries_of, functionals_of
from experiments.statistics.paired_tests import paired_tests, question_changes

_NAN = float("nan")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """One metric of two models on the same questions; see `experiments.report.results.Comparison`.

    Attributes:
      metric: its key.
      base, rl: its values, as `eap_jax.metrics` gives them.
      difference: rl - base.
      relative: difference / |base|; NaN if base is zero.
      base_interval, rl_interval, difference_interval, relative_interval: studentised bootstrap
        intervals; NaN for one question, or where not defined. Those of a difference and of a
        relative change are made apart and may, in a close case, disagree about zero:
        `difference_interval` decides.
      wilcoxon_p, sign_p, effect_size: see `experiments.statistics.paired_tests.PairedTests`.
      samples: number of questions.
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


def compare(
    base_nWR: np.ndarray,
    rl_nWR: np.ndarray,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    support_WR: np.ndarray | None = None,
    bins: int = 100,
    upper: float | None = None,
    output_upper: float | None = None,
    one_range: bool = False,
) -> dict[str, PairedComparison]:
    """Compare all five metrics of two stacks of score matrices.

    Args:
      base_nWR, rl_nWR: scores [n, W, R], the same question at the same place.
      resamples: number of bootstrap resamples, at least 20.
      confidence: of the intervals.
      seed: of the resampling; equal seeds give equal results.
      support_WR: entries that count; see `eap_jax.metrics`. Not for the output edges.
      bins: of the histograms of both entropies.
      upper: end of the range of information complexity on both sides; None: each side's largest
        |W|, as published. Resamples keep the range of the full sample, so an interval is
        conditional on it: how sure the entropy on this scale is, not how sure the scale is. With
        ranges of their own two sides that do not differ except by chance mostly get an interval
        without zero, since one largest |W| sets each scale; the tests use one range and do not.
      output_upper: the same for output-edge entropy.
      one_range: where no end is given, both sides take the largest |W| of the two. Not the
        published reading, but the one whose difference does not hang on two single entries.

    Returns:
      {metric key: comparison}.

    Raises:
      ValueError: the stacks differ in shape, are not [n, W, R] or hold a number that is not finite;
        an option makes no sense.
    """
    _check(base_nWR, rl_nWR, confidence, resamples)
    if one_range:
        stacks = (np.asarray(base_nWR), np.asarray(rl_nWR))
        upper = upper or _largest(stacks, support_WR)
        output_upper = output_upper or _largest([stack[:, :, -1:] for stack in stacks], None)
    sides = []
    for name, scores_nWR in (("base", base_nWR), ("rl", rl_nWR)):
        try:
            sides.append(
                functionals_of(
                    scores_nWR, support_WR, bins=bins, upper=upper, output_upper=output_upper
                )
            )
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    weights_Bn = draw_weights(len(base_nWR), resamples, seed)
    domains = {
        "activation_intensity": (0.0, math.inf),
        "information_complexity": (0.0, math.log(bins)),
        "distribution_kurtosis": (-2.0, math.inf),
        "sample_diversity": (0.0, 2.0),
        "output_edge_entropy": (0.0, math.log(bins)),
    }
    base_side, rl_side = sides
    changes = question_changes(
        base_nWR, rl_nWR, support_WR, bins=bins, upper=upper, output_upper=output_upper
    )
    return {
        metric: _compared(
            metric, base_side[metric], rl_side[metric], paired_tests(changes[metric]), weights_Bn,
            confidence, domain,
        )
        for metric, domain in domains.items()
    }  # fmt: skip


def edge_intervals(
    base_nWR: np.ndarray,
    rl_nWR: np.ndarray,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Interval of each edge's mean difference rl - base over questions.

    Each is symmetric around the mean difference and holds for its edge on its own: of many edges
    without a change, one in twenty excludes zero at the default confidence.

    Args:
      base_nWR, rl_nWR, resamples, confidence, seed: as in `compare`.

    Returns:
      (low_WR, high_WR), zero where there is no edge; (None, None) for one question.

    Raises:
      ValueError: as in `compare`.
    """
    _check(base_nWR, rl_nWR, confidence, resamples)
    difference_nWR = np.asarray(rl_nWR, np.float64) - np.asarray(base_nWR, np.float64)
    samples, *shape = difference_nWR.shape
    if not np.isfinite(difference_nWR).all():
        raise ValueError("edge intervals: expected finite scores, found a NaN or an infinity")
    if samples < 2:
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


def _largest(stacks, support_WR) -> float | None:
    """Largest |W| of both sides; None, which takes any range, if all are zero or one is NaN."""
    ends = [float(np.abs(entries_of(stack_nWR, support_WR)).max()) for stack_nWR in stacks]
    return max(ends) if np.isfinite(ends).all() and max(ends) > 0 else None


def _compared(
    metric, base_side, rl_side, tests, weights_Bn, confidence, domain
) -> PairedComparison:
    (base, base_functional), (rl, rl_functional) = base_side, rl_side
    found = {}
    for side, functional in (("base", base_functional), ("rl", rl_functional)):
        found[side] = functional and functional.resample(weights_Bn)
    undefined = (_NAN, _NAN)
    intervals = {"base": undefined, "rl": undefined, "difference": undefined, "relative": undefined}
    for side, resampled in found.items():
        if resampled is not None:
            ends = interval(resampled, weights_Bn, confidence=confidence)
            low, high = (float(np.clip(end, *domain)) for end in ends)
            intervals[side] = (low, high)
    if found["base"] is not None and found["rl"] is not None:
        difference = found["rl"] - found["base"]
        changes = {"difference": difference, "relative": difference.over_magnitude(found["base"])}
        for name, resampled in changes.items():
            intervals[name] = interval(resampled, weights_Bn, confidence=confidence)
        if domain[0] == 0:  # what cannot be negative falls by 100 % at most
            low, high = (float(np.clip(end, -1.0, None)) for end in intervals["relative"])
            intervals["relative"] = (low, high)
    return PairedComparison(
        metric=metric,
        base=base,
        rl=rl,
        difference=rl - base,
        relative=(rl - base) / abs(base) if base else _NAN,
        base_interval=intervals["base"],
        rl_interval=intervals["rl"],
        difference_interval=intervals["difference"],
        relative_interval=intervals["relative"],
        wilcoxon_p=tests.wilcoxon_p,
        sign_p=tests.sign_p,
        effect_size=tests.effect_size,
        samples=weights_Bn.shape[1],
    )
