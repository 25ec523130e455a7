"""Every measure of one comparison of two models: accuracy, metrics in all views, fidelity.

A metric has changed where its change is clear (`statistics.trend`). Accuracy has where McNemar's
exact test, of the questions that only one of the two models answers correctly, has p < 0.05; fidelity
(the rank correlation of scores and exact effects) where the 95 % intervals of the two models do not
meet.
"""

import dataclasses
import math
from collections.abc import Sequence
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
class Change:
    """One measure of two models.

    Attributes:
      dataset: whose questions.
      choice: alpha and what else is unusual of the selection, empty for accuracy.
      measure: a metric's key, `ACCURACY` or `FIDELITY`.
      label: the same for readers.
      view: of a metric, see `statistics.views`; empty for the others.
      questions: how many it rests on.
      base, rl: its values before and after.
      relative: their relative change, NaN where base's value is 0.
      low, high: 95 % interval, of `relative` of a metric, of `rl` of the others.
      base_low, base_high: of `base`, for accuracy and fidelity; NaN for a metric.
      trend: whether it has changed.
      everywhere: whether every view of the cell has a metric's change.
    """

    dataset: str
    choice: str
    measure: str
    label: str
    view: str
    questions: int
    base: float
    rl: float
    relative: float
    low: float
    high: float
    trend: Trend
    base_low: float = math.nan
    base_high: float = math.nan
    everywhere: bool = False


def changes_of(directory: Path, cells: Sequence[CellResult]) -> list[Change]:
    """Every measure of one comparison.

    Args:
      directory: its run directory, <workdir>/<pair>.
      cells: of any comparisons; those of this one have its directory's name as pair.

    Raises:
      InputError: a file of answers is broken.
    """
    found: list[Change] = []
    own = [cell for cell in cells if cell.pair == directory.name]
    for dataset in dict.fromkeys(cell.dataset for cell in own):
        base, rl = (
            {answer.idx: bool(answer.score) for answer in read_answers(path)}
            for path in (directory / dataset / f"responses_{side}.jsonl" for side in SIDES)
        )
        if both := sorted(base.keys() & rl.keys()):
            found.append(
                accuracy_change(dataset, [base[idx] for idx in both], [rl[idx] for idx in both])
            )
    for cell in own:
        found += _metric_changes(cell)
        found += _fidelity_changes(cell)
    return found


def accuracy_change(dataset: str, base: Sequence[bool], rl: Sequence[bool]) -> Change:
    """Right answers of both models to the same questions, in one order."""
    gained = sum(after and not before for before, after in zip(base, rl, strict=True))
    lost = sum(before and not after for before, after in zip(base, rl, strict=True))
    way: Trend = "unclear"
    if gained + lost and scipy.stats.binomtest(gained, gained + lost).pvalue < 0.05:
        way = "rises" if gained > lost else "falls"
    before, after = sum(base) / len(base), sum(rl) / len(rl)
    base_low, base_high = proportion_interval(sum(base), len(base))
    low, high = proportion_interval(sum(rl), len(rl))
    return Change(
        dataset=dataset, choice="", measure=ACCURACY, label="accuracy", view="",
        questions=len(rl), base=before, rl=after, relative=_relative(before, after),
        low=low, high=high, base_low=base_low, base_high=base_high, trend=way,
    )  # fmt: skip


def _metric_changes(cell: CellResult) -> list[Change]:
    """A cell's metrics in all its views."""
    found = []
    for metric in METRICS:
        names = {
            "dataset": cell.dataset, "choice": cell.choice, "measure": metric.key,
            "label": metric.label.lower(),
        }  # fmt: skip
        if (own := cell.comparisons.get(metric.key)) is not None:
            low, high = own.relative_interval
            found.append(
                Change(
                    **names, view="published", questions=own.samples, base=own.base, rl=own.rl,
                    relative=own.relative, low=low, high=high, trend=trend(own),
                    everywhere=support(cell.views, metric.key) == "found",
                )
            )  # fmt: skip
        found += [
            Change(
                **names, view=view.view, questions=view.samples, base=view.base, rl=view.rl,
                relative=view.relative, low=view.low, high=view.high, trend=view.trend,
            )
            for view in cell.views
            if view.metric == metric.key and view.view != "published"
        ]  # fmt: skip
    return found


def _fidelity_changes(cell: CellResult) -> list[Change]:
    """How the scores rank edges beside exact effects, where edges were cut."""
    if not cell.fidelity:
        return []
    base, rl = (cell.fidelity[side] for side in SIDES)
    ends = [side.get("intervals", {}).get("spearman", (math.nan,) * 2) for side in (base, rl)]
    (base_low, base_high), (low, high) = ends
    way: Trend = "rises" if low > base_high else "falls" if high < base_low else "unclear"
    return [
        Change(
            dataset=cell.dataset, choice=cell.choice, measure=FIDELITY,
            label="the scores' rank correlation with exact effects", view="",
            questions=rl["samples"], base=base["spearman"], rl=rl["spearman"],
            relative=_relative(base["spearman"], rl["spearman"]), low=low, high=high,
            base_low=base_low, base_high=base_high, trend=way,
        )
    ]  # fmt: skip


def _relative(base: float, rl: float) -> float:
    return (rl - base) / abs(base) if base else math.nan
