"""An arm against the control: what its training changed that other training from the same start did not.

A change from start to arm is partly a change of any further training. The control, another training
of the same start, has that part too, so what belongs to the arm is (arm - start) - (control - start).
On the same questions the start's value is the same in both and cancels out: it is arm - control, a
comparison of two models (`compare`, `views`) with the control as base and the arm as rl. Questions
are those that all three models answered right (`scoring.common_rows`); both models' answers are
counted to one length. Nothing here says how another seed of either training would have ended.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax

from experiments import store
from experiments.fidelity.cell_fidelity import measure_fidelity
from experiments.fidelity.effects import choose, cut_cells
from experiments.fidelity.logit_difference import score_logit_difference
from experiments.responses.published_format import read_rows
from experiments.responses.shared_ids import compare_ids
from experiments.scoring.cells import Cell, groups, plan_cell, score_cells
from experiments.scoring.common_rows import common_rows
from experiments.statistics.cell_metrics import side_data
from experiments.statistics.compare import compare
from experiments.statistics.trend import Trend
from experiments.statistics.views import VIEWS, View, ViewName, views_of
from experiments.study.opened import OpenStudy, Say, open_study
from experiments.study.pairs import SIDES, Pair
from experiments.study.rule import Rule
from experiments.study.settings import Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgainstControl:
    """One arm against the control on one dataset and rule.

    Attributes:
      arm, control: keys of the two pairs, whose base is the same start.
      dataset, rule: the cell.
      samples: questions that count.
      cut: answer tokens counted of each.
      views: every metric in every view; base is the control and rl the arm.
    """

    arm: str
    control: str
    dataset: str
    rule: Rule
    samples: int
    cut: int
    views: Sequence[View]


def control_study(arm: Study, control: Pair) -> Study:
    """The study of the arm (rl) against the control (base): in `against_<control>` of the arm's
    working directory, with the arm's settings."""
    pair = dataclasses.replace(
        arm.pair, base=control.rl, method=f"{arm.pair.method} against {control.method}"
    )
    directory = arm.workdir / f"against_{control.key}"
    return dataclasses.replace(
        arm, pair=pair, workdir=directory, responses=None, imported=None, command=""
    )


def measure_against_control(arm: Study, control: Study, say: Say) -> list[AgainstControl]:
    """Score, cut and compare an arm and the control, cell by cell; finished files are not made again.

    Args:
      arm, control: measured studies of the same start, datasets and rules.
      say: receives one line for each fact that a user should see.

    Returns:
      one entry a dataset and rule; nothing on a process that is not the first of several.

    Raises:
      InputError: a file is missing or broken, no question is common, or other settings were used in
        the same directory.
    """
    opened = open_study(control_study(arm, control.pair), say)
    ids = compare_ids(opened, say)
    cells = []
    for dataset in arm.datasets:
        rows = [
            read_rows(study.directory / dataset / "all_correct.jsonl") for study in (arm, control)
        ]
        for rule in arm.rules:
            common = common_rows(*rows, rule)
            cells.append(plan_cell(opened, dataset, rule, common, say, ids=ids))
    measure_sides(opened, cells, say)
    if jax.process_index() != 0:
        return []
    return [_measured(opened, cell, control.pair.key) for cell in cells]


def measure_sides(opened: OpenStudy, cells: list[Cell], say: Say) -> None:
    """Scores, scores of the logit difference and, unless the study leaves them out, exact effects of
    both sides.

    Args:
      opened: the study; no other process works in its directory.
      cells: its cells.
      say: receives one line for each fact that a user should see.
    """
    exact = opened.study.fidelity != "off"
    for side in SIDES:
        for group in groups(cells):
            score_cells(opened, group, side)
            if exact:
                if side == SIDES[0]:
                    choose(opened, group, say)
                cut_cells(opened, group, side)
                score_logit_difference(opened, group, side)


def _measured(opened: OpenStudy, cell: Cell, control: str) -> AgainstControl:
    base, rl = (side_data(opened, cell, side) for side in SIDES)
    measure_fidelity(opened, cell)
    return AgainstControl(
        arm=opened.study.pair.key,
        control=control,
        dataset=cell.dataset,
        rule=cell.rule,
        samples=len(cell.selection.rows),
        cut=cell.selection.cut,
        views=views_of(base, rl, compare(base.scores_nWR, rl.scores_nWR)),
    )


def differs(
    found: Iterable[AgainstControl], metric: str, views: Sequence[ViewName] = VIEWS
) -> Trend:
    """How an arm's metric differs from the control's in all of some views of all cells.

    Args:
      found: cells of one arm.
      metric: its key.
      views: which; those that a cell lacks are left out.

    Returns:
      `rises`, above the control, or `falls`, below it; `unclear` where it is not clear somewhere or
      the cells or views contradict each other.
    """
    seen = {
        view.trend
        for cell in found
        for view in cell.views
        if view.metric == metric and view.view in views
    }
    return next(iter(seen)) if len(seen) == 1 else "unclear"


def write_against_control(directory: Path, found: Sequence[AgainstControl]) -> None:
    """Write arm_control.json: one entry a cell, its views with intervals in full precision."""
    store.write_json(directory / "arm_control.json", [dataclasses.asdict(one) for one in found])
