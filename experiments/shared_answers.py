"""Answers that several comparisons share: one precision for all models, each model asked once."""

import contextlib
import functools
from collections.abc import Iterable
from pathlib import Path

import jax.numpy as jnp

from converters.errors import CheckpointError
from converters.load import checkpoint_dtype
from experiments import store
from experiments.grid import lock_in
from experiments.study.pairs import Side
from experiments.study.settings import Study


def widest_dtype(checkpoints: Iterable[Path]) -> str | None:
    """The narrowest dtype that holds the numbers of all checkpoints; of those that cannot be read
    nothing is known, and None if no one can."""
    dtypes = []
    for path in checkpoints:
        with contextlib.suppress(CheckpointError):  # its comparison fails and says why
            dtypes.append(jnp.dtype(checkpoint_dtype(path)))
    return functools.reduce(jnp.promote_types, dtypes).name if dtypes else None


def share_answers(done: Study, given: Side, study: Study, wanted: Side) -> None:
    """Give a study one model's answers from a finished study that asked it the same questions."""
    for dataset in study.datasets:
        source = done.directory / dataset / f"responses_{given}.jsonl"
        place = study.directory / dataset / f"responses_{wanted}.jsonl"
        with lock_in(study.directory, dataset):
            if source.exists() and not place.exists():
                store.write_bytes(place, source.read_bytes())
