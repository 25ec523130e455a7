"""Snapshots of one training, each a pair with the model that the training began with.

DIR/snapshots/00008, 00016, ...     checkpoints; the number at a name's end is the step
"""

import dataclasses
import re
from pathlib import Path

from experiments.errors import InputError
from experiments.study.pairs import CHAT, PAIRS, Pair, check_plain_name, pair_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshots:
    """A training's steps.

    Attributes:
      name: of the training, a plain name.
      pairs: start and snapshot, by step, steps rising.
    """

    name: str
    pairs: dict[int, Pair]


def find_snapshots(along: str, start: str | None = None, prompt: str | None = None) -> Snapshots:
    """The snapshots of an embedded model or of a directory.

    Args:
      along: key of an embedded pair, such as tiny_grpo, or a directory with a folder `snapshots`.
      start: checkpoint of before the training; None: the embedded pair's base, else step 0.
      prompt: see `Pair`; None: that of the embedded pair, or of checkpoints of the user's own.

    Raises:
      InputError: there are no such snapshots, or a name does not say its step.
    """
    known = PAIRS.get(along)
    folder = Path(known.rl if known is not None else along) / "snapshots"
    if not folder.is_dir():
        raise InputError(
            f"along: {along}: expected a model that comes with snapshots (tiny_grpo, tiny_sft) or a "
            f"directory with a folder snapshots/ of checkpoints named by their step, found no {folder}"
        )
    steps: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        number = re.search(r"(\d+)$", path.name)
        if number is None:
            raise InputError(
                f"{path}: expected a name that ends with the step, such as 00008, found {path.name!r}"
            )
        step = int(number[1])
        if step in steps:
            raise InputError(
                f"{folder}: expected each step once, found {steps[step].name}, {path.name}"
            )
        steps[step] = path
    if start is None:
        start = known.base if known is not None else str(steps.pop(0)) if 0 in steps else None
    if start is None:
        raise InputError(
            f"start: expected --start=DIR, the checkpoint that {along} was trained from, or a "
            f"snapshot of step 0, found neither"
        )
    if not steps:
        raise InputError(f"{folder}: expected at least one snapshot after the start, found none")
    if prompt is not None and prompt != CHAT and "{question}" not in prompt:
        raise InputError(f"prompt: expected {CHAT} or a text with {{question}}, found {prompt!r}")
    name = along if known is not None else Path(along).resolve().name
    check_plain_name("along", name)
    pairs = {}
    for step in sorted(steps):
        key, rl = f"{name}_step{step}", str(steps[step])
        made = pair_of(start, rl, key)
        if known is not None:
            made = dataclasses.replace(known, key=key, series=key, base=start, rl=rl)
        changes = {} if prompt is None else {"prompt": prompt}
        pairs[step] = dataclasses.replace(made, **changes)
    return Snapshots(name=name, pairs=pairs)
