"""Every metric's change in several views of the same models: does its sign depend on the view?

A score is a derivative of the loss, so it is small where the loss is flat: a metric may change only
because a model became certain. The views, each a pair of stacks of matrices:

    published         the scores as they are
    per_loss          each question's scores divided by that question's loss
    per_gradient      divided by the norm of the loss's gradient at the last stream
    logit_difference  scores of the answer's logit against that of the runner-up, which is not flat
    exact             what cutting each edge really does to the loss, where every edge was cut

All are compared as the published scores are (`compare`, `trend`). A question whose divisor is zero
in either model is left out of that view, as are questions that were not cut of `exact`.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from eap_jax.graph import edge_mask, num_layers_of
from experiments.statistics.compare import Comparison, compare
from experiments.statistics.trend import Trend, trend

ViewName = Literal["published", "per_loss", "per_gradient", "logit_difference", "exact"]
VIEWS: tuple[ViewName, ...] = (
    "published", "per_loss", "per_gradient", "logit_difference", "exact",
)  # fmt: skip
# As a clause after a change in percent.
VIEW_WORDS: Mapping[str, str] = {
    "published": "as published",
    "per_loss": "per nat of loss",
    "per_gradient": "per unit of the gradient at the last stream",
    "logit_difference": "for the logit difference to the runner-up",
    "exact": "when edges are really cut",
}
Support = Literal["found", "unclear elsewhere", "turns", "unclear"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """One metric in one view.

    Attributes:
      view: one of `VIEWS`.
      metric: its key.
      base, rl: its values.
      relative: (rl - base) / |base|.
      low, high: 95 % interval of the relative change; NaN where not defined.
      difference_low, difference_high: 95 % interval of rl - base, by which the trend goes; NaN where
        not defined.
      trend: by `experiments.statistics.trend`.
      samples: questions in this view.
    """

    view: ViewName
    metric: str
    base: float
    rl: float
    relative: float
    low: float
    high: float
    trend: Trend
    samples: int
    difference_low: float = math.nan
    difference_high: float = math.nan

    @property
    def difference(self) -> float:
        """rl - base."""
        return self.rl - self.base


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideData:
    """One model's matrices and divisors, the same question at the same place.

    Attributes:
      scores_nWR: the published scores.
      losses_n, gradient_norms_n: divisors, or None where they were not saved.
      lead_nWR: scores of the logit difference, or None.
      effects_mWR: exact effects, NaN where not cut, or None.
    """

    scores_nWR: np.ndarray
    losses_n: np.ndarray | None = None
    gradient_norms_n: np.ndarray | None = None
    lead_nWR: np.ndarray | None = None
    effects_mWR: np.ndarray | None = None


def views_of(base: SideData, rl: SideData, published: Mapping[str, Comparison]) -> list[View]:
    """All views that can be made of two models.

    Args:
      base, rl: the models' data; effects of the same samples.
      published: `compare` of their scores, which is not computed again.

    Returns:
      one entry a view and metric, views in the order of `VIEWS`.
    """
    found = list(_rows("published", published))
    for view in VIEWS[1:]:
        stacks = _stacks(view, base, rl)
        if stacks is not None and len(stacks[0]):
            found += _rows(view, compare(*stacks))
    return found


def support(views: Iterable[View], metric: str) -> Support:
    """Whether a metric's published change stands in the other views.

    Returns:
      `found`: every view has its clear sign; `turns`: one has the clear opposite; `unclear
      elsewhere`: none has the opposite, one no clear sign; `unclear`: the published change is not
      clear itself.
    """
    trends = {found.view: found.trend for found in views if found.metric == metric}
    own = trends.pop("published", "unclear")
    if own == "unclear":
        return "unclear"
    if {"rises", "falls"} - {own} & set(trends.values()):
        return "turns"
    return "found" if all(other == own for other in trends.values()) else "unclear elsewhere"


def _rows(view: ViewName, comparisons: Mapping[str, Comparison]) -> Iterable[View]:
    for key, found in comparisons.items():
        low, high = found.relative_interval
        difference_low, difference_high = found.difference_interval
        yield View(
            view=view, metric=key, base=found.base, rl=found.rl, relative=found.relative,
            low=low, high=high, trend=trend(found), samples=found.samples,
            difference_low=difference_low, difference_high=difference_high,
        )  # fmt: skip


def _stacks(view: ViewName, base: SideData, rl: SideData) -> tuple[np.ndarray, np.ndarray] | None:
    """Base's and rl's matrices of a view, or None where it cannot be made."""
    sides: Sequence[SideData] = (base, rl)
    if view == "logit_difference":
        stacks = [side.lead_nWR for side in sides]
    elif view == "exact":
        stacks = [_complete(side.effects_mWR) for side in sides]
    else:
        divisors = [
            side.losses_n if view == "per_loss" else side.gradient_norms_n for side in sides
        ]
        if any(divisor is None for divisor in divisors):
            return None
        whole_n = np.all([divisor > 0 for divisor in divisors], axis=0)
        stacks = [
            side.scores_nWR[whole_n].astype(np.float64) / divisor[whole_n, None, None]
            for side, divisor in zip(sides, divisors, strict=True)
        ]
    if any(stack is None for stack in stacks):
        return None
    return stacks[0], stacks[1]


def _complete(effects_mWR: np.ndarray | None) -> np.ndarray | None:
    """Effects with 0 where there is no edge, or None where an edge was not cut."""
    if effects_mWR is None:
        return None
    mask_WR = edge_mask(num_layers_of(*effects_mWR.shape[1:]))
    if not np.isfinite(effects_mWR[:, mask_WR]).all():
        return None
    return np.where(mask_WR, effects_mWR, 0.0).astype(np.float64)


def undefined(view: View) -> bool:
    """Whether a view has no number to show."""
    return not math.isfinite(view.relative)
