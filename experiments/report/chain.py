"""What changes along a chain of checkpoints: every comparison's measures, every model's accuracy."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.report.changes import ACCURACY, Change, changes_of
from experiments.report.results import CellResult
from experiments.study.chains import Chain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """Two checkpoints of a chain, by their places, and every measure of both."""

    before: int
    after: int
    changes: Sequence[Change]

    @property
    def is_step(self) -> bool:
        """Whether nothing of the chain lies between them."""
        return self.after == self.before + 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelAccuracy:
    """Share of right answers of one model to `questions` questions, with its 95 % interval."""

    share: float
    low: float
    high: float
    questions: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainResult:
    """A chain and what was measured of it.

    Attributes:
      chain: its checkpoints.
      compared: its measured comparisons: the steps in their order, then the others.
    """

    chain: Chain
    compared: Sequence[Compared]

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Places of the comparisons that have no result."""
        found = {(one.before, one.after) for one in self.compared}
        return [places for places in self.chain.pairs if places not in found]

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Dataset and choice of all cells, in their order."""
        changes = [change for one in self.compared for change in one.changes if change.choice]
        return list(dict.fromkeys((change.dataset, change.choice) for change in changes))

    def accuracies(self) -> dict[str, dict[int, ModelAccuracy]]:
        """Of each dataset the accuracy of each model that answered it, by its place."""
        found: dict[str, dict[int, ModelAccuracy]] = {}
        for one in self.compared:
            for change in one.changes:
                if change.measure == ACCURACY:
                    own = found.setdefault(change.dataset, {})
                    sides = (
                        (one.before, change.base, change.base_low, change.base_high),
                        (one.after, change.rl, change.low, change.high),
                    )
                    for place, share, low, high in sides:
                        own[place] = ModelAccuracy(
                            share=share, low=low, high=high, questions=change.questions
                        )
        return {dataset: dict(sorted(own.items())) for dataset, own in found.items()}


def chain_result(
    chain: Chain, directories: Mapping[tuple[int, int], Path], cells: Sequence[CellResult]
) -> ChainResult:
    """Gather the measures of a chain.

    Args:
      chain: its checkpoints.
      directories: run directory of each comparison that has a report, by the places of both.
      cells: of all comparisons; each one's pair is the name of its run directory.

    Raises:
      InputError: a file of answers is broken.
    """
    ordered = sorted(chain.pairs, key=lambda places: (places[1] - places[0] > 1, places[1]))
    return ChainResult(
        chain=chain,
        compared=[
            Compared(
                before=places[0],
                after=places[1],
                changes=changes_of(directories[places], cells),
            )
            for places in ordered
            if places in directories
        ],
    )
