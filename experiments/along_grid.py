"""A training's snapshots, each against its start: `grid.run_grid` once a step.

Snapshots are often stored in fewer bits than the start. Answers are generated in one dtype, the
widest that a checkpoint of the training has, so that a step differs from another by its weights
and not by how its activations are rounded. The start answers every question once, for all steps.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from converters.errors import CheckpointError
from converters.load import checkpoint_dtype
from converters.sameness import same_model
from experiments.errors import InputError
from experiments.grid import Outcome, run_grid
from experiments.shared_answers import share_answers, widest_dtype
from experiments.study.hub import local_checkpoint
from experiments.study.opened import Say
from experiments.study.settings import Study
from experiments.study.snapshots import Snapshots


def run_along(
    found: Snapshots, studies: Sequence[Study], say: Say = print
) -> tuple[Outcome, Mapping[Path, int]]:
    """Run or continue the study of every snapshot.

    Args:
      found: the training.
      studies: one a snapshot, in the order of `found.pairs`.
      say: receives one line for each fact that a user should see.

    Returns:
      what all steps came to, and the step of each run directory that has a report.

    Raises:
      InputError, CheckpointError: the start cannot be read, or every snapshot is the start itself.
    """
    start = local_checkpoint(found.start, label="start", advice="pass a local one with --start=DIR")
    checkpoint_dtype(start)  # every step would fail if it cannot be read
    checkpoints = {step: Path(pair.rl) for step, pair in found.pairs.items()}
    same = {step for step, path in checkpoints.items() if _is_start(path, start)}
    for step in sorted(same):
        say(f"step {step}: {checkpoints[step]} is the start itself and is not compared with it")
    if same == checkpoints.keys():
        raise InputError(
            f"along: expected a snapshot that differs from the start {found.start}, found none"
        )
    widest = widest_dtype([start, *checkpoints.values()])
    total, steps, source = Outcome(), {}, None
    for step, study in zip(found.pairs, studies, strict=True):
        if step in same:
            continue
        study = dataclasses.replace(
            study, workdir=study.workdir / f"along_{found.name}", answer_dtype=widest
        )
        if source is not None:
            share_answers(source, "base", study, "base")
        outcome = run_grid([study], say)
        total.add(outcome)
        if outcome.reports:
            steps[outcome.reports[0].parent] = step
        if source is None and not outcome.failures:
            source = study
    return total, steps


def _is_start(snapshot: Path, start: Path) -> bool:
    try:
        return same_model(snapshot, start)
    except CheckpointError:  # its step fails and says why
        return False
