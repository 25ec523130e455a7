"""Snapshots of one training, each a pair with the model that the training began with.

DIR/snapshots/00008, 00016, ...     checkpoints; the number at a name's end is the step
"""

import dataclasses
import re
from pathlib import Path

from experiments.errors import InputError
from experiments.study.pairs import CHAT, PAIRS, Pair, check_plain_name, pair_of

FOLDER = "snapshots"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshots:
    """A training's steps.

    Attributes:
      name: of the training, a plain name.
      start: the checkpoint that it began with.
      pairs: start and snapshot, by step, steps rising; step 0 is the start and is not among them.
    """

    name: str
    start: str
    pairs: dict[int, Pair]


def find_snapshots(
    along: str,
    start: str | None = None,
    *,
    prompt: str | None = None,
    max_new_tokens: int | None = None,
) -> Snapshots:
    """The snapshots of an embedded model or of a directory.

    Args:
      along: key of an embedded pair, such as tiny_grpo, or a directory with a folder `snapshots`.
      start: checkpoint of before the training; None: the embedded pair's base, else step 0.
      prompt, max_new_tokens: see `Pair`; None: those of the embedded pair, or of checkpoints of the
        user's own.

    Raises:
      InputError: there are no such snapshots, or a name does not say its step.
    """
    known = PAIRS.get(along)
    folder = Path(known.rl if known is not None else along) / FOLDER
    if not along or not folder.is_dir():
        raise InputError(
            f"along: expected {', '.join(_shipped())} or a directory with a folder {FOLDER}/ of "
            f"checkpoints named by their step, such as {FOLDER}/00008, found {along!r}"
            + (f", which has no {folder}" if along else "")
        )
    if prompt is not None and prompt != CHAT and "{question}" not in prompt:
        raise InputError(f"prompt: expected {CHAT} or a text with {{question}}, found {prompt!r}")
    steps = _steps(folder)
    first = steps.pop(0, None)  # nothing has been trained by then: it is the start
    if start is None:
        start = known.base if known is not None else None if first is None else str(first)
    if start is None:
        raise InputError(
            f"start: expected --start=DIR, the checkpoint that {along} was trained from, or a "
            f"snapshot of step 0 in {folder}, found neither"
        )
    if not steps:
        raise InputError(
            f"{folder}: expected a folder for each snapshot, named by its step, such as 00008, found "
            f"{'only step 0' if first else 'none'}"
        )
    name = along if known is not None else Path(along).resolve().name
    check_plain_name("along", name)
    changes = {"prompt": prompt, "max_new_tokens": max_new_tokens}
    changes = {field: value for field, value in changes.items() if value is not None}
    pairs = {}
    for step in sorted(steps):
        key, rl = f"{name}_step{step}", str(steps[step])
        made = pair_of(start, rl, key)
        if known is not None:
            made = dataclasses.replace(known, key=key, series=key, base=start, rl=rl)
        pairs[step] = dataclasses.replace(made, **changes)
    return Snapshots(name=name, start=start, pairs=pairs)


def _shipped() -> list[str]:
    """The embedded pairs whose trainings have snapshots here."""
    own = {key: Path(pair.rl) / FOLDER for key, pair in PAIRS.items()}
    return [key for key, folder in own.items() if folder.is_absolute() and folder.is_dir()]


def _steps(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder by the number at their name's end."""
    steps: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        number = re.search(r"([0-9]+)$", path.name)
        if number is None:
            raise InputError(
                f"{path}: expected a name that ends with the step, such as 00008, found {path.name!r}"
            )
        step = int(number[1])
        if step in steps:
            raise InputError(
                f"{folder}: expected each step once, found step {step} twice: {steps[step].name} and "
                f"{path.name}"
            )
        steps[step] = path
    return steps


def folder_above(checkpoint: Path) -> Path | None:
    """DIR of the snapshot DIR/snapshots/00008, whose tokenizer and stop tokens are the snapshot's
    too unless it has its own; None for every other checkpoint."""
    place = checkpoint.absolute()
    return place.parent.parent if place.parent.name == FOLDER else None
