r"""Train the shipped family: one SFT start and five arms of equal budget, with their cards.

    python -m experiments.posttrain.family --output=DIR --seed=0           start and all arms
    python -m experiments.posttrain.family --output=DIR --seed=1 \
        --start=experiments/checkpoints/tiny_start
    python -m experiments.posttrain.family --output=DIR --publish=experiments/checkpoints

Each step is resumable. --publish copies the models of a finished family with their cards and
intermediate snapshots (bfloat16, for the curves along training).
"""

import json
import shutil
import time
from pathlib import Path
from typing import NoReturn

from absl import flags

from converters.checkpoint import load_tree
from experiments.arithmetic.tokenizer import build_tokenizer
from experiments.binary import run_main
from experiments.errors import InputError
from experiments.posttrain import train
from experiments.posttrain.algorithms import initial_state
from experiments.posttrain.evaluate import evaluate
from experiments.posttrain.recipe import Recipe

START_ROUNDS = 600
ARM_ROUNDS = 64
CHECKPOINT_EVERY = 8
SNAPSHOTS_OF = ("tiny_grpo", "tiny_sft")
# What differs between the arms; rounds, updates and batch are the same for all.
ARMS = {
    "tiny_grpo": {"algorithm": "grpo", "learning_rate": 3e-4},
    "tiny_ppo": {"algorithm": "ppo", "learning_rate": 3e-4},
    "tiny_dpo": {"algorithm": "dpo", "learning_rate": 1e-4, "beta": 0.3},
    "tiny_online_dpo": {
        "algorithm": "online_dpo", "learning_rate": 1e-4, "beta": 0.3, "pool_prompts": 256,
        "pool_rounds": CHECKPOINT_EVERY,
    },
    "tiny_sft": {"algorithm": "sft", "learning_rate": 3e-4},
}  # fmt: skip


def start_recipe(seed: int) -> Recipe:
    """The SFT that every arm starts from."""
    return Recipe(algorithm="sft", seed=seed, rounds=START_ROUNDS, learning_rate=4e-3, warmup=100)


def arm_recipe(name: str, seed: int) -> Recipe:
    """One arm. Its seed is shifted so that its demonstrations are not the start's again."""
    return Recipe(seed=1000 + seed, rounds=ARM_ROUNDS, **ARMS[name])


