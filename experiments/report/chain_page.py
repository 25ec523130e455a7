"""The report's section on a chain of checkpoints: its words, its figure, a table of every measure."""

import dataclasses
import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.report.chain import ChainResult
from experiments.report.chain_words import arrow
from experiments.report.changes import ACCURACY, Change
from experiments.report.formats import number, percent
from experiments.report.view_words import VIEW_LABELS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One measure of one comparison: its value or change, its interval, its trend."""

    text: str
    interval: str = ""
    trend: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One measure in one view, an entry a comparison, None where it was not measured."""

    label: str
    view: str
    cells: Sequence[Entry | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Every measure of one dataset and choice: a column a comparison, a line a measure and view."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Line]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainPage:
    """What the page shows of a chain.

    Attributes:
      name: of the chain.
      headline: what changes from its first checkpoint to its last.
      sentences: name of each comparison and what it shows.
      tables: one a dataset and choice.
      figure: see `chain_figure`.
    """

    name: str
    headline: str
    sentences: Sequence[tuple[str, str]]
    tables: Sequence[Table]
    figure: Figure


def chain_tables(result: ChainResult) -> list[Table]:
    """One table a dataset and choice: questions, accuracy, fidelity, then every metric's change."""
    labels = result.chain.labels
    return [
        Table(
            title=f"{dataset}, alpha {choice}",
            columns=[arrow(labels, one.before, one.after) for one in result.compared],
            lines=_lines(result, dataset, choice),
        )
        for dataset, choice in result.cells
    ]


def _lines(result: ChainResult, dataset: str, choice: str) -> list[Line]:
    found = [
        [c for c in one.changes if c.dataset == dataset and c.choice in ("", choice)]
        for one in result.compared
    ]
    keys = dict.fromkeys((c.measure, c.label, c.view) for own in found for c in own)
    asked = [[c for c in own if c.view == "published"] for own in found]
    lines = [
        Line(
            label="questions that both answer correctly",
            view="",
            cells=[Entry(text=str(own[0].questions)) if own else None for own in asked],
        )
    ]
    for measure, label, view in keys:
        cells = [
            next((_entry(c) for c in own if (c.measure, c.view) == (measure, view)), None)
            for own in found
        ]
        lines.append(Line(label=label, view=VIEW_LABELS.get(view, ""), cells=cells))
    return lines


def _entry(change: Change) -> Entry:
    """A metric's change in percent, or both values of accuracy and fidelity."""
    trend = f"{change.trend}, in every view" if change.everywhere else change.trend
    known = math.isfinite(change.low) and math.isfinite(change.high)
    if change.view:
        ends = f"[{percent(change.low)}, {percent(change.high)}]" if known else ""
        return Entry(text=f"{percent(change.relative)} %", interval=ends, trend=trend)
    written = _share if change.measure == ACCURACY else number
    ends = f"[{written(change.low)}, {written(change.high)}]" if known else ""
    text = f"{written(change.base)} \N{RIGHTWARDS ARROW} {written(change.rl)}"
    return Entry(text=text, interval=ends, trend=trend)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
