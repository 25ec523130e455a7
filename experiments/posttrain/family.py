r"""Train a family of `posttrain.families`: one SFT start and arms of equal budget, with their cards.

    python -m experiments.posttrain.family --output=DIR --seed=0           start and all arms
    python -m experiments.posttrain.family --output=DIR --seed=1 \
        --start=experiments/checkpoints/tiny_start
    python -m experiments.posttrain.family --output=DIR --publish=experiments/checkpoints
    python -m experiments.posttrain.family --family=smollm2 --output=DIR --arms=smollm2_grpo,smollm2_sft

Each step is resumable. --publish copies the models of a finished family with their cards and
intermediate snapshots (bfloat16, for the curves along training); with --arms the start and those. The
tiny family takes 15 minutes on two cores.
"""

from pathlib import Path
from typing import NoReturn

from absl import flags

from experiments.binary import run_main
from experiments.errors import InputError
from experiments.posttrain import train
from experiments.posttrain.families import FAMILIES, Family
from experiments.posttrain.shipped import finished, publish
from experiments.posttrain.task import TASKS
from experiments.study.hub import local_checkpoint


def train_family(
    family: Family, output: Path, seed: int, start: Path | None, arms: list[str]
) -> None:
    """Train the start (unless given) and the arms, each in its own folder of `output`.

    The arms begin with the start as it is shipped, so that their cards' commands repeat them.
    """
    if start is None:
        base = None if family.base is None else local_checkpoint(family.base, label="base")
        start = _member(family, family.start_name, output, seed, base)
    for name in arms:
        _member(family, name, output, seed, start)


def _member(family: Family, name: str, output: Path, seed: int, start: Path | None) -> Path:
    train.train(
        family.recipe(name, seed),
        start,
        output / name,
        family.checkpoint_every(name),
        TASKS[family.task],
    )
    return finished(family, output / name)


def main(_) -> None:
    output, family = Path(flags.FLAGS.output), FAMILIES[flags.FLAGS.family]
    arms = list(family.arms) if flags.FLAGS.arms is None else flags.FLAGS.arms
    unknown = sorted(set(arms) - set(family.arms))
    if unknown:
        known = ", ".join(family.arms)
        raise InputError(f"arms: expected some of {known}, found {', '.join(unknown)}")
    if flags.FLAGS.publish:
        publish(family, output, Path(flags.FLAGS.publish), [family.start_name, *arms])
        print(f"published: {flags.FLAGS.publish}")
        return
    start = flags.FLAGS.start
    if start is not None:
        start = local_checkpoint(start, label="start", advice="pass a local one with --start=DIR")
    train_family(family, output, flags.FLAGS.seed, start, arms)
    print(f"family: {output}")


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_enum("family", "tiny", list(FAMILIES), "Which family.")
    flags.DEFINE_string("output", None, "Directory of the family's trainings.", required=True)
    flags.DEFINE_integer("seed", 0, "Seed of the family.")
    flags.DEFINE_string("start", None, "SFT start; none: train it.")
    flags.DEFINE_list("arms", None, "Which arms to train or publish; none: all.")
    flags.DEFINE_string("publish", None, "Copy the finished family to this directory instead.")


def run() -> NoReturn:
    """The program."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
