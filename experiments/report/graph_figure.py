"""Figure 2 of the paper: the residual graph before and after, edges by width and colour.

Nodes lie by layer, input below and logits above; attention on the left, MLPs on the right, the
attention's q, k and v reads merged into one node. Both sides show the same edges on one scale.
"""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path

from eap_jax.graph import edge_mask, reader_names, strongest_edges, to_block, writer_names
from experiments.report.figure_style import (
    DIFFERENCE_COLOURS,
    SCORE_COLOURS,
    new_figure,
    plain,
    score_norm,
    score_ticks,
    styled,
)
from experiments.report.results import CellResult

DEFAULT_EDGES = 120
_WIDEST = 5.0
_NODE_FILL = {"i": "#ffffff", "a": "#e3ecf5", "m": "#f3e9dc", "l": "#ffffff"}


@styled
def graph_figure(cell: CellResult, edges: int = DEFAULT_EDGES) -> Figure:
    """The residual graph of both models.

    Drawn are the `edges` edges of the largest max(|base|, |rl|) mean score, the same on both sides.
    Line width grows with the square root of |score|, colour shows score and sign. Where those are
    not all edges, a third panel has the `edges` edges that change most, on a scale of their own.
    """
    layers = cell.num_layers
    base_WR = to_block(cell.base_WR)
    rl_WR = to_block(cell.rl_WR)
    mask_WR = edge_mask(layers, "block")
    shown = strongest_edges(np.maximum(np.abs(base_WR), np.abs(rl_WR)), mask_WR, edges)
    norm = score_norm(base_WR, rl_WR, linear=0.01)
    total = int(mask_WR.sum())
    some = len(shown) < total
    height = 1.9 + max(3.2, (layers + 2) * 0.33)
    figure = new_figure(11.4 if some else 8.6, height)
    panels = figure.subplots(1, 3 if some else 2, sharex=True, sharey=True)
    titles = ("Before (base)", "After (rl)")
    for axes, scores_WR, title in zip(panels, (base_WR, rl_WR), titles, strict=False):
        _draw_edges(axes, scores_WR, shown, layers, norm, SCORE_COLOURS)
        _draw_nodes(axes, layers)
        axes.set_title(title)
    chosen = f"the {len(shown)} strongest of {total:,}" if some else f"all {total:,}"
    figure.suptitle(
        f"{plain(cell.name)}: {chosen} edges (q, k and v merged) by mean score over "
        f"{cell.num_samples} questions",
        fontsize=10,
    )
    _colour_bar(
        figure, panels[:2], norm, SCORE_COLOURS,
        "mean score (positive: removing the edge is predicted to raise the loss)",
    )  # fmt: skip
    if some:
        change_WR = rl_WR - base_WR
        changed = strongest_edges(np.abs(change_WR), mask_WR, edges)
        change_norm = score_norm(change_WR, linear=0.01)
        _draw_edges(panels[2], change_WR, changed, layers, change_norm, DIFFERENCE_COLOURS)
        _draw_nodes(panels[2], layers)
        panels[2].set_title(f"Change: the {len(changed)} largest of {total:,}")
        _colour_bar(figure, panels[2:], change_norm, DIFFERENCE_COLOURS, "rl \N{MINUS SIGN} base")
    handles = [
        Line2D([], [], color="#555555", linewidth=_width(share), label=f"{share * norm.vmax:.1e}")
        for share in (0.01, 0.1, 1.0)
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, title="line width: |mean score|",
        title_fontsize=8, fontsize=8,
    )  # fmt: skip
    return figure


def _place(name: str, num_layers: int) -> tuple[float, float]:
    if name == "input":
        return 0.5, -1.15
    if name == "logits":
        return 0.5, num_layers + 0.15
    return (0.0 if name[0] == "a" else 1.0), int(name[1:]) + (0.0 if name[0] == "a" else 0.35)


def _draw_edges(
    axes: Axes,
    scores_WR: np.ndarray,
    shown: list[tuple[int, int]],
    layers: int,
    norm: SymLogNorm,
    colours: str,
) -> None:
    writers, readers = writer_names(layers), reader_names(layers, "block")
    # Weak edges are drawn first, so that strong ones lie on top.
    shown = sorted(shown, key=lambda edge: abs(scores_WR[edge]))
    values = np.array([scores_WR[edge] for edge in shown])
    paths = [
        _curve(_place(writers[w], layers), _place(readers[r], layers), layers) for w, r in shown
    ]
    axes.add_collection(
        PathCollection(
            paths,
            facecolors="none",
            edgecolors=matplotlib.colormaps[colours](norm(values)),
            linewidths=[_width(abs(value) / norm.vmax) for value in values],
            capstyle="round",
        )
    )


def _colour_bar(figure: Figure, panels, norm: SymLogNorm, colours: str, label: str) -> None:
    bar = figure.colorbar(
        ScalarMappable(norm=norm, cmap=colours), ax=panels, location="bottom", shrink=0.7,
        aspect=22 * len(panels), pad=0.01, extend="neither",
    )  # fmt: skip
    places, labels = score_ticks(norm)
    bar.set_ticks(places, labels=labels, minor=False)
    bar.ax.minorticks_off()
    bar.set_label(label)


def _width(share: float) -> float:
    return _WIDEST * float(np.sqrt(share))


def _curve(start: tuple[float, float], end: tuple[float, float], layers: int) -> Path:
    """A straight line, or within one column a bow to the outside, wider the longer it is."""
    (x0, y0), (x1, y1) = start, end
    if x0 != x1 or x0 == 0.5:
        return Path([start, end])
    bow = (0.12 + 0.75 * (y1 - y0) / max(layers, 4)) * (-1 if x0 == 0 else 1)
    return Path(
        [start, (x0 + bow, y0 + 0.15 * (y1 - y0)), (x1 + bow, y1 - 0.15 * (y1 - y0)), end],
        [Path.MOVETO] + [Path.CURVE4] * 3,
    )


def _draw_nodes(axes: Axes, layers: int) -> None:
    size = 7.5 if layers <= 12 else 6
    for name in (*writer_names(layers), "logits"):
        axes.text(
            *_place(name, layers), name, ha="center", va="center", fontsize=size, zorder=3,
            bbox={
                "boxstyle": "round,pad=0.25", "facecolor": _NODE_FILL[name[0]],
                "edgecolor": "#555555", "linewidth": 0.6,
            },
        )  # fmt: skip
    axes.set_xlim(-0.75, 1.75)
    axes.set_ylim(-1.6, layers + 0.6)
    axes.set_axis_off()
