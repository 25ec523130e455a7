"""What changes first along a training: metrics, accuracy and fidelity of its snapshots.

Every snapshot is compared with the start. A metric has changed where its published change is clear
(`statistics.trend`). Accuracy has where McNemar's exact test of the questions that only one of the
two models answers correctly has p < 0.05, and fidelity (the rank correlation of scores and exact
effects) where the 95 % intervals of the two models do not meet.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import scipy.stats

from experiments.report.formats import percent
from experiments.report.results import CellResult
from experiments.statistics.metrics import METRICS
from experiments.statistics.trend import Trend, trend
from experiments.statistics.views import support

ACCURACY, FIDELITY = "accuracy", "fidelity"
COLUMNS = (
    "step", "dataset", "alpha", "measure", "view", "start", "snapshot", "relative", "low", "high",
    "trend",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One measure of one snapshot against the start.

    Attributes:
      step, dataset: where; alpha and what else is unusual of the selection, empty for accuracy.
      measure: a metric's key, `ACCURACY` or `FIDELITY`; label: the same for readers.
      view: of a metric, see `statistics.views`; empty for the others.
      start, snapshot: its values; relative: their relative change.
      low, high: 95 % interval of `relative` of a metric, of `snapshot` of the others.
      trend: whether it has changed.
      everywhere: whether every view of the cell has a metric's change.
    """

    step: int
    dataset: str
    choice: str
    measure: str
    label: str
    view: str
    start: float
    snapshot: float
    relative: float
    low: float
    high: float
    trend: Trend
    everywhere: bool = False


def metric_points(step: int, cell: CellResult) -> list[Point]:
    """A cell's metrics in all its views, and its fidelity."""
    found = []
    common = {"step": step, "dataset": cell.dataset, "choice": cell.choice}
    for metric in METRICS:
        names = common | {"measure": metric.key, "label": metric.label.lower()}
        if metric.key in cell.comparisons:
            own = cell.comparisons[metric.key]
            low, high = own.relative_interval
            found.append(
                Point(
                    **names, view="published", start=own.base, snapshot=own.rl,
                    relative=own.relative, low=low, high=high, trend=trend(own),
                    everywhere=support(cell.views, metric.key) == "found",
                )
            )  # fmt: skip
        found += [
            Point(
                **names, view=view.view, start=view.base, snapshot=view.rl,
                relative=view.relative, low=view.low, high=view.high, trend=view.trend,
            )
            for view in cell.views
            if view.metric == metric.key and view.view != "published"
        ]  # fmt: skip
    if cell.fidelity:
        sides = [cell.fidelity[side] for side in ("base", "rl")]
        (base_low, base_high), (low, high) = (s["intervals"]["spearman"] for s in sides)
        base, rl = (side["spearman"] for side in sides)
        way = "rises" if low > base_high else "falls" if high < base_low else "unclear"
        found.append(
            Point(
                **common, measure=FIDELITY, label="the scores' rank correlation with exact effects",
                view="", start=base, snapshot=rl, relative=_relative(base, rl), low=low, high=high,
                trend=way,
            )
        )  # fmt: skip
    return found


def accuracy_point(
    step: int, dataset: str, base: Sequence[bool], rl: Sequence[bool], interval
) -> Point:
    """Right answers of both models to the same questions, in one order."""
    gained = sum(after and not before for before, after in zip(base, rl, strict=True))
    lost = sum(before and not after for before, after in zip(base, rl, strict=True))
    way: Trend = "unclear"
    if gained + lost and scipy.stats.binomtest(gained, gained + lost).pvalue < 0.05:
        way = "rises" if gained > lost else "falls"
    before, after = sum(base) / len(base), sum(rl) / len(rl)
    return Point(
        step=step, dataset=dataset, choice="", measure=ACCURACY, label="accuracy", view="",
        start=before, snapshot=after, relative=_relative(before, after),
        low=interval[0], high=interval[1], trend=way,
    )  # fmt: skip


def first_changes(points: Sequence[Point], *, everywhere: bool = False) -> dict[str, Point]:
    """Each measure's first clear change, by the measure's name for readers; see `sentence`.

    Args:
      points: all points.
      everywhere: only metrics, and only changes that every view has.
    """
    several = len({point.dataset for point in points}) > 1
    found: dict[str, Point] = {}
    for point in sorted(points, key=lambda point: point.step):
        if point.trend == "unclear" or point.view not in ("", "published"):
            continue
        if everywhere and not point.everywhere:
            continue
        name = point.label + (f" at alpha {point.choice}" if point.choice else "")
        name += f" ({point.dataset})" if several else ""
        found.setdefault(name, point)
    return found


def sentence(points: Sequence[Point]) -> str:
    """Which measure first changes clearly, or that nothing can be told of it."""
    steps = sorted({point.step for point in points})
    found = first_changes(points)
    if not found:
        return f"Cannot tell what changes first: nothing changes clearly in {_snapshots(steps)}."
    first = min(point.step for point in found.values())
    names = [name for name, point in found.items() if point.step == first]
    if len(names) > 1:
        text = (
            f"Cannot tell what changes first: {', '.join(names[:-1])} and {names[-1]} have changed "
            f"clearly by step {first}, the first of {_snapshots(steps)} where anything has"
        )
    else:
        point = found[names[0]]
        text = (
            f"First to change clearly is {names[0]}: it {point.trend} by "
            f"{percent(abs(point.relative), 0).lstrip('+')} % at step {first}"
        )
    later = [f"{name} at step {point.step}" for name, point in found.items() if point.step > first]
    if later:
        text += f"; later come {', '.join(later)}"
    whole = first_changes(points, everywhere=True)
    if not whole:
        return f"{text}. No metric's change stands in every view at any step."
    stands = ", ".join(f"{name} from step {point.step}" for name, point in whole.items())
    return f"{text}. In every view stand: {stands}."


def along_csv(points: Sequence[Point]) -> str:
    """One line a point, numbers in full precision, empty where not defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for p in points:
        numbers = (p.start, p.snapshot, p.relative, p.low, p.high)
        writer.writerow(
            (
                p.step, p.dataset, p.choice, p.measure, p.view,
                *(float(value) if math.isfinite(value) else "" for value in numbers), p.trend,
            )
        )  # fmt: skip
    return text.getvalue()


def along_json(name: str, points: Sequence[Point]) -> Mapping[str, Any]:
    """The training, its steps, the sentence, each measure's first clear change, and all points."""
    return {
        "along": name,
        "steps": sorted({point.step for point in points}),
        "first": sentence(points),
        "first_changes": {
            key: {"step": point.step, "trend": point.trend, "relative": point.relative}
            for key, point in first_changes(points).items()
        },
        "points": [dataclasses.asdict(point) for point in points],
    }


def _relative(base: float, rl: float) -> float:
    return (rl - base) / abs(base) if base else math.nan


def _snapshots(steps: Sequence[int]) -> str:
    return f"{len(steps)} snapshot{'' if len(steps) == 1 else 's'}"
