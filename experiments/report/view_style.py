"""How a metric's changes in its views look in figures: a colour and marker a view, one axis."""

from collections.abc import Mapping

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.report.view_words import VIEW_LABELS
from experiments.statistics.views import VIEWS

VIEW_COLOURS = dict(zip(VIEWS, ("black", "#0072B2", "#56B4E9", "#009E73", "#D55E00"), strict=True))
VIEW_MARKERS = dict(zip(VIEWS, "osv^D", strict=True))
_TICKS = (-100, -30, -10, -3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3, 10, 30, 100)


def change_axis(axes: Axes) -> None:
    """The vertical axis of relative changes: arcsinh scale, ticks in percent, a line at no change."""
    axes.set_yscale("asinh", linear_width=0.3)
    axes.axhline(0, color="#999999", linewidth=0.6)
    low, high = axes.get_ylim()
    inside = [tick for tick in _TICKS if low <= tick <= high]
    if high - low > 1:  # those of a tenth would lie on each other
        inside = [tick for tick in inside if abs(tick) != 0.1]
    axes.set_yticks(inside)
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    axes.tick_params(labelsize=7)


def view_legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """The views that a figure shows, in their order, below it; none where it shows none.

    Args:
      figure: which.
      handles: something drawn of each view, by the view's label.
    """
    shown = [VIEW_LABELS[view] for view in VIEWS if VIEW_LABELS[view] in handles]
    if shown:
        figure.legend(
            [handles[label] for label in shown], shown, loc="outside lower center", ncols=3,
            fontsize=8,
        )  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:+.0f} %" if share else "0 %"
