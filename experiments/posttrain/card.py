"""The model card of a family's member: what it is, how it was made, and how it learnt."""

import math
import statistics
from pathlib import Path
from typing import Any

from experiments import store
from experiments.jsonl import read_objects
from experiments.posttrain.families import Family
from experiments.posttrain.recipe import Recipe

# Columns of the curve that are means over the rounds since the row before, where a round has them.
_OF_ROUNDS = ("reward", "kl", "entropy")
_SHIPPED = "experiments/checkpoints"


def card(family: Family, member: str, training: Path) -> str:
    """A card in Markdown.

    Args:
      family: whose member it is.
      member: its name.
      training: the folder of its training, with recipe.json, log.jsonl and figures.json.
    """
    settings = {"task": family.task} | store.read_json(training / "recipe.json")
    figures = store.read_json(training / "figures.json")
    log = [line for _, line in read_objects(training / "log.jsonl", "rounds of a training")]
    kinds = "\n".join(
        f"| {kind} | {share:.1%} | {_interval(figures['intervals'][kind])} |"
        for kind, share in figures["by_difficulty"].items()
    )
    share, within = f"{figures['accuracy']:.1%}", _interval(figures["intervals"]["all"])
    machine = f" on {figures['machine']}" if "machine" in figures else ""
    return f"""# {member}

{family.about} Part of a family post-trained from one SFT start (`{family.start_name}`) with equal
budgets, made by this project.

Algorithm: {settings["algorithm"]}, seed {settings["seed"]}, {settings["rounds"]} rounds of
{settings["updates"]} optimiser steps on {settings["batch"]} responses each; the rounds took
{_duration(figures["seconds"])}{machine}.

    python -m experiments.posttrain.train {_flags_of(settings)} \\
        --checkpoint_every={family.checkpoint_every(member)} {_start_of(family, member)}--output=DIR

Accuracy on {figures["questions"]} held-out questions, greedy: **{share}** (95 % interval {within});
{figures["worked"]:.0%} of the answers are worked, {figures["length"]:.1f} tokens on average.

| difficulty | accuracy | 95 % interval |
| --- | --- | --- |
{kinds}

    python -m experiments.posttrain.evaluate --task={settings["task"]} \\
        --checkpoint={_SHIPPED}/{member}

Along training: greedy on development questions; reward, KL to the start (nats a token) and entropy
(nats) are means over the sampled or shown answers of the rounds since the row above.

| round | accuracy | worked answers | mean tokens | reward | KL | entropy |
| --- | --- | --- | --- | --- | --- | --- |
{_curve(log)}
"""


def _flags_of(settings: dict[str, Any]) -> str:
    """The settings that are not the program's defaults, as flags."""
    defaults = {name: field.default for name, field in Recipe.__dataclass_fields__.items()}
    return " ".join(
        f"--{name}={settings[name]}"
        for name, default in (defaults | {"task": "arithmetic"}).items()
        if settings.get(name, default) != default
    )


def _start_of(family: Family, member: str) -> str:
    if member != family.start_name:
        return f"--start={_SHIPPED}/{family.start_name} "
    return "" if family.base is None else f"--start={family.base} "


def _curve(log: list[dict[str, Any]]) -> str:
    """Lines of the table: rounds at which the development questions were asked."""
    lines, since = [], []
    for line in log:
        since.append(line)
        if "accuracy" not in line:
            continue
        means = [_mean([one[name] for one in since if name in one]) for name in _OF_ROUNDS]
        lines.append(
            f"| {line['round']} | {line['accuracy']:.1%} | {line['worked']:.0%} | "
            f"{line['greedy_length']:.1f} | {' | '.join(means)} |"
        )
        since = []
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    """Empty where there is none: a start's first row, an algorithm without rewards."""
    known = [value for value in values if math.isfinite(value)]
    return f"{statistics.fmean(known):.3f}" if known else ""


def _interval(shares: list[float]) -> str:
    return f"{shares[0]:.1%} to {shares[1]:.1%}"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
