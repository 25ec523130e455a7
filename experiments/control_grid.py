"""Every pair of a sweep against the control, a pair that was trained otherwise from the same start.

Comes after `grid.run_grid`, whose answers it uses; its own files lie in WORKDIR/against_<control>.
"""

import contextlib
import dataclasses
from collections.abc import Sequence

from experiments.errors import InputError
from experiments.grid import Outcome, PairEnds, lock_in
from experiments.statistics.against_control import AgainstControl, measure_against_control
from experiments.study.opened import Say
from experiments.study.pairs import Pair
from experiments.study.settings import Study


def with_control(pairs: Sequence[Pair], control: Pair) -> list[Pair]:
    """The pairs with the control, each once.

    Raises:
      InputError: no other pair starts from the control's base.
    """
    if not _arms(pairs, control):
        raise InputError(
            f"control: expected a pair that starts from the checkpoint of some other pair, found "
            f"{control.key}, which starts from {control.base}; name arms of that start in --pairs"
        )
    return list({pair.key: pair for pair in (*pairs, control)}.values())


def run_against_control(
    studies: Sequence[Study], control: Pair, outcome: Outcome, say: Say = print
) -> list[AgainstControl]:
    """Compare every other study's arm with the control, where both start from one checkpoint.

    Args:
      studies: of the grid, the control's among them.
      control: which pair it is.
      outcome: of the grid; what fails here is added to it.
      say: receives one line for each fact that a user should see.

    Returns:
      one entry an arm, dataset and rule. An arm or dataset that has no rows, whose failure the grid
      has named, is left out.
    """
    by_key = {study.pair.key: study for study in studies}
    arms = {arm.key for arm in _arms([study.pair for study in studies], control)}
    found: list[AgainstControl] = []
    for key, study in by_key.items():
        if key == control.key:
            continue
        if key not in arms:
            say(f"{key}: not compared with {control.key}: another start or prompt")
            continue
        datasets = tuple(
            name
            for name in study.datasets
            if all(_has_rows(one, name) for one in (study, by_key[control.key]))
        )
        name = f"{key} against {control.key}"
        with contextlib.suppress(PairEnds), outcome.guard(name):
            if datasets:
                with lock_in(study.workdir, f"against_{control.key}", key):
                    arm = dataclasses.replace(study, datasets=datasets)
                    found += measure_against_control(arm, by_key[control.key], say)
    return found


def _arms(pairs: Sequence[Pair], control: Pair) -> list[Pair]:
    """Pairs that start where the control does, with the same prompt."""
    return [
        pair
        for pair in pairs
        if pair.key != control.key and (pair.base, pair.prompt) == (control.base, control.prompt)
    ]


def _has_rows(study: Study, dataset: str) -> bool:
    return (study.directory / dataset / "all_correct.jsonl").exists()
