"""A grid of cells, pairs x datasets x rules: `experiments.run` is a grid of one pair.

Tasks are independent and each is done once: a process takes those that no other process holds,
then waits for the held ones and finds their files. A killed process's locks are freed by the
operating system. A task that fails is reported at the end and does not stop the others.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import jax
from filelock import FileLock, Timeout

from converters.errors import CheckpointError
from experiments import manifest
from experiments.errors import InputError
from experiments.fidelity.cell_fidelity import fidelity_line, measure_fidelity
from experiments.fidelity.effects import choose, cut_cells
from experiments.fidelity.faithfulness import measure_faithfulness
from experiments.fidelity.logit_difference import score_logit_difference
from experiments.out_of_memory import end_of, is_out_of_memory
from experiments.report import report
from experiments.report.formats import health_text, without_text
from experiments.responses.rows import rows_of
from experiments.responses.shared_ids import compare_ids
from experiments.scoring.cells import Cell, cell_name, groups, is_scored, plan_cell, score_cells
from experiments.scoring.crossed import say_texts, score_crossed
from experiments.statistics import cell_metrics
from experiments.statistics.model_text import measure_model_text
from experiments.study.distributed import agreed
from experiments.study.opened import OpenStudy, Say, open_study
from experiments.study.pairs import SIDES, Side
from experiments.study.settings import Study

Task = TypeVar("Task")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a grid came to.

    Attributes:
      reports: path of each pair's report.
      cells: names of the cells measured.
      failures: (name of the task, its one-line error), in the order of the tasks.
    """

    reports: list[Path] = dataclasses.field(default_factory=list)
    cells: list[str] = dataclasses.field(default_factory=list)
    failures: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """What another grid came to, too."""
        for mine, others in zip(
            (self.reports, self.cells, self.failures),
            (other.reports, other.cells, other.failures),
            strict=True,
        ):
            mine.extend(others)

    @contextlib.contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Turns a bad input inside it into a failure of the task `name`. What the memory does not
        hold ends the pair, whose other tasks are as large."""
        try:
            yield
        except PairEnds:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                self.failures.append((name, str(end_of(error))))
                raise PairEnds from None
            # A full disk meets one of several processes alone; the others would wait for it.
            alone = isinstance(error, OSError) and jax.process_count() > 1
            if alone or not isinstance(error, InputError | CheckpointError | OSError):
                raise
            self.failures.append((name, str(error)))


class PairEnds(Exception):  # noqa: N818
    """No further task of this pair is begun; why stands among the failures."""


def run_grid(studies: list[Study], say: Say = print) -> Outcome:
    """Run or continue the studies of one or more pairs.

    Args:
      studies: one a pair.
      say: receives one line for each fact that a user should see.
    """
    outcome = Outcome()
    for study in studies:
        with contextlib.suppress(PairEnds), outcome.guard(study.pair.key):
            _run_pair(open_study(study, say), outcome, say)
    return outcome


def _run_pair(opened: OpenStudy, outcome: Outcome, say: Say) -> None:
    begin = time.perf_counter()
    study, pair = opened.study, opened.study.pair.key
    ids = compare_ids(opened, say)
    cells: list[Cell] = []

    def plan(dataset: str) -> None:
        with outcome.guard(f"{pair}, {dataset}"):
            rows = rows_of(opened, dataset, say, ids)
            for rule in study.rules:
                with outcome.guard(f"{pair}, {cell_name(dataset, rule)}"):
                    cells.append(plan_cell(opened, dataset, rule, rows, say, ids=ids))

    exact = study.fidelity != "off"

    def score(side: Side, group: list[Cell]) -> None:
        with outcome.guard(f"{pair}, {', '.join(cell.name for cell in group)}, {side}"):
            if side == SIDES[0]:
                say_texts(group, say)
            score_cells(opened, group, side)
            score_crossed(opened, group, side)
            if exact:
                choose(opened, group, say if side == SIDES[0] else _unsaid)
                cut_cells(opened, group, side)
                score_logit_difference(opened, group, side)

    def run_circuits(side: Side, cell: Cell) -> None:
        with outcome.guard(f"{pair}, {cell.name}, {side}: circuits"):
            measure_faithfulness(opened, cell, side)

    def scored(cell: Cell) -> bool:
        return all(is_scored(opened, cell, side) for side in SIDES)

    def lock(*names: str) -> Callable[[Cell], FileLock]:
        return lambda cell: _lock(study, cell.group, *names)

    with contextlib.suppress(PairEnds):  # what is finished is still reported
        _share(study.datasets, lambda dataset: _lock(study, dataset), plan)
        place = {dataset: number for number, dataset in enumerate(study.datasets)}
        cells.sort(key=lambda cell: (place[cell.dataset], study.rules.index(cell.rule)))
        for side in SIDES:  # one side's weights are loaded once for all cells
            locked = lock(side)
            _share(
                groups(cells),
                lambda group, locked=locked: locked(group[0]),
                functools.partial(score, side),
            )
        # The last side first: its weights are in memory still.
        for side in reversed(SIDES) if exact else ():
            both = [cell for cell in cells if agreed(scored(cell))]
            _share(both, lock("circuits"), functools.partial(run_circuits, side))
    # One process may be alone here, where its memory failed, so the others are not asked.
    done = [cell for cell in cells if scored(cell)] if jax.process_index() == 0 else []
    if done:
        with _lock(study, "report"):
            for cell in done:
                sides = cell_metrics.measure_cell(opened, cell)["sides"]
                measure_model_text(opened, cell)
                say(f"{cell.name}: {_health_line(sides, study.estimator)}")
                if (fidelity := measure_fidelity(opened, cell)) is not None:
                    say(f"{cell.name}: {fidelity_line(fidelity)}")
            manifest.write(opened, done, time.perf_counter() - begin)
            say(f"{pair}: drawing the report")
            outcome.reports.append(report.write_report(study.directory))
        outcome.cells.extend(f"{pair}, {cell.name}" for cell in done)


def _health_line(sides: dict[str, dict], estimator: str) -> str:
    if estimator != "eap":
        return f"column sums say nothing about {estimator} scores, which need not cancel out"
    health = ", ".join(f"{side} {health_text(sides[side]['health'])}" for side in SIDES)
    without = sides["base"].get("health_without")
    return f"column-sum health {health} (0 is perfect){without_text(without) if without else ''}"


def _unsaid(_: str) -> None:
    """A line that was said for the other side."""


def lock_in(directory: Path, *names: str) -> FileLock:
    """The lock of a task whose files lie in `directory`."""
    folder = directory / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ("-".join(names) + ".lock"))


def _lock(study: Study, *names: str) -> FileLock:
    return lock_in(study.directory, *names)


def _share(
    tasks: Iterable[Task], lock: Callable[[Task], FileLock], work: Callable[[Task], None]
) -> None:
    """Do every task under its lock: first those that are free, then those that others held."""
    held = []
    # Several processes that compute together take the tasks in one order.
    patience = 0 if jax.process_count() == 1 else -1
    for task in tasks:
        try:
            with lock(task).acquire(timeout=patience):
                work(task)
        except Timeout:
            held.append(task)
    for task in held:
        with lock(task):
            work(task)
