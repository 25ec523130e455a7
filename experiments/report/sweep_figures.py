"""Figures that compare cells: those of the paper's figures 3a and 3b, and metrics against alpha."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.report.figure_style import BASE_COLOUR, RL_COLOUR, new_figure, plain, styled
from experiments.report.headline import is_online
from experiments.report.results import CellResult, PairInfo, comparisons_of
from experiments.statistics.metrics import METRICS, Metric
from experiments.statistics.trend import trend

_AGAINST_ALPHA = "metrics_against_alpha"
SWEEP_TITLES: Mapping[str, str] = {m.figure.name: m.figure.title for m in METRICS if m.figure} | {
    _AGAINST_ALPHA: "Metrics against alpha, the counted share of the answer"
}


def change_summary(cells: Sequence[CellResult], metric: Metric) -> str:
    """`clearly rises in 3 of 5 cells, falls in 1, unclear in 1`; cells without it are left out."""
    found = [c for c in comparisons_of(cells, metric) if math.isfinite(c.relative)]
    if not found:
        return "not defined in any cell"
    seen = Counter(trend(comparison) for comparison in found)
    first, *others = [name for name in ("rises", "falls", "unclear") if seen[name]]
    clearly = "" if first == "unclear" else "clearly "
    parts = [f"{clearly}{first} in {seen[first]} of {len(found)} cell{'s' * (len(found) > 1)}"]
    return ", ".join(parts + [f"{name} in {seen[name]}" for name in others])


def _kinds(
    cells: Sequence[CellResult], pairs: Sequence[PairInfo]
) -> list[tuple[str, list[CellResult]]]:
    """Cells by kind of training, since a claim on online RL is none on other training."""
    online = {pair.key: is_online(pair.method) for pair in pairs}
    names = {True: "online RL", False: "training that is not online", None: "other training"}
    groups = [
        (name, [cell for cell in cells if online.get(cell.pair) is kind])
        for kind, name in names.items()
    ]
    return [(name, group) for name, group in groups if group]


@styled
def change_figure(
    cells: Sequence[CellResult], metric: Metric, pairs: Sequence[PairInfo] = ()
) -> Figure:
    """Relative change of one metric in every cell, kind of training by kind.

    A whisker is the 95 % interval of the difference as a share of |base|: the one by which a bar is
    solid or pale.
    """
    kinds = _kinds([cell for cell in cells if metric.key in cell.comparisons], pairs)
    shown = [cell for _, group in kinds for cell in group]
    figure = new_figure(8.6, 1.3 + 0.24 * max(len(shown), 2))
    axes = figure.subplots()
    for height, cell in enumerate(shown):
        found = cell.comparisons[metric.key]
        if not math.isfinite(found.relative):
            axes.text(0, height, " not defined", va="center", fontsize=8, color="#555555")
            continue
        colour = RL_COLOUR if found.relative > 0 else BASE_COLOUR
        clear = trend(found) != "unclear"
        axes.barh(
            height, found.relative, height=0.62, color=colour, alpha=0.85 if clear else 0.35,
            hatch=None if clear else "////", edgecolor=colour, linewidth=0.6,
        )  # fmt: skip
        ends = [end / abs(found.base) for end in found.difference_interval]
        if all(map(math.isfinite, ends)):
            axes.plot(ends, [height] * 2, color="black", linewidth=1.1)
    axes.axvline(0, color="black", linewidth=0.8)
    names = [plain(f"{cell.pair}  {cell.dataset}  {cell.choice}") for cell in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=7.5)
    axes.set_ylim(max(len(shown), 2) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(
        f"change of {metric.label.lower()}, rl against base (pale: unclear; line: 95 % interval of "
        "the difference)"
    )
    lines = [f"{name}: {change_summary(group, metric)}" for name, group in kinds]
    axes.set_title("\n".join([metric.label, *lines]))
    for _, group in kinds[:-1]:
        axes.axhline(shown.index(group[-1]) + 0.5, color="#bbbbbb", linewidth=0.8)
    return figure


@styled
def alpha_figure(cells: Sequence[CellResult]) -> Figure:
    """Every metric of both sides against alpha, one row of panels a pair, dataset and variant.

    Alphas are spaced evenly: published ones span a factor of 17.
    """
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in cells:
        names = (cell.pair, cell.dataset, *cell.variant.split(", "))
        groups.setdefault(tuple(filter(None, names)), []).append(cell)
    figure = new_figure(2.5 * len(METRICS), 0.5 + 2.3 * len(groups))
    panels = figure.subplots(len(groups), len(METRICS), squeeze=False)
    for row, (names, group) in zip(panels, groups.items(), strict=True):
        group = sorted(group, key=lambda cell: cell.alpha)
        places = np.arange(len(group))
        for axes, metric in zip(row, METRICS, strict=True):
            for side, colour, marker, shift in (
                ("base", BASE_COLOUR, "o", -0.06),
                ("rl", RL_COLOUR, "D", 0.06),
            ):
                found = [cell.comparisons.get(metric.key) for cell in group]
                known = [i for i, item in enumerate(found) if item is not None]
                values = np.array([getattr(found[i], side) for i in known])
                ends = np.array([getattr(found[i], f"{side}_interval") for i in known])
                if known:
                    axes.vlines(places[known] + shift, ends[:, 0], ends[:, 1], color=colour)
                    axes.plot(
                        places[known] + shift, values, marker, linestyle="-", color=colour,
                        markersize=4, linewidth=1, label=side,
                    )  # fmt: skip
            axes.set_xticks(places, [f"{cell.alpha:g}" for cell in group])
            axes.set_xlim(-0.5, len(group) - 0.5)
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
            axes.set_xlabel("alpha", labelpad=1)
            unit = f" ({metric.unit})" if metric.unit else ""
            axes.set_title(f"{metric.label}{unit}", fontsize=8.5, pad=14)
        row[0].set_ylabel(plain("\n".join(names)))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure


def sweep_figures(cells: Sequence[CellResult], pairs: Sequence[PairInfo] = ()) -> dict[str, Figure]:
    """All figures over cells, by file name; their titles are `SWEEP_TITLES`."""
    changes = {m.figure.name: change_figure(cells, m, pairs) for m in METRICS if m.figure}
    return changes | {_AGAINST_ALPHA: alpha_figure(cells)}
