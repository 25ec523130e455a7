"""views.csv: every metric in every view, of one cell or of all cells of a study."""

import csv
import io
import math
from collections.abc import Iterable

from experiments.report.results import CellResult

VIEW_COLUMNS = (
    "pair", "dataset", "alpha", "metric", "view", "base", "rl", "relative", "low", "high", "trend",
)  # fmt: skip


def views_csv(cells: Iterable[CellResult]) -> str:
    """One line a cell, metric and view, numbers in full precision, empty where not defined.

    `low` and `high` are the 95 % interval of `relative`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(VIEW_COLUMNS)
    for cell in cells:
        for view in cell.views:
            numbers = (view.base, view.rl, view.relative, view.low, view.high)
            writer.writerow(
                (
                    cell.pair, cell.dataset, cell.alpha, view.metric, view.view,
                    *(float(number) if math.isfinite(number) else "" for number in numbers),
                    view.trend,
                )
            )  # fmt: skip
    return text.getvalue()
