"""Words and a table for cells that differ in alpha only: does a change's sign turn with it?

Alpha is the counted share of the answer. Cells of one pair, dataset and selection that count
different shares of the same answers are a ladder of alphas. A metric turns with alpha where it
clearly rises at one alpha of a ladder and clearly falls at another.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from experiments.report.formats import number, percent
from experiments.report.results import CellResult
from experiments.report.view_words import VIEW_LABELS, loss_cautions, turning_clause
from experiments.statistics.metrics import TABLE_METRICS, Metric
from experiments.statistics.trend import disputed, trend
from experiments.statistics.views import VIEWS, support

# Of more alphas a sentence or a table cannot be taken in at once; comparisons are counted then.
MOST_ALPHAS = 4
_NEED_WORDS = ("turns", "unclear elsewhere")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlphaViews:
    """A metric's views side by side for every alpha.

    Attributes:
      alphas: heads of the columns.
      rows: the view, then for each alpha its change and trend as text.
    """

    alphas: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def ladders(cells: Sequence[CellResult]) -> list[list[CellResult]]:
    """Cells that differ in alpha only, by rising alpha; what has a single alpha is left out."""
    found: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in cells:
        found.setdefault((cell.pair, cell.dataset, cell.variant), []).append(cell)
    return [sorted(group, key=lambda c: c.alpha) for group in found.values() if len(group) > 1]


def one_ladder(cells: Sequence[CellResult]) -> list[CellResult] | None:
    """The cells by rising alpha, if they are a single ladder of few alphas."""
    found = ladders(cells)
    alone = len(found) == 1 and len(found[0]) == len(cells)
    return found[0] if alone and len(cells) <= MOST_ALPHAS else None


def turned_ladders(cells: Sequence[CellResult], metric: Metric) -> list[list[CellResult]]:
    """Ladders on which a metric clearly rises at one alpha and clearly falls at another."""
    return [
        ladder
        for ladder in ladders(cells)
        if {"rises", "falls"}
        <= {trend(c.comparisons[metric.key]) for c in ladder if metric.key in c.comparisons}
    ]


def turns_at(cell: CellResult, cells: Sequence[CellResult], metric: Metric) -> bool:
    """Whether a cell's change is clear, and the clear opposite at another alpha of its ladder."""
    if metric.key not in cell.comparisons or trend(cell.comparisons[metric.key]) == "unclear":
        return False
    return any(any(c is cell for c in ladder) for ladder in turned_ladders(cells, metric))


def alpha_turn(cells: Sequence[CellResult], metric: Metric) -> str | None:
    """`Distribution kurtosis rises by 30 % at alpha 0.1 and falls by 53 % at alpha 0.3`, or None.

    Of several such ladders the first is told and the others are counted.
    """
    turned = turned_ladders(cells, metric)
    if not turned:
        return None
    first = turned[0]
    text = f"{metric.label} {alpha_changes(first, metric)}"
    if len(ladders(cells)) > 1:
        text += f" ({', '.join(filter(None, (first[0].dataset, first[0].variant)))})"
    if len(turned) > 1:
        text += f", and turns with alpha in {len(turned) - 1} more of {len(ladders(cells))} cases"
    return text


def alpha_turns(cells: Sequence[CellResult]) -> list[str]:
    """A sentence for each of the paper's signs that turns with alpha."""
    found = (alpha_turn(cells, metric) for metric in TABLE_METRICS)
    return [f"{text}." for text in found if text]


def alpha_changes(ladder: Sequence[CellResult], metric: Metric) -> str:
    """`rises by 30 % at alpha 0.1 and falls by 53 % at alpha 0.3`."""
    parts, last = [], None
    for cell in ladder:
        if metric.key not in cell.comparisons:
            continue
        found, place = cell.comparisons[metric.key], f"at alpha {cell.alpha:g}"
        way, size = trend(found), abs(100 * found.relative)
        if not math.isfinite(found.relative):
            way, said = "undefined", f"is not defined {place}"
        elif way == "unclear":
            against = ""
            if disputed(found):
                against = f", but {'falls' if found.effect_size < 0 else 'rises'} in most questions"
            verb = "" if last == way else "does not clearly change "
            said = f"{verb}{place} ({percent(found.relative, 0)} %{against})"
        else:
            said = f"{'' if last == way else f'{way} '}by {size:.0f} % {place}"
        parts.append(said)
        last = way
    return _listed(parts)


def alpha_views(ladder: Sequence[CellResult], metric: Metric) -> AlphaViews | None:
    """The views of one metric at every alpha; None where only the published view is known."""
    rows = []
    for name in VIEWS:
        found = [
            next((v for v in c.views if (v.view, v.metric) == (name, metric.key)), None)
            for c in ladder
        ]
        if not any(view is not None and math.isfinite(view.relative) for view in found):
            continue
        texts = []
        for view in found:
            if view is None or not math.isfinite(view.relative):
                texts.append(("not measured" if view is None else "not defined", ""))
                continue
            change = f"{number(view.base)} \N{RIGHTWARDS ARROW} {number(view.rl)}: "
            change += f"{percent(view.relative)} %"
            if math.isfinite(view.low):
                change += f" [{percent(view.low, 0)}, {percent(view.high, 0)}]"
            texts.append((change, view.trend))
        rows.append((VIEW_LABELS[name], tuple(texts)))
    if len(rows) < 2:
        return None
    return AlphaViews(alphas=tuple(f"{cell.alpha:g}" for cell in ladder), rows=tuple(rows))


def turning_in_cells(cells: Sequence[CellResult], metric: Metric) -> str | None:
    """What other views make of a metric's clear changes in several cells, or None."""
    seen = [support(cell.views, metric.key) for cell in cells]
    if not set(seen) & set(_NEED_WORDS):
        return None
    ladder = one_ladder(cells)
    if ladder is None:
        counts = Counter(seen)
        words = {"turns": "turns with the view", "unclear elsewhere": "is unclear in another view"}
        parts = [f"{words[name]} in {counts[name]}" for name in _NEED_WORDS if counts[name]]
        clear = len(seen) - counts["unclear"]
        return (
            f"{metric.label} clearly changes in {clear} of {len(seen)} comparisons: it "
            f"{_listed(parts)} of these."
        )
    parts = []
    for cell in ladder:
        if metric.key in cell.comparisons and (said := turning_clause(cell, metric)) is not None:
            parts.append(f"at alpha {cell.alpha:g} it {said}")
    return f"{metric.label}: {'; '.join(parts)}."


def places(cells: Sequence[CellResult]) -> list[str]:
    """How each of a pair's cells is named in a sentence: by alpha alone where that is enough."""
    if one_ladder(cells) is not None:
        return [f"Alpha {cell.alpha:g}" for cell in cells]
    return [f"{cell.dataset}, alpha {cell.choice}" for cell in cells]


def cautions_of_cells(cells: Sequence[CellResult]) -> list[str]:
    """`loss_cautions` of each cell with its name; of many cells only how many have any."""
    if len(cells) <= MOST_ALPHAS:
        return [
            f"{place}: {caution}"
            for place, cell in zip(places(cells), cells, strict=True)
            for caution in loss_cautions(cell)
        ]
    doubtful = sum(bool(loss_cautions(cell)) for cell in cells)
    if not doubtful:
        return []
    return [
        f"In {doubtful} of {len(cells)} comparisons the loss or the intensity lies on few tokens or "
        "questions, or the two losses differ over threefold; see Which questions count."
    ]


def _listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
