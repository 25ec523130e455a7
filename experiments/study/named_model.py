"""A model that a user names in Python: found and loaded, with what programs print as warnings."""

import contextlib
import warnings
from pathlib import Path

from converters.errors import CheckpointWarning
from converters.load import Checkpoint, checkpoint_notes, load_checkpoint
from experiments.errors import InputError
from experiments.study.hub import local_checkpoint
from experiments.study.numerics import use_numerics
from experiments.study.pairs import PAIRS, SIDES


def load_named(name: str | Path, dtype: str, adapter: str | Path | None) -> tuple[Path, Checkpoint]:
    """Where a model lies, and the model; arguments and errors as `api.load`.

    Warns:
      CheckpointWarning: at the caller's caller, each line once: keys of config.json that are not known,
        an adapter that is merged in, prefixes that were removed, tensors that are left out.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype: expected float32 or bfloat16, found {dtype!r}")
    pair, _, side = str(name).partition(":")
    place = str(name)
    if pair in PAIRS and not Path(name).is_dir():
        if side not in SIDES:
            raise InputError(f"{name}: expected {pair}:base or {pair}:rl")
        place = PAIRS[pair].base if side == "base" else PAIRS[pair].rl
    said: dict[str, None] = {}
    with _collected(said):
        directory = local_checkpoint(str(adapter or place), base=place if adapter else None)
        use_numerics(dtype)
        checkpoint = load_checkpoint(directory, dtype=dtype)
        notes = checkpoint_notes(directory)
    said |= dict.fromkeys(f"{directory}: {note}" for note in notes)
    for line in said:
        warnings.warn(line, CheckpointWarning, stacklevel=3)
    return directory, checkpoint


@contextlib.contextmanager
def _collected(said: dict[str, None]):
    """Keep the lines of `CheckpointWarning`s, each once: a config.json is read several times. Other
    warnings go on as they came."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CheckpointWarning)
        yield
    for one in caught:
        if issubclass(one.category, CheckpointWarning):
            said[str(one.message)] = None
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
