"""Words for how true the numbers are: views of a change, fidelity of scores, where the loss is."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report.formats import number, percent
from experiments.report.results import CellResult
from experiments.statistics.concentration import (
    LARGE_RATIO,
    LARGE_SHARE,
    TOP_QUESTIONS,
    Concentration,
    losses_ratio,
)
from experiments.statistics.metrics import Metric
from experiments.statistics.views import VIEW_WORDS, VIEWS, View, support

VIEW_LABELS: Mapping[str, str] = {
    "published": "scores, as published",
    "per_loss": "divided by the question's loss",
    "per_gradient": "divided by the gradient at the last stream",
    "logit_difference": "logit difference instead of loss",
    "exact": "edges really cut",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewLine:
    """A line of the small table under a finding: the view, both values, the change, the trend."""

    view: str
    values: str
    change: str
    trend: str


def view_lines(cells: Sequence[CellResult], metric: Metric) -> tuple[ViewLine, ...]:
    """One line a view of a pair's cells; none where only the published view is known."""
    lines = []
    for name in VIEWS:
        found = [
            view
            for cell in cells
            for view in cell.views
            if (view.view, view.metric) == (name, metric.key) and math.isfinite(view.relative)
        ]
        if not found:
            continue
        (*_, last) = found
        if len(found) == 1:
            values = f"{number(last.base)} \N{RIGHTWARDS ARROW} {number(last.rl)}"
            change = f"{percent(last.relative)} %"
            if math.isfinite(last.low):
                change += f" [{percent(last.low, 0)}, {percent(last.high, 0)}]"
            seen = last.trend
        else:
            values = f"{len(found)} comparisons"
            change = f"{percent(float(np.mean([view.relative for view in found])))} % on average"
            counts = Counter(view.trend for view in found)
            seen = ", ".join(f"{trend} in {count}" for trend, count in counts.most_common())
        lines.append(ViewLine(view=VIEW_LABELS[name], values=values, change=change, trend=seen))
    return tuple(lines) if len(lines) > 1 else ()


def turning_sentence(cell: CellResult, metric: Metric) -> str | None:
    """What the other views make of a metric's clear change, or None where they all have it."""
    said = turning_clause(cell, metric)
    return None if said is None else f"{metric.label} {said}."


def turning_clause(cell: CellResult, metric: Metric) -> str | None:
    """The same without the metric: `falls by 58 %, but rises by 431 % per nat of loss`."""
    views = {view.view: view for view in cell.views if view.metric == metric.key}
    if support(cell.views, metric.key) not in ("turns", "unclear elsewhere"):
        return None
    own = views.pop("published")
    against = [view for view in views.values() if view.trend not in (own.trend, "unclear")]
    others = against[:1]
    exact = views.get("exact")
    if exact is not None and exact.trend != own.trend and exact not in others:
        others.append(exact)
    if not others:
        others = [view for view in views.values() if view.trend == "unclear"][:1]
    return f"{_clause(own, '')}, but {' and '.join(_clause(v) for v in others)}"


def _clause(view: View, words: str | None = None) -> str:
    """`rises by 431 % per nat of loss`."""
    words = VIEW_WORDS[view.view] if words is None else words
    if view.trend == "unclear":
        return f"does not clearly change {words}".strip()
    return f"{view.trend} by {abs(100 * view.relative):.0f} % {words}".strip()


def fidelity_sentence(cell: CellResult) -> str | None:
    """How well a cell's scores predict what cutting edges does; None where no edge was cut."""
    if not cell.fidelity:
        return None
    sides = list(cell.fidelity.values())
    first = sides[0]

    def both(key: str, form: str, factor: float = 1.0) -> str:
        return " and ".join(form.format(factor * side[key]) for side in sides)

    samples = f"{first['samples']} question{'' if first['samples'] == 1 else 's'}"
    text = (
        f"{first['edges']} edges were really cut on {samples}. Scores of {' and '.join(cell.fidelity)} "
        f"have the sign of what happens to the loss in {both('sign', '{:.0f}', 100)} % of cases, a "
        f"rank correlation of {both('spearman', '{:.2f}')} with it and a correlation of "
        f"{both('pearson', '{:.2f}')}; they name {both('top10', '{:.1f}')} of its 10 strongest edges, and "
        f"are {' and '.join(number(side['size_ratio']) for side in sides)} times as large as it"
    )
    if first["not_measurable"]:
        names = ", ".join(first["not_measurable"])
        text += f". {names} cannot be measured by a derivative: their score of 0 says nothing"
    return text + "."


def median_text(cell: CellResult, key: str) -> str:
    """`-95 %`, the change of the median question, or nothing where there is none."""
    ratio = cell.median_ratios.get(key)
    return "" if ratio is None else f"{percent(ratio - 1)} %"


def loss_cautions(cell: CellResult) -> list[str]:
    """What a reader must know of where the loss and the intensity are."""
    found = []
    placed = {
        side: where
        for side, where in cell.where_loss_is.items()
        if where.position_shares and max(where.position_shares) > LARGE_SHARE
    }
    if placed and cell.t_cut > 1:
        found.append(
            f"{' and '.join(_position(side, where) for side, where in placed.items())} of "
            f"{cell.t_cut} counted: scores there decide the metrics."
        )
    losses = (cell.base_losses_n, cell.rl_losses_n)
    if cell.where_loss_is and all(side is not None for side in losses):
        ratio = losses_ratio(*losses)
        if ratio > LARGE_RATIO:
            times = f"{ratio:.0f} times" if math.isfinite(ratio) else "infinitely"
            found.append(
                f"The two losses differ {times} ({number(float(np.mean(losses[0])))} and "
                f"{number(float(np.mean(losses[1])))} nats a token), and scores shrink with the "
                "loss: go by the logit difference and by edges really cut, which do not."
            )
    for side, where in cell.where_loss_is.items():
        if cell.num_samples > 2 * TOP_QUESTIONS and where.top_intensity > LARGE_SHARE:
            found.append(
                f"{TOP_QUESTIONS} of {cell.num_samples} questions hold "
                f"{100 * where.top_intensity:.0f} % of {side}'s activation intensity: its mean says "
                "little of a typical question."
            )
    return found


def _position(side: str, where: Concentration) -> str:
    share = 100 * max(where.position_shares)
    return f"{share:.0f} % of {side}'s loss lies on answer token {where.largest_position + 1}"
