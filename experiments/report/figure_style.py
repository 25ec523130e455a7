"""How every figure looks and is saved: colours, type, names on axes; PNG, PDF and SVG.

Colours are safe for colour-blind readers (blue and vermilion of Okabe and Ito; PuOr and RdBu for
signed scores), and the two sides also differ in line style or marker. Equal input gives equal
bytes: no dates, no random ids, no state outside the figure.
"""

import functools
import io
import math
import weakref
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from eap_jax.graph import reader_names, writer_names

BASE_COLOUR, RL_COLOUR = "#0072B2", "#D55E00"
SCORE_COLOURS, DIFFERENCE_COLOURS = "RdBu_r", "PuOr_r"
NO_EDGE_COLOUR = "#d9d9d9"
# Below this share of the largest |score| the colour scale is linear.
LINEAR_SHARE = 1e-3
_DPI = 130
_PRINT_DPI = 300
_RULES = {
    "font.family": "sans-serif",  # DejaVu Sans, or where an SVG is shown without it, another
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "eap-jax",
    "path.simplify": True,
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make a function draw in the project's style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_RULES)
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, laid out so that nothing is clipped."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    """The figure, as it was at the first call, as a PNG file."""
    return _saved(figure, "png", dpi=dpi, metadata={"Software": None})


def svg(figure: Figure) -> bytes:
    """The same as an SVG file; text stays text, which can be searched, copied and edited."""
    return _saved(figure, "svg", dpi=_DPI, metadata={"Date": None, "Creator": None})


def print_png(figure: Figure) -> bytes:
    """The same as a PNG file sharp enough for print."""
    return png(figure, _PRINT_DPI)


def pdf(figure: Figure) -> bytes:
    """The same as a PDF file, fonts included."""
    return _saved(
        figure, "pdf", dpi=_PRINT_DPI,
        metadata={"CreationDate": None, "Creator": None, "Producer": None},
    )  # fmt: skip


def plain(text: str) -> str:
    """A user's text for a figure: matplotlib would read what stands between two $ as a formula."""
    return text.replace("$", r"\$")


def score_norm(*matrices: np.ndarray, linear: float = LINEAR_SHARE) -> SymLogNorm:
    """One symmetric scale for all given scores: linear around zero, logarithmic beyond.

    Args:
      *matrices: the scores that share the scale.
      linear: end of the linear part, as a share of the largest |score|.
    """
    largest = max(float(np.abs(matrix).max()) for matrix in matrices) or 1.0
    return SymLogNorm(linthresh=largest * linear, vmin=-largest, vmax=largest, base=10)


def score_ticks(norm: SymLogNorm) -> tuple[list[float], list[str]]:
    """Places and labels of a colour bar: powers of ten on both sides of zero."""
    top = math.floor(math.log10(norm.vmax))
    powers = [10.0**power for power in range(top, top - 3, -1) if 10.0**power > norm.linthresh]
    places = [*(-p for p in powers), 0.0, *reversed(powers)]
    return places, [_power_label(place) for place in places]


def name_axes(axes: Axes, num_layers: int) -> None:
    """Name a [W, R] image's rows and columns: every node of a small model, some of a large one."""
    writers, readers = writer_names(num_layers), reader_names(num_layers)
    every = 1 if num_layers <= 8 else math.ceil(num_layers / 16)
    if every == 1:
        rows, columns = range(len(writers)), range(len(readers))
    else:
        # a0 is not named: its name would overlap that of the input, which stands beside it.
        rows = [0, *(1 + 2 * layer for layer in range(every, num_layers, every))]
        columns = [*(4 * layer for layer in range(0, num_layers, every)), len(readers) - 1]
    axes.set_yticks(list(rows), [writers[row] for row in rows], fontsize=7)
    axes.set_xticks(list(columns), [readers[column] for column in columns], fontsize=7, rotation=90)
    axes.tick_params(length=2, pad=1.5)
    axes.set_ylabel("writer")
    axes.set_xlabel("reader (q, k, v and MLP of each layer, then logits)")
    for layer in range(1, num_layers + 1):
        axes.axvline(4 * layer - 0.5, color="white", linewidth=0.35)
        axes.axhline(2 * layer - 1.5, color="white", linewidth=0.35)


def widen_middle(axes: Axes, values: np.ndarray) -> None:
    """Make an x axis an arcsinh where the largest |value| is over ten times the median one.

    Linear up to the median, logarithmic far beyond it, with ticks at zero and at powers of ten.
    """
    sizes = np.abs(values[values != 0])
    if not len(sizes) or sizes.max() <= 10 * np.median(sizes):
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
        return
    width = float(np.median(sizes))
    axes.set_xscale("asinh", linear_width=width)
    low, high = np.arcsinh(axes.dataLim.intervalx / width)
    margin = 0.04 * (high - low)
    axes.set_xlim(*(width * np.sinh([low - margin, high + margin])))
    # The first power of ten at which the scale is about logarithmic, then at most two more.
    lowest, highest = math.ceil(math.log10(3 * width)), math.floor(math.log10(sizes.max()))
    powers = [10.0**power for power in range(highest, lowest - 1, -max(1, (highest - lowest) // 2))]
    shown = [*(-power for power in powers), 0.0, *reversed(powers)]
    axes.set_xticks(shown, [_power_label(place) for place in shown])
    axes.set_xticks([], minor=True)


def scale_note(axes: Axes) -> str:
    """What an axis label says after `widen_middle`."""
    return " (arcsinh scale)" if axes.get_xscale() == "asinh" else ""


# Each figure is saved twice, as a file and in the page, and in two formats. Drawing is most of a
# report's time, so the bytes are kept as long as the figure, and a figure is laid out once.
_KEPT: weakref.WeakKeyDictionary[Figure, dict[tuple, bytes]] = weakref.WeakKeyDictionary()


_CANVASES = {"png": FigureCanvasAgg, "pdf": FigureCanvasPdf, "svg": FigureCanvasSVG}


def _saved(figure: Figure, kind: str, dpi: int, metadata: dict[str, None]) -> bytes:
    kept = _KEPT.setdefault(figure, {})
    if (kind, dpi) not in kept:
        buffer = io.BytesIO()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_RULES)
            if not kept:
                figure.get_layout_engine().execute(figure)
                figure.set_layout_engine("none")
            figure.set_dpi(dpi)
            # Not by `savefig`, which draws a figure that has had a layout twice.
            getattr(_CANVASES[kind](figure), f"print_{kind}")(buffer, metadata=metadata)
        kept[kind, dpi] = buffer.getvalue()
    return kept[kind, dpi]


def _power_label(place: float) -> str:
    if place == 0:
        return "0"
    sign = "\N{MINUS SIGN}" if place < 0 else ""
    return f"{sign}$10^{{{round(math.log10(abs(place)))}}}$"
