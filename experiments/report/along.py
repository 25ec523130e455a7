"""What a training has changed by each of its snapshots: metrics, accuracy and fidelity by step.

Every snapshot is compared with the start. A metric has changed where its change is clear
(`statistics.trend`). Accuracy has where McNemar's exact test, of the questions that only one of the
two models answers correctly, has p < 0.05; fidelity (the rank correlation of scores and exact
effects) where the 95 % intervals of the two models do not meet.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import scipy.stats

from experiments.report.results import CellResult
from experiments.responses.generated import read_answers
from experiments.statistics.compare import proportion_interval
from experiments.statistics.metrics import METRICS
from experiments.statistics.trend import Trend, trend
from experiments.statistics.views import support
from experiments.study.pairs import SIDES

ACCURACY, FIDELITY = "accuracy", "fidelity"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One measure of one snapshot against the start.

    Attributes:
      step, dataset: where.
      choice: alpha and what else is unusual of the selection, empty for accuracy.
      measure: a metric's key, `ACCURACY` or `FIDELITY`.
      label: the same for readers.
      view: of a metric, see `statistics.views`; empty for the others.
      questions: how many it rests on.
      start, snapshot: its values.
      relative: their relative change, NaN where the start's value is 0.
      low, high: 95 % interval, of `relative` of a metric, of `snapshot` of the others.
      trend: whether it has changed.
      everywhere: whether every view of the cell has a metric's change.
    """

    step: int
    dataset: str
    choice: str
    measure: str
    label: str
    view: str
    questions: int
    start: float
    snapshot: float
    relative: float
    low: float
    high: float
    trend: Trend
    everywhere: bool = False


def along_points(cells: Sequence[CellResult], steps: Mapping[Path, int]) -> list[Point]:
    """Every measure of every snapshot, steps rising.

    Args:
      cells: of all snapshots; each one's pair is the name of its run directory.
      steps: step of each run directory.

    Raises:
      InputError: a file of answers is broken.
    """
    points: list[Point] = []
    for directory, step in sorted(steps.items(), key=lambda item: item[1]):
        own = [cell for cell in cells if cell.pair == directory.name]
        for dataset in dict.fromkeys(cell.dataset for cell in own):
            base, rl = (
                {answer.idx: bool(answer.score) for answer in read_answers(path)}
                for path in (directory / dataset / f"responses_{side}.jsonl" for side in SIDES)
            )
            if both := sorted(base.keys() & rl.keys()):
                verdicts = [side[idx] for side in (base, rl) for idx in both]
                points.append(
                    accuracy_point(step, dataset, verdicts[: len(both)], verdicts[len(both) :])
                )
        for cell in own:
            points += _metric_points(step, cell)
            points += _fidelity_points(step, cell)
    return points


def accuracy_point(step: int, dataset: str, base: Sequence[bool], rl: Sequence[bool]) -> Point:
    """Right answers of both models to the same questions, in one order."""
    gained = sum(after and not before for before, after in zip(base, rl, strict=True))
    lost = sum(before and not after for before, after in zip(base, rl, strict=True))
    way: Trend = "unclear"
    if gained + lost and scipy.stats.binomtest(gained, gained + lost).pvalue < 0.05:
        way = "rises" if gained > lost else "falls"
    before, after = sum(base) / len(base), sum(rl) / len(rl)
    low, high = proportion_interval(sum(rl), len(rl))
    return Point(
        step=step, dataset=dataset, choice="", measure=ACCURACY, label="accuracy", view="",
        questions=len(rl), start=before, snapshot=after, relative=_relative(before, after),
        low=low, high=high, trend=way,
    )  # fmt: skip


def _metric_points(step: int, cell: CellResult) -> list[Point]:
    """A cell's metrics in all its views."""
    found = []
    for metric in METRICS:
        names = {
            "step": step, "dataset": cell.dataset, "choice": cell.choice, "measure": metric.key,
            "label": metric.label.lower(),
        }  # fmt: skip
        if (own := cell.comparisons.get(metric.key)) is not None:
            low, high = own.relative_interval
            found.append(
                Point(
                    **names, view="published", questions=own.samples, start=own.base,
                    snapshot=own.rl, relative=own.relative, low=low, high=high, trend=trend(own),
                    everywhere=support(cell.views, metric.key) == "found",
                )
            )  # fmt: skip
        found += [
            Point(
                **names, view=view.view, questions=view.samples, start=view.base, snapshot=view.rl,
                relative=view.relative, low=view.low, high=view.high, trend=view.trend,
            )
            for view in cell.views
            if view.metric == metric.key and view.view != "published"
        ]  # fmt: skip
    return found


def _fidelity_points(step: int, cell: CellResult) -> list[Point]:
    """How the scores rank edges beside exact effects, where edges were cut."""
    if not cell.fidelity:
        return []
    base, rl = (cell.fidelity[side] for side in SIDES)
    ends = [side.get("intervals", {}).get("spearman", (math.nan,) * 2) for side in (base, rl)]
    (base_low, base_high), (low, high) = ends
    way: Trend = "rises" if low > base_high else "falls" if high < base_low else "unclear"
    return [
        Point(
            step=step, dataset=cell.dataset, choice=cell.choice, measure=FIDELITY,
            label="the scores' rank correlation with exact effects", view="",
            questions=rl["samples"], start=base["spearman"], snapshot=rl["spearman"],
            relative=_relative(base["spearman"], rl["spearman"]), low=low, high=high, trend=way,
        )
    ]  # fmt: skip


def _relative(base: float, rl: float) -> float:
    return (rl - base) / abs(base) if base else math.nan
