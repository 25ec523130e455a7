"""The picture of what is left of a model when only some edges are: recovered loss by share of edges."""

import math

import numpy as np
from matplotlib.figure import Figure

from experiments.report.figure_style import new_figure, plain, styled
from experiments.report.results import CellResult

_RANDOM = "#999999"
# Curves of faithfulness.json: name, key, colour, line, marker.
_CURVES = (
    ("by |score|", None, "#0072B2", "-", "o"),
    ("by signed score", "signed", "#D55E00", "--", "s"),
    ("by the other model's |score|", "transfer", "#009E73", "-.", "^"),
)
# Recovered shares beyond these would flatten the rest: a circuit may be far worse than no model.
_LOWEST, _HIGHEST = -2.0, 2.0


@styled
def circuits(cell: CellResult) -> Figure:
    """One panel a side: the recovered share of the loss against the share of edges that are kept."""
    figure = new_figure(8.6, 3.6)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    lowest, highest = 0.0, 1.0
    for axes, (side, found) in zip(panels, cell.faithfulness.items(), strict=True):
        curves = found["curves"]
        for number, curve in enumerate(curves["random"]):
            label = "at random, three times" if number == 0 else None
            axes.plot(*_points(curve), color=_RANDOM, linewidth=0.8, label=label)
        for label, key, colour, line, marker in _CURVES:
            curve = found["curve"] if key is None else curves[key]
            axes.plot(
                *_points(curve), line, color=colour, marker=marker, markersize=3.5, label=label
            )
        drawn = [y for line in axes.lines for y in line.get_ydata() if math.isfinite(y)]
        lowest, highest = min([lowest, *drawn]), max([highest, *drawn])
        axes.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
        axes.axhline(1, color="#cccccc", linewidth=0.8, zorder=0)
        axes.set_xscale("log")
        axes.set_title(f"{side}: {found['edges']:,} edges, {found['samples']} samples")
        axes.set_xlabel("edges kept, %")
    panels[0].set_ylim(max(_LOWEST, lowest) - 0.1, min(_HIGHEST, highest) + 0.1)
    panels[0].set_ylabel("recovered share of the loss")
    places = [0.1, 1, 10, 100]
    panels[0].set_xticks(places, labels=[f"{place:g}" for place in places])
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(f"{plain(cell.name)}: 1 is the whole model, 0 is no edge at all", fontsize=10)
    return figure


def _points(curve) -> tuple[np.ndarray, np.ndarray]:
    """Shares in percent and what is recovered."""
    shares = np.array([100 * line["share"] for line in curve])
    return shares, np.array([line["recovered"] for line in curve])
