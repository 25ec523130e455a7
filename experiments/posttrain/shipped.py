"""A finished training as it is shipped: model, card, figures, log, and some snapshots.

Low-rank factors are shipped as a LoRA folder in bfloat16 that records the family's base by its name. The
figures are measured on what is shipped, not on the float32 factors that it is rounded from.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax

from converters.adapter_base import with_base
from converters.checkpoint import load_tree
from converters.hf_config import read_config
from converters.load import load_checkpoint
from converters.save import save_hf
from eap_jax.config import ModelConfig
from experiments import store
from experiments.errors import InputError
from experiments.jsonl import read_objects
from experiments.posttrain import low_rank
from experiments.posttrain.algorithms import initial_state
from experiments.posttrain.card import card
from experiments.posttrain.evaluate import evaluate
from experiments.posttrain.families import Family
from experiments.posttrain.recipe import Recipe
from experiments.posttrain.task import TASKS
from experiments.study.hub import local_checkpoint

_DTYPE = "bfloat16"


def finished(family: Family, training: Path) -> Path:
    """The model of a training as it is shipped; beside it figures.json, measured where it is not there.

    Args:
      family: whose member it is.
      training: the folder of its training.

    Raises:
      InputError: the training is not finished.
    """
    model = _model_of(training)
    recipe = _recipe_of(training)
    if recipe.rank:
        shipped = training / "shipped"
        if not shipped.exists():
            config, factors = _trained(family, recipe, model)
            _save(family, recipe, config, factors, shipped)
        model = shipped
    figures = training / "figures.json"
    # Those of an earlier version had no intervals.
    if not figures.exists() or "intervals" not in store.read_json(figures):
        # Of all rounds, also where a killed training went on.
        log = [line for _, line in read_objects(training / "log.jsonl", "rounds of a training")]
        spent = {"seconds": round(sum(line.get("seconds", 0.0) for line in log), 1)}
        measured = evaluate(model, task=TASKS[family.task])
        store.write_json(figures, spent | {"machine": _machine()} | measured)
    return model


def publish(family: Family, output: Path, target: Path, members: Sequence[str]) -> None:
    """Copy finished members to `target`, each with its card and snapshots.

    Raises:
      InputError: a member is not finished, or has no checkpoint of a snapshot's round.
    """
    for member in members:
        _model_of(output / member)
        for place in _checkpoints(family, member, output / member):
            if not place.is_dir():
                raise InputError(
                    f"{place}: expected a checkpoint to ship as a snapshot, found none"
                )
    for member in members:
        training, directory = output / member, target / member
        model = finished(family, training)
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(model, directory)
        store.write_text(directory / "README.md", card(family, member, training))
        for name in ("log.jsonl", "figures.json"):
            shutil.copyfile(training / name, directory / name)
        _snapshots(family, member, training, directory / "snapshots")


def _snapshots(family: Family, member: str, training: Path, target: Path) -> None:
    """The policy at some checkpoints along training."""
    places = _checkpoints(family, member, training)
    if not places:
        return
    recipe = _recipe_of(training)
    config, trained = _trained(family, recipe, training / "model")
    like = initial_state(recipe, config, trained)
    for place in places:
        _save(family, recipe, config, load_tree(place, like)["params"], target / place.name)


def _checkpoints(family: Family, member: str, training: Path) -> list[Path]:
    rounds = family.snapshots.get(member, ())
    return [training / "checkpoints" / f"{number:05d}" for number in rounds]


def _model_of(training: Path) -> Path:
    model = training / "model"
    if not model.exists():
        raise InputError(f"{training}: expected a finished training, found none")
    return model


def _recipe_of(training: Path) -> Recipe:
    settings = store.read_json(training / "recipe.json")
    return Recipe(**{n: settings[n] for n in Recipe.__dataclass_fields__ if n in settings})


def _trained(family: Family, recipe: Recipe, model: Path) -> tuple[ModelConfig, dict]:
    """The shape of a trained model, and what was trained of it."""
    if not recipe.rank:
        checkpoint = load_checkpoint(model, dtype="float32")
        return checkpoint.config, checkpoint.params
    # Its own record is a path on the machine that trained it.
    config = read_config(with_base(model, local_checkpoint(family.base, label="base")))
    return config, low_rank.read_factors(model, config, recipe.rank, recipe.alpha)


def _save(family: Family, recipe: Recipe, config: ModelConfig, trained: dict, target: Path) -> None:
    if recipe.rank:
        low_rank.save_adapter(
            target, config, trained, alpha=recipe.alpha, base=family.base, dtype=_DTYPE
        )
    else:
        save_hf(target, config, trained, dtype=_DTYPE)


def _machine() -> str:
    """In plain words, without names."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"{os.cpu_count()} CPU cores"
    return f"{jax.device_count()} x {first.device_kind}"
