"""A training's snapshots, each against its start: `grid.run_grid` once a step.

Snapshots are often stored in fewer bits than the start. Answers are generated in one dtype, the
widest that a checkpoint of the training has, so that a step differs from another by its weights
and not by how its activations are rounded. The start answers every question once, for all steps.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp

from converters.errors import CheckpointError
from converters.load import checkpoint_dtype
from converters.sameness import same_model
from experiments import store
from experiments.errors import InputError
from experiments.grid import Outcome, lock_in, run_grid
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
    checkpoints = {step: Path(pair.rl) for step, pair in found.pairs.items()}
    same = {step for step, path in checkpoints.items() if _is_start(path, start)}
    for step in sorted(same):
        say(f"step {step}: {checkpoints[step]} is the start itself and is not compared with it")
    if same == checkpoints.keys():
        raise InputError(
            f"along: expected a snapshot that differs from the start {found.start}, found none"
        )
    dtypes = [checkpoint_dtype(start)]
    for path in checkpoints.values():
        with contextlib.suppress(CheckpointError):  # its step fails and says why
            dtypes.append(checkpoint_dtype(path))
    widest = functools.reduce(jnp.promote_types, map(jnp.dtype, dtypes)).name
    total, steps, source = Outcome(), {}, None
    for step, study in zip(found.pairs, studies, strict=True):
        if step in same:
            continue
        study = dataclasses.replace(
            study, workdir=study.workdir / f"along_{found.name}", answer_dtype=widest
        )
        if source is not None:
            _share_answers(source, study)
        outcome = run_grid([study], say)
        for ends in ("reports", "cells", "failures"):
            getattr(total, ends).extend(getattr(outcome, ends))
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


def _share_answers(done: Study, study: Study) -> None:
    """The start's answers of a finished step serve the next one, which asks what it asked."""
    for dataset in study.datasets:
        given, wanted = (one.directory / dataset / "responses_base.jsonl" for one in (done, study))
        with lock_in(study.directory, dataset):
            if given.exists() and not wanted.exists():
                store.write_bytes(wanted, given.read_bytes())
