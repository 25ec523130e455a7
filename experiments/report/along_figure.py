"""The figure of a training: accuracy, fidelity and every metric against the step."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.report.along import Point
from experiments.report.changes import ACCURACY, FIDELITY
from experiments.report.figure_style import BASE_COLOUR, RL_COLOUR, new_figure, plain, styled
from experiments.report.view_style import VIEW_COLOURS, VIEW_MARKERS, change_axis, view_legend
from experiments.report.view_words import VIEW_LABELS
from experiments.statistics.metrics import METRICS, Metric
from experiments.statistics.views import VIEWS

_COLUMNS = 3
# Views that agree lie on each other: those below are larger, so that they show.
_SIZES = dict(zip(VIEWS, (3, 6, 5, 5, 4), strict=True))


@styled
def along_figure(points: Sequence[Point]) -> Figure:
    """Accuracy and fidelity, then the metrics of each dataset and alpha.

    A metric's panel shows its relative change against the start in every view, on an arcsinh scale.
    A filled marker is a clear change, an empty one is not.
    """
    cells = list(dict.fromkeys((p.dataset, p.choice) for p in points if p.choice))
    datasets = list(dict.fromkeys(p.dataset for p in points))
    deep = -(-len(METRICS) // _COLUMNS)
    heads = {
        "Right answers": [
            (dataset, [p for p in points if (p.measure, p.dataset) == (ACCURACY, dataset)])
            for dataset in datasets
        ],
        "Rank correlation of scores and exact effects": [
            (
                f"{dataset}, alpha {choice}",
                [
                    p for p in points
                    if (p.measure, p.dataset, p.choice) == (FIDELITY, dataset, choice)
                ],
            )
            for dataset, choice in cells
        ],
    }  # fmt: skip
    heads = {title: lines for title, lines in heads.items() if any(found for _, found in lines)}
    rows = bool(heads) + deep * len(cells)
    figure = new_figure(3.2 * _COLUMNS, 2.5 * rows)
    grid = figure.add_gridspec(rows, 2 * _COLUMNS)
    for number, (title, lines) in enumerate(heads.items()):
        width = 2 * _COLUMNS // len(heads)
        axes = figure.add_subplot(grid[0, number * width : (number + 1) * width])
        _draw_values(axes, lines)
        axes.set_title(title)
        if title == "Right answers":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    handles = {}
    for number, (dataset, choice) in enumerate(cells):
        own = [p for p in points if (p.dataset, p.choice) == (dataset, choice)]
        for place, metric in enumerate(METRICS):
            row, column = divmod(place, _COLUMNS)
            row += bool(heads) + deep * number
            axes = figure.add_subplot(grid[row, 2 * column : 2 * column + 2])
            handles |= _draw_metric(axes, metric, own)
            if column == 0:
                axes.set_ylabel(plain(f"{dataset}, alpha {choice}\nchange (arcsinh scale)"))
    view_legend(figure, handles)
    return figure


def _draw_values(axes: Axes, lines: Sequence[tuple[str, Sequence[Point]]]) -> None:
    """Values with intervals from the start on; empty markers are unclear changes."""
    for number, (label, found) in enumerate(lines):
        if not found:
            continue
        colour = (RL_COLOUR, BASE_COLOUR)[number % 2]
        steps, values = (
            [0, *(p.step for p in found)],
            [found[0].start, *(p.snapshot for p in found)],
        )
        style = "-" if number < 2 else "--"
        axes.plot(steps, values, color=colour, linestyle=style, label=plain(label))
        for p in found:
            if math.isfinite(p.low) and math.isfinite(p.high):
                axes.vlines(p.step, p.low, p.high, color=colour, linewidth=0.9)
            _mark(axes, p, p.snapshot, "o", colour, 4)
    if len(axes.lines) and len(lines) > 1:
        axes.legend(fontsize=7)
    _label_steps(axes, [p for _, found in lines for p in found])


def _draw_metric(axes: Axes, metric: Metric, points: Sequence[Point]) -> dict:
    """One metric's change in every view; returns a line of each view by its label."""
    handles, drawn = {}, []
    for view in reversed(VIEWS):  # the published one is on top
        found = [
            p for p in points
            if (p.measure, p.view) == (metric.key, view) and math.isfinite(p.relative)
        ]  # fmt: skip
        if not found:
            continue
        drawn += found
        (handles[VIEW_LABELS[view]],) = axes.plot(
            [0, *(p.step for p in found)], [0, *(p.relative for p in found)],
            color=VIEW_COLOURS[view], linewidth=1, marker=VIEW_MARKERS[view], markersize=_SIZES[view],
            markevery=[],
        )  # fmt: skip
        for p in found:
            _mark(axes, p, p.relative, VIEW_MARKERS[view], VIEW_COLOURS[view], _SIZES[view])
    change_axis(axes)
    axes.set_title(metric.label, fontsize=8.5)
    _label_steps(axes, drawn)
    return handles


def _mark(axes: Axes, point: Point, value: float, marker: str, colour: str, size: float) -> None:
    face = colour if point.trend != "unclear" else "white"
    axes.plot(point.step, value, marker, color=colour, markersize=size, markerfacecolor=face)


def _label_steps(axes: Axes, points: Sequence[Point]) -> None:
    """The start and the snapshots, where there is room for their numbers."""
    axes.set_xlabel("step")
    steps = sorted({0, *(p.step for p in points)})
    if len(steps) <= 9:
        axes.set_xticks(steps)
