"""The picture of what a score is worth: every edge's score against what cutting it really does."""

import math

import numpy as np
from matplotlib.figure import Figure

from eap_jax.graph import edge_mask, reader_kinds
from experiments.report.figure_style import new_figure, plain, styled
from experiments.report.results import CellResult

# Colours of Okabe and Ito, and a marker each, since there are many points on one place.
_KINDS = {
    "q": ("#0072B2", "o"),
    "k": ("#56B4E9", "s"),
    "v": ("#009E73", "^"),
    "mlp": ("#E69F00", "D"),
    "logits": ("#CC79A7", "*"),
}
# More points would make the file large and show nothing more.
_MOST_POINTS = 4000


@styled
def scores_and_effects(cell: CellResult) -> Figure:
    """One point a sample and edge, both sides, arcsinh on both axes; a line where they would agree."""
    figure = new_figure(8.6, 4.4)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    kinds_R = np.array(reader_kinds(cell.num_layers))
    mask_WR = edge_mask(cell.num_layers)
    points = {}
    for side, scores_nWR in (("base", cell.base_nWR), ("rl", cell.rl_nWR)):
        saved = cell.effects[side]
        cut_mWR = mask_WR & np.isfinite(saved.effects_mWR)
        kinds = np.broadcast_to(kinds_R, cut_mWR.shape)[cut_mWR]
        points[side] = (
            scores_nWR[saved.rows_m][cut_mWR], saved.effects_mWR[cut_mWR], kinds,
        )  # fmt: skip
    every = np.concatenate([np.concatenate(points[side][:2]) for side in points]).astype(float)
    largest = float(np.abs(every).max()) or 1.0
    linear = float(np.quantile(np.abs(every[every != 0]), 0.1)) if every.any() else 1.0
    places, labels = _ticks(largest, linear)
    for axes, (side, (scores, effects, kinds)) in zip(panels, points.items(), strict=True):
        shown = np.linspace(0, len(scores) - 1, min(len(scores), _MOST_POINTS)).astype(int)
        for kind, (colour, marker) in _KINDS.items():
            of_kind = shown[kinds[shown] == kind]
            axes.plot(
                scores[of_kind], effects[of_kind], marker, color=colour, label=kind,
                markersize=2.6, markeredgewidth=0, alpha=0.55, rasterized=True,
            )  # fmt: skip
        axes.set_xscale("asinh", linear_width=linear)
        axes.set_yscale("asinh", linear_width=linear)
        axes.set_xlim(-1.3 * largest, 1.3 * largest)
        axes.set_ylim(-1.3 * largest, 1.3 * largest)
        axes.plot([-largest, largest], [-largest, largest], color="black", linewidth=0.8)
        axes.set_xticks(places, labels=labels)
        axes.set_yticks(places, labels=labels)
        axes.minorticks_off()
        axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
        axes.axvline(0, color="#999999", linewidth=0.6, zorder=0)
        axes.set_title(f"{side}: {len(scores):,} edges of {len(cell.effects[side].rows_m)} samples")
        axes.set_xlabel("score, nats a token")
    panels[0].set_ylabel("exact effect of cutting the edge, nats a token")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, markerscale=2.5)
    figure.suptitle(f"{plain(cell.name)}: the line is where score and effect agree", fontsize=10)
    return figure


def _ticks(largest: float, linear: float) -> tuple[list[float], list[str]]:
    """0 and four powers of ten to each side."""
    top = math.floor(math.log10(largest))
    step = max(1, (top - math.ceil(math.log10(linear)) + 3) // 4)
    powers = [power for power in range(top, top - 4 * step, -step) if 10.0**power > linear]
    places = [*(-(10.0**power) for power in powers), 0.0, *(10.0**p for p in reversed(powers))]
    labels = [f"\N{MINUS SIGN}$10^{{{power}}}$" for power in powers]
    return places, [*labels, "0", *(f"$10^{{{power}}}$" for power in reversed(powers))]
