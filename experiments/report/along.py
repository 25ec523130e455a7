"""What a training has changed by each of its snapshots: metrics, accuracy and fidelity by step.

Every snapshot is compared with the start; what counts as changed: `report.changes`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.report.changes import Change, changes_of
from experiments.report.results import CellResult
from experiments.statistics.trend import Trend


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One measure of one snapshot against the start.

    Attributes:
      step: of the snapshot.
      start, snapshot: the measure's values.
      low, high: 95 % interval, of `relative` of a metric, of `snapshot` of the others.
      others: see `changes.Change`.
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
    return [
        _point(step, change)
        for directory, step in sorted(steps.items(), key=lambda item: item[1])
        for change in changes_of(directory, cells)
    ]


def _point(step: int, change: Change) -> Point:
    fields = dataclasses.asdict(change)
    del fields["base_low"], fields["base_high"]  # the start's, at every step
    return Point(step=step, start=fields.pop("base"), snapshot=fields.pop("rl"), **fields)
