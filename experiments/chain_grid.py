"""A chain of checkpoints, each against its predecessor and against the first: `grid.run_grid` once a
comparison.

All checkpoints answer in one dtype, the widest that one of them has, so that they differ by their
weights and not by how activations are rounded. Each model answers every question once: its answers
serve every comparison that it is in.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from converters.errors import CheckpointError
from converters.sameness import same_model
from experiments.errors import InputError
from experiments.grid import Outcome, run_grid
from experiments.shared_answers import share_answers, widest_dtype
from experiments.study.chains import Chain
from experiments.study.hub import local_checkpoint
from experiments.study.opened import Say
from experiments.study.pairs import SIDES, Side
from experiments.study.settings import Study


def chain_directory(workdir: Path, chain: Chain) -> Path:
    """Where a chain's results go."""
    return workdir / f"chain_{chain.name}"


def run_chain(
    chain: Chain, studies: Sequence[Study], say: Say = print
) -> tuple[Outcome, Mapping[tuple[int, int], Path]]:
    """Run or continue every comparison of a chain.

    Args:
      chain: the checkpoints.
      studies: one a comparison, in the order of `chain.pairs`.
      say: receives one line for each fact that a user should see.

    Returns:
      what all comparisons came to, and the run directory of each that has a report, by the places of
      its checkpoints.

    Raises:
      InputError, CheckpointError: a checkpoint cannot be found, or two that are compared are one model.
    """
    paths = [
        local_checkpoint(
            name,
            label=f"chain: {label}",
            advice="give a local directory instead: --chain=DIR,DIR,...",
        )
        for name, label in zip(chain.checkpoints, chain.labels, strict=True)
    ]
    _check_different(chain, paths)
    widest = widest_dtype(paths)
    total, directories = Outcome(), {}
    answered: dict[int, tuple[Study, Side]] = {}
    for places, study in zip(chain.pairs, studies, strict=True):
        study = dataclasses.replace(
            study, workdir=chain_directory(study.workdir, chain), answer_dtype=widest
        )
        for place, side in zip(places, SIDES, strict=True):
            if place in answered:
                share_answers(*answered[place], study, side)
        outcome = run_grid([study], say)
        total.add(outcome)
        if outcome.reports:
            directories[places] = outcome.reports[0].parent
        if not outcome.failures:
            for place, side in zip(places, SIDES, strict=True):
                answered.setdefault(place, (study, side))
    return total, directories


def _check_different(chain: Chain, paths: Sequence[Path]) -> None:
    """Two checkpoints of the same weights are one checkpoint twice."""
    for before, after in chain.pairs:
        with contextlib.suppress(CheckpointError):  # its comparison fails and says why
            if same_model(paths[before], paths[after]):
                one, other = (chain.checkpoints[place] for place in (before, after))
                raise InputError(
                    f"chain: expected each checkpoint once, found the same weights twice: {one} and "
                    f"{other}"
                )
