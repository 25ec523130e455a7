"""The figure of a chain of checkpoints: accuracy of each model, each comparison's changes."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.report.chain import ChainResult
from experiments.report.changes import FIDELITY, Change
from experiments.report.figure_style import BASE_COLOUR, RL_COLOUR, new_figure, plain, styled
from experiments.report.view_style import VIEW_COLOURS, VIEW_MARKERS, change_axis, view_legend
from experiments.report.view_words import VIEW_LABELS
from experiments.statistics.metrics import METRICS, Metric
from experiments.statistics.views import VIEWS

_COLUMNS = 3
# Longer or more labels would lie on each other below a panel; numbers stand for them.
_LONGEST_LABEL, _MOST_COMPARISONS = 12, 5
_LINES = ("-", "--", ":", "-.")


@styled
def chain_figure(result: ChainResult) -> Figure:
    """Right answers by model, fidelity and every metric's change by comparison, with intervals.

    A metric's panel has the steps of the chain left of the line, and right of it what the others
    changed since the first checkpoint; each view on an arcsinh scale, a filled marker is a clear
    change. Places of comparisons are those of `ChainResult.compared`.
    """
    deep = -(-len(METRICS) // _COLUMNS)
    fidelity = _of_measure(result, FIDELITY, None)
    figure = new_figure(3.2 * _COLUMNS, 2.6 * (1 + deep * len(result.cells)))
    grid = figure.add_gridspec(1 + deep * len(result.cells), 2 * _COLUMNS)
    _draw_accuracy(figure.add_subplot(grid[0, : _COLUMNS if fidelity else 2 * _COLUMNS]), result)
    if fidelity:
        _draw_fidelity(figure.add_subplot(grid[0, _COLUMNS:]), result)
    handles = {}
    for number, (dataset, choice) in enumerate(result.cells):
        for place, metric in enumerate(METRICS):
            row, column = divmod(place, _COLUMNS)
            row += 1 + deep * number
            axes = figure.add_subplot(grid[row, 2 * column : 2 * column + 2])
            handles |= _draw_metric(axes, result, metric, (dataset, choice))
            if column == 0:
                axes.set_ylabel(plain(f"{dataset}, alpha {choice}\nchange (arcsinh scale)"))
    view_legend(figure, handles)
    return figure


def _of_measure(
    result: ChainResult, measure: str, cell: tuple[str, str] | None, view: str = ""
) -> list[tuple[int, Change]]:
    """One measure of a cell, or of all, by the place of its comparison."""
    return [
        (place, change)
        for place, one in enumerate(result.compared)
        for change in one.changes
        if (change.measure, change.view) == (measure, view)
        and (cell is None or (change.dataset, change.choice) == cell)
    ]


def _draw_accuracy(axes: Axes, result: ChainResult) -> None:
    labels = result.chain.labels
    found = result.accuracies()
    for number, (dataset, models) in enumerate(found.items()):
        places, shares = list(models), [model.share for model in models.values()]
        axes.plot(
            places, shares, "o", linestyle=_LINES[number % len(_LINES)], color=RL_COLOUR,
            markersize=4, label=plain(dataset),
        )  # fmt: skip
        for place, model in models.items():
            axes.vlines(place, model.low, model.high, color=RL_COLOUR, linewidth=0.9)
    axes.set_title("Right answers, of all questions asked")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    texts = [
        plain(label if _named(result) else f"{number}: {label}")
        for number, label in enumerate(labels, start=1)
    ]
    axes.set_xticks(range(len(labels)), texts, fontsize=7)
    if not _named(result):
        axes.tick_params(axis="x", rotation=30)
    if len(found) > 1:
        axes.legend(fontsize=7)


def _draw_fidelity(axes: Axes, result: ChainResult) -> None:
    """Both models' values of every comparison, side by side."""
    for number, cell in enumerate(result.cells):
        shift = 0.3 * (number - (len(result.cells) - 1) / 2) / max(len(result.cells), 2)
        style = _LINES[number % len(_LINES)]
        for place, change in _of_measure(result, FIDELITY, cell):
            sides = (
                (-0.15, change.base, change.base_low, change.base_high, BASE_COLOUR),
                (0.15, change.rl, change.low, change.high, RL_COLOUR),
            )
            for side, value, low, high, colour in sides:
                if math.isfinite(low) and math.isfinite(high):
                    axes.vlines(
                        place + side + shift, low, high, color=colour, linewidth=0.9,
                        linestyle=style,
                    )  # fmt: skip
                axes.plot(
                    place + side + shift, value, "os^D"[number % 4], color=colour, markersize=4
                )
    axes.set_title("Rank correlation of scores and exact effects")
    for colour, label in ((BASE_COLOUR, "before"), (RL_COLOUR, "after")):
        axes.plot([], [], "o", color=colour, markersize=4, label=label)
    if len(result.cells) > 1:
        for number, (dataset, choice) in enumerate(result.cells[:4]):
            axes.plot(
                [], [], "os^D"[number], color="#777777", markersize=4,
                label=plain(f"{dataset}, alpha {choice}"),
            )  # fmt: skip
    axes.margins(y=0.35)  # room for the legend
    axes.legend(fontsize=7, loc="lower left", ncols=2)
    _name_comparisons(axes, result)


def _draw_metric(
    axes: Axes, result: ChainResult, metric: Metric, cell: tuple[str, str]
) -> dict[str, object]:
    """One metric's change at every comparison in every view; a marker of each view by its label."""
    handles = {}
    for number, view in enumerate(VIEWS):
        shift = 0.13 * (number - (len(VIEWS) - 1) / 2)
        for place, change in _of_measure(result, metric.key, cell, view):
            if not math.isfinite(change.relative):
                continue
            colour = VIEW_COLOURS[view]
            if math.isfinite(change.low) and math.isfinite(change.high):
                axes.vlines(place + shift, change.low, change.high, color=colour, linewidth=0.9)
            axes.plot(
                place + shift, change.relative, VIEW_MARKERS[view], color=colour, markersize=4,
                markerfacecolor=colour if change.trend != "unclear" else "white",
            )  # fmt: skip
            if VIEW_LABELS[view] not in handles:
                (handles[VIEW_LABELS[view]],) = axes.plot(
                    [], [], VIEW_MARKERS[view], color=colour, markersize=4
                )
    change_axis(axes)
    axes.set_title(metric.label, fontsize=8.5)
    _name_comparisons(axes, result)
    return handles


def _name_comparisons(axes: Axes, result: ChainResult) -> None:
    steps = sum(one.is_step for one in result.compared)
    if 0 < steps < len(result.compared):
        axes.axvline(steps - 0.5, color="#bbbbbb", linewidth=0.8)
    labels = result.chain.labels if _named(result) else range(1, len(result.chain.labels) + 1)
    between = "\n\N{RIGHTWARDS ARROW} " if _named(result) else "\N{RIGHTWARDS ARROW}"
    texts = [plain(f"{labels[one.before]}{between}{labels[one.after]}") for one in result.compared]
    axes.set_xticks(range(len(texts)), texts, fontsize=6.5)
    axes.set_xlim(-0.5, len(texts) - 0.5)


def _named(result: ChainResult) -> bool:
    """Whether comparisons are named by the labels, or by numbers."""
    longest = max(map(len, result.chain.labels))
    return longest <= _LONGEST_LABEL and len(result.chain.pairs) <= _MOST_COMPARISONS