def train_family(output: Path, seed: int, start: Path | None, arms: list[str]) -> None:
    """Train the start (unless given) and the arms, each in its own folder of `output`."""
    if start is None:
        start = _timed("tiny_start", start_recipe(seed), None, output, START_ROUNDS // 6)
    for name in arms:
        _timed(name, arm_recipe(name, seed), start, output, CHECKPOINT_EVERY)


def _timed(name: str, recipe: Recipe, start: Path | None, output: Path, every: int) -> Path:
    begin = time.perf_counter()
    model = train.train(recipe, start, output / name, every)
    figures = output / name / "figures.json"
    if not figures.exists():
        seconds = round(time.perf_counter() - begin, 1)
        figures.write_text(json.dumps({"seconds": seconds} | evaluate(model), indent=2) + "\n")
    return model


def publish(output: Path, target: Path) -> None:
    """Copy a finished family's models to `target`, each with its card and snapshots.

    Raises:
      InputError: a member is not finished.
    """
    names = ["tiny_start", *ARMS]
    for name in names:
        if not (output / name / "figures.json").exists():
            raise InputError(f"{output / name}: expected a finished training, found none")
    for name in names:
        directory = target / name
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(output / name / "model", directory)
        (directory / "README.md").write_text(_card(name, output))
        shutil.copyfile(output / name / "log.jsonl", directory / "log.jsonl")
        shutil.copyfile(output / name / "figures.json", directory / "figures.json")
        if name in SNAPSHOTS_OF:
            _snapshots(name, output, directory / "snapshots")


def _snapshots(name: str, output: Path, target: Path) -> None:
    """The policy at each checkpoint along training, in bfloat16."""
    settings = json.loads((output / name / "recipe.json").read_text())
    settings = {name: settings[name] for name in Recipe.__dataclass_fields__}
    recipe, config = Recipe(**settings), train.family_config(build_tokenizer())
    start = train.load_checkpoint(output / "tiny_start" / "model", dtype="float32")
    like = initial_state(recipe, config, start.params)
    for saved in sorted((output / name / "checkpoints").iterdir()):
        params = load_tree(saved, like)["params"]
        train.save_hf(target / saved.name, config, params, dtype="bfloat16")


def _card(name: str, output: Path) -> str:
    """The model card: what it is, how it was made, what it can do."""
    settings = json.loads((output / name / "recipe.json").read_text())
    figures = json.loads((output / name / "figures.json").read_text())
    lines = [json.loads(line) for line in (output / name / "log.jsonl").read_text().splitlines()]
    defaults = {field: spec.default for field, spec in Recipe.__dataclass_fields__.items()}
    flags_text = " ".join(
        f"--{key}={value}"
        for key, value in settings.items()
        if key in defaults and value != defaults[key]
    )
    start, every = "", START_ROUNDS // 6
    if settings["start_sha256"] is not None:
        start, every = "--start=experiments/checkpoints/tiny_start ", CHECKPOINT_EVERY
    curve = [line for line in lines if "accuracy" in line]
    rows = "\n".join(
        f"| {line['round']} | {line['accuracy']:.1%} | {line['worked']:.0%} | "
        f"{line['greedy_length']:.1f} | {line.get('reward', float('nan')):.3f} |"
        for line in curve
    ).replace("nan", "")
    kinds = ", ".join(f"{k} {v:.1%}" for k, v in figures["by_difficulty"].items())
    return f"""# {name}

A 4-layer Llama of 0.2 million parameters that answers arithmetic word chains. Part of a family
post-trained from one SFT start (`tiny_start`) with equal budgets, made by this project.

Algorithm: {settings["algorithm"]}, seed {settings["seed"]}, {settings["rounds"]} rounds of
{settings["updates"]} optimiser steps on {settings["batch"]} responses each; trained on 2 CPU cores in
{figures["seconds"] / 60:.1f} minutes.

    python -m experiments.posttrain.train {flags_text} \\
        --checkpoint_every={every} {start}--output=DIR

Accuracy on {figures["questions"]} held-out questions, greedy: **{figures["accuracy"]:.1%}** ({kinds});
{figures["worked"]:.0%} of the answers are worked, {figures["length"]:.1f} tokens on average.

    python -m experiments.posttrain.evaluate --checkpoint=experiments/checkpoints/{name}

Along training, on 192 development questions (the reward is the mean over that round's samples):

| round | accuracy | worked answers | mean tokens | reward |
| --- | --- | --- | --- | --- |
{rows}
"""


def main(_) -> None:
    output = Path(flags.FLAGS.output)
    if flags.FLAGS.publish:
        publish(output, Path(flags.FLAGS.publish))
        print(f"published: {flags.FLAGS.publish}")
        return
    unknown = sorted(set(flags.FLAGS.arms) - set(ARMS))
    if unknown:
        raise InputError(f"arms: expected some of {', '.join(ARMS)}, found {', '.join(unknown)}")
    start = Path(flags.FLAGS.start) if flags.FLAGS.start else None
    train_family(output, flags.FLAGS.seed, start, flags.FLAGS.arms)
    print(f"family: {output}")


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_string("output", None, "Directory of the family's trainings.", required=True)
    flags.DEFINE_integer("seed", 0, "Seed of the family.")
    flags.DEFINE_string("start", None, "SFT start; none: train it.")
    flags.DEFINE_list("arms", list(ARMS), "Which arms to train.")
    flags.DEFINE_string("publish", None, "Copy the finished family to this directory instead.")


def run() -> NoReturn:
    """The program."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
