"""Figures of one cell, drawn from saved scores only: heat maps, |W|, answer lengths, top edges.

The graph is drawn in graph_figure.py and what compares cells in sweep_figures.py.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from eap_jax.graph import edge_mask, reader_names, strongest_edges, writer_names
from experiments.report.circuit_figure import circuits
from experiments.report.effect_figure import scores_and_effects
from experiments.report.figure_style import (
    BASE_COLOUR,
    DIFFERENCE_COLOURS,
    NO_EDGE_COLOUR,
    RL_COLOUR,
    SCORE_COLOURS,
    name_axes,
    new_figure,
    pdf,
    plain,
    print_png,
    scale_note,
    score_norm,
    score_ticks,
    styled,
    svg,
    widen_middle,
)
from experiments.report.graph_figure import graph_figure
from experiments.report.results import CellResult
from experiments.store import write_bytes

TOP_EDGES = 20
_SIDES = (("base", BASE_COLOUR, "-"), ("rl", RL_COLOUR, "--"))


@styled
def heat_maps(cell: CellResult) -> Figure:
    """Mean score of every edge: base and rl on one scale, and their difference on its own."""
    mask_WR = edge_mask(cell.num_layers)
    base_WR, rl_WR = cell.base_WR, cell.rl_WR
    shared = score_norm(base_WR, rl_WR)
    panels = (
        ("Before (base)", base_WR, shared, SCORE_COLOURS),
        ("After (rl)", rl_WR, shared, SCORE_COLOURS),
        ("Difference (rl \N{MINUS SIGN} base)", rl_WR - base_WR, score_norm(rl_WR - base_WR),
         DIFFERENCE_COLOURS),
    )  # fmt: skip
    figure = new_figure(8.6, 1.2 + 3 * (4.1 if cell.num_layers > 3 else 3.4))
    for axes, (title, scores_WR, norm, colours) in zip(figure.subplots(3, 1), panels, strict=True):
        image = axes.imshow(
            np.ma.masked_where(~mask_WR, scores_WR),
            norm=norm, cmap=colours, aspect="auto", interpolation="nearest",
        )  # fmt: skip
        axes.set_facecolor(NO_EDGE_COLOUR)
        axes.set_title(title)
        name_axes(axes, cell.num_layers)
        bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=25)
        places, labels = score_ticks(norm)
        bar.set_ticks(places, labels=labels)
        bar.ax.minorticks_off()
        bar.set_label("mean score")
    figure.suptitle(
        f"{plain(cell.name)}: mean score over {cell.num_samples} questions (grey: no edge)",
        fontsize=10,
    )
    return figure


@styled
def score_distribution(cell: CellResult) -> Figure:
    """|W| of every existing edge and question on logarithmic axes: density and share above."""
    mask_WR = edge_mask(cell.num_layers)
    sides = {"base": np.abs(cell.base_nWR[:, mask_WR]), "rl": np.abs(cell.rl_nWR[:, mask_WR])}
    positive = [side[side > 0] for side in sides.values()]
    figure = new_figure(8.6, 3.4)
    density, tail = figure.subplots(1, 2)
    if any(len(side) for side in positive):
        pooled = np.concatenate(positive).astype(np.float64)
        lowest, largest = np.quantile(pooled, 1e-3), pooled.max()
        edges = np.geomspace(min(lowest, largest / 10), largest, 61)
        for name, colour, dashes in _SIDES:
            values = np.sort(sides[name].ravel())
            counts, _ = np.histogram(values, bins=edges)
            per_decade = counts / values.size / np.diff(np.log10(edges))
            density.stairs(per_decade, edges, color=colour, linestyle=dashes, label=name)
            above = 1 - np.searchsorted(values, edges, side="left") / values.size
            kept = above > 0
            tail.plot(edges[kept], above[kept], color=colour, linestyle=dashes, label=name)
        for axes in (density, tail):
            axes.set_xscale("log")
            axes.set_yscale("log")
    density.set_title("How often a strength occurs")
    density.set_ylabel("share of scores per factor of 10")
    tail.set_title("How many are stronger")
    tail.set_ylabel("share of scores \N{GREATER-THAN OR EQUAL TO} |W|")
    for axes in (density, tail):
        axes.set_xlabel("|W|, score of one edge on one question")
        axes.legend()
    figure.suptitle(f"{plain(cell.name)}: {sides['base'].size:,} scores a side", fontsize=10)
    return figure


@styled
def answer_lengths(cell: CellResult) -> Figure:
    """Lengths of the selected answers and how much of each is counted."""
    lengths = {
        side: [len(row[f"{side}_answer_tokens"]) for row in cell.rows] for side in ("base", "rl")
    }
    pooled = [*lengths["base"], *lengths["rl"]]
    low, high = min(*pooled, cell.t_cut), max(*pooled, cell.t_cut)
    # Bins are a whole number of tokens wide, so that all hold equally many possible lengths.
    width = math.ceil((high - low + 1) / 30)
    edges = np.arange(low, high + width + 1, width) - 0.5
    figure = new_figure(8.6, 3.3)
    axes = figure.subplots()
    for name, colour, dashes in _SIDES:
        counts, _ = np.histogram(lengths[name], bins=edges)
        label = f"{name}, mean {np.mean(lengths[name]):.0f}"
        axes.stairs(counts, edges, color=colour, linestyle=dashes, label=label)
        axes.stairs(counts, edges, color=colour, fill=True, alpha=0.15)
    label = f"counted: up to token {cell.t_cut}"
    axes.axvline(cell.t_cut, color="black", linewidth=1, linestyle=":", label=label)
    axes.set_xlabel("answer length in tokens")
    axes.set_ylabel("questions")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"{plain(cell.name)}: {cell.num_samples} selected questions")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def top_changes(cell: CellResult, count: int = TOP_EDGES) -> Figure:
    """The edges of the largest |mean difference|, by name, each with its 95 % interval.

    Where few edges are far larger than the rest, an axis is an arcsinh and says so.
    """
    writers, readers = writer_names(cell.num_layers), reader_names(cell.num_layers)
    base_WR, rl_WR = cell.base_WR, cell.rl_WR
    places = strongest_edges(np.abs(rl_WR - base_WR), edge_mask(cell.num_layers), count)
    figure = new_figure(8.6, 1.2 + 0.24 * len(places))
    means, changes = figure.subplots(1, 2, sharey=True)
    heights = np.arange(len(places))
    for (name, colour, _), scores_WR, marker in zip(
        _SIDES, (base_WR, rl_WR), ("o", "D"), strict=True
    ):
        values = [scores_WR[place] for place in places]
        means.plot(values, heights, marker, color=colour, markersize=4.5, label=name)
    for height, place in enumerate(places):
        means.plot([base_WR[place], rl_WR[place]], [height] * 2, color="#999999", lw=1, zorder=0)
        change = rl_WR[place] - base_WR[place]
        clear = True
        if cell.edge_low_WR is not None:
            low, high = cell.edge_low_WR[place], cell.edge_high_WR[place]
            clear = low > 0 or high < 0
            changes.plot([low, high], [height] * 2, color="black", linewidth=1.2)
        changes.plot(
            change, height, "o", markersize=5, markeredgecolor="black",
            markerfacecolor="black" if clear else "white",
        )  # fmt: skip
    for axes, shown in ((means, [base_WR, rl_WR]), (changes, [rl_WR - base_WR])):
        axes.axvline(0, color="#999999", linewidth=0.8)
        widen_middle(axes, np.array([values_WR[place] for values_WR in shown for place in places]))
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
    hidden = dict.fromkeys(cell.not_measurable, " (not measurable by EAP)")
    names = [
        f"{writers[w]} \N{RIGHTWARDS ARROW} {readers[r]}{hidden.get((w, r), '')}" for w, r in places
    ]
    means.set_yticks(heights, names, fontsize=7.5)
    means.invert_yaxis()
    means.set_xlabel("mean score" + scale_note(means))
    means.legend(loc="best", fontsize=8)
    changes.set_xlabel("rl \N{MINUS SIGN} base" + scale_note(changes))
    if cell.edge_low_WR is not None:
        changes.set_title("hollow: the interval includes 0", fontsize=8)
    figure.suptitle(f"{plain(cell.name)}: the {len(places)} edges that change most", fontsize=10)
    return figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellFigure:
    """A figure of a cell: file name, how it is drawn, title and text for the report.

    `possible` says whether a cell has what it needs.
    """

    name: str
    draw: Callable[[CellResult], Figure]
    title: str
    text: str
    possible: Callable[[CellResult], bool] = lambda cell: True


CELL_FIGURES = (
    CellFigure(
        name="effects",
        draw=scores_and_effects,
        title="What the scores are worth",
        text="Each point is one edge of one sample: what its score predicts, and what really happens "
        "to the loss when the edge is cut. Axes are logarithmic far from zero. The edges from the "
        "input into the first layer's queries, keys and values cannot be measured by a derivative.",
        possible=lambda cell: bool(cell.effects),
    ),
    CellFigure(
        name="graph",
        draw=graph_figure,
        title="The residual graph before and after (figure 2 of the paper)",
        text="Each line is an edge: what one part of the network writes and another reads, the reads "
        "q, k and v of an attention added up. Wide lines are strong. Both sides show the same edges on "
        "the same scale; where not all edges are shown, a third panel shows those that change most.",
    ),
    CellFigure(
        name="heat_maps",
        draw=heat_maps,
        title="Every edge before, after, and the difference",
        text="Rows write, columns read. Red edges help the model predict its own answer (removing "
        "them is predicted to raise the loss), blue edges work against it. What the input tells the "
        "first layer's queries, keys and values is not measurable by EAP: its score of 0 says nothing.",
    ),
    CellFigure(
        name="top_changes",
        draw=top_changes,
        title="The edges that change most",
        text="Each line is the 95 % interval of one edge on its own; among many edges some exclude "
        "zero by chance. An axis on which a few edges would flatten the rest is linear near zero only.",
    ),
    CellFigure(
        name="score_distribution",
        draw=score_distribution,
        title="How strong the edges are",
        text="A curve shifted to the right means higher activation intensity; a wider one means "
        "higher information complexity.",
    ),
    CellFigure(
        name="answer_lengths",
        draw=answer_lengths,
        title="How long the answers are",
        text="Only the first tokens of each answer are counted, the same number on both sides.",
    ),
    CellFigure(
        name="circuits",
        draw=circuits,
        title="What is left when only some edges are kept",
        text="Each point is a circuit: the model with a share of its edges, every other one cut. A "
        "ranking that finds what matters reaches 1 with few edges; one that does no better than the "
        "grey lines has found nothing that stands alone.",
        possible=lambda cell: bool(cell.faithfulness),
    ),
)


def figure_file(folder: str, name: str) -> str:
    """A cell's figure without its ending; folder and result as seen from the report."""
    dataset, _, cell = folder.rpartition("/")
    return f"{dataset}/figures/{cell}_{name}"


_SAVED = {"png": print_png, "pdf": pdf, "svg": svg}
FIGURE_KINDS = tuple(_SAVED)


def write_figures(figures: dict[str, Figure], directory: Path) -> list[Path]:
    """Write each figure as NAME.png, NAME.pdf and NAME.svg; returns the paths."""
    written = []
    for name, figure in figures.items():
        for suffix, saved in _SAVED.items():
            path = directory / f"{name}.{suffix}"
            write_bytes(path, saved(figure))
            written.append(path)
    return written


def cell_figures(cell: CellResult) -> dict[str, Figure]:
    """All figures that a cell has, by file name."""
    return {figure.name: figure.draw(cell) for figure in CELL_FIGURES if figure.possible(cell)}
