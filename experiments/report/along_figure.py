"""The figure of a training: accuracy, fidelity and every metric against the step."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from experiments.report.along import ACCURACY, FIDELITY, Point
from experiments.report.figure_style import BASE_COLOUR, RL_COLOUR, new_figure, plain, styled
from experiments.report.view_words import VIEW_LABELS
from experiments.statistics.metrics import METRICS
from experiments.statistics.views import VIEWS

_COLOURS = dict(zip(VIEWS, ("black", "#0072B2", "#56B4E9", "#009E73", "#D55E00"), strict=True))
_MARKERS = dict(zip(VIEWS, "osv^D", strict=True))
_TICKS = (-100, -30, -10, -3, -1, -0.3, 0, 0.3, 1, 3, 10, 30, 100)


@styled
def along_figure(points: Sequence[Point]) -> Figure:
    """Accuracy and fidelity, then a row of metrics for each dataset and alpha.

    A metric's panel shows its relative change against the start in every view, on an arcsinh scale.
    A filled marker is a clear change, an empty one is not.
    """
    cells = list(dict.fromkeys((p.dataset, p.choice) for p in points if p.choice))
    columns = len(METRICS)
    figure = new_figure(2.6 * columns, 2.9 * (1 + len(cells)))
    grid = figure.add_gridspec(1 + len(cells), columns)
    accuracy = figure.add_subplot(grid[0, : columns // 2])
    for dataset in dict.fromkeys(p.dataset for p in points):
        found = [p for p in points if (p.measure, p.dataset) == (ACCURACY, dataset)]
        _values(accuracy, found, plain(dataset), RL_COLOUR)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    accuracy.set_title("Right answers")
    fidelity = figure.add_subplot(grid[0, columns // 2 :])
    for number, (dataset, choice) in enumerate(cells):
        found = [
            p for p in points
            if (p.measure, p.dataset, p.choice) == (FIDELITY, dataset, choice)
        ]  # fmt: skip
        _values(
            fidelity,
            found,
            plain(f"{dataset}, alpha {choice}"),
            (BASE_COLOUR, RL_COLOUR)[number % 2],
        )
    fidelity.set_title("Rank correlation of scores and exact effects")
    for axes in (accuracy, fidelity):
        if axes.lines:
            axes.legend(fontsize=7)
    handles = {}
    for row, (dataset, choice) in enumerate(cells, start=1):
        for column, metric in enumerate(METRICS):
            axes = figure.add_subplot(grid[row, column])
            for view in VIEWS:
                found = [
                    p for p in points
                    if (p.dataset, p.choice, p.measure, p.view) == (dataset, choice, metric.key, view)
                    and math.isfinite(p.relative)
                ]  # fmt: skip
                if not found:
                    continue
                steps = [0, *(p.step for p in found)]
                (handles[VIEW_LABELS[view]],) = axes.plot(
                    steps, [0, *(p.relative for p in found)], color=_COLOURS[view], linewidth=1,
                    marker=_MARKERS[view], markersize=4, markevery=[],
                )  # fmt: skip
                for p in found:
                    axes.plot(
                        p.step, p.relative, _MARKERS[view], color=_COLOURS[view], markersize=4,
                        markerfacecolor=_COLOURS[view] if p.trend != "unclear" else "white",
                    )  # fmt: skip
            axes.axhline(0, color="#999999", linewidth=0.6)
            axes.set_yscale("asinh", linear_width=0.3)
            low, high = axes.get_ylim()
            axes.set_yticks([tick for tick in _TICKS if low <= tick <= high])
            axes.set_yticks([], minor=True)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.0f} %"))
            axes.tick_params(labelsize=7)
            axes.set_title(metric.label, fontsize=8.5)
            axes.set_xlabel("step")
            if column == 0:
                axes.set_ylabel(plain(f"{dataset}, alpha {choice}\nchange (arcsinh scale)"))
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=len(handles),
            fontsize=8,
        )
    return figure


def _values(axes, found: Sequence[Point], label: str, colour: str) -> None:
    """A measure's values with intervals, from the start on; empty markers are unclear changes."""
    if not found:
        return
    steps = [0, *(p.step for p in found)]
    axes.plot(steps, [found[0].start, *(p.snapshot for p in found)], color=colour, label=label)
    for p in found:
        if np.isfinite([p.low, p.high]).all():
            axes.vlines(p.step, p.low, p.high, color=colour, linewidth=0.9)
        axes.plot(
            p.step, p.snapshot, "o", color=colour, markersize=4,
            markerfacecolor=colour if p.trend != "unclear" else "white",
        )  # fmt: skip
    axes.set_xlabel("step")
