"""The directory of one training: whose it is, and where a killed one goes on."""

import dataclasses
import json
from pathlib import Path

from converters.checkpoint import load_tree
from converters.load import checkpoint_hash
from experiments.errors import InputError
from experiments.posttrain.recipe import Recipe
from experiments.posttrain.task import Task

# Settings that a recipe.json written before they were known does not have.
_DEFAULTS = {name: getattr(Recipe, name) for name in ("rank", "alpha", "rows")} | {
    "task": "arithmetic"
}


def settings_of(recipe: Recipe, start: Path | None, task: Task) -> dict:
    """What makes a run, as recipe.json holds it."""
    return dataclasses.asdict(recipe) | {
        "task": task.name,
        "start_sha256": None if start is None else checkpoint_hash(start),
    }


def check(output: Path, settings: dict) -> None:
    """Refuse a directory that holds a run with other settings.

    Raises:
      InputError: it does.
    """
    path = output / "recipe.json"
    if not path.exists():
        return
    found = json.loads(path.read_text())
    found.pop("start_directory", None)
    found = _DEFAULTS | found  # of before these settings were known
    if found != settings:
        changed = sorted(k for k in settings | found if settings.get(k) != found.get(k))
        raise InputError(
            f"{path}: the directory holds a run with other settings ({', '.join(changed)}); "
            "choose another --output"
        )


def claim(output: Path, settings: dict, start: Path | None) -> None:
    """Write the run's settings into a directory that holds none."""
    path = output / "recipe.json"
    if not path.exists():
        output.mkdir(parents=True, exist_ok=True)
        settings = settings | {"start_directory": None if start is None else str(start)}
        path.write_text(json.dumps(settings, indent=2) + "\n")


def restore(output: Path, state: dict) -> tuple[dict, int]:
    """The last checkpoint's state and round, or the given state and 0; trims the log to match."""
    saved = sorted(p for p in (output / "checkpoints").glob("*") if p.name.isdigit())
    first_round = int(saved[-1].name) if saved else 0
    if saved:
        state = load_tree(saved[-1], state)
    log = output / "log.jsonl"
    if log.exists():
        lines = log.read_text().splitlines()
        whole = [line for line in lines if saved and line.endswith("}")]
        kept = [line for line in whole if json.loads(line)["round"] <= first_round]
        log.write_text("".join(line + "\n" for line in kept))
    return state, first_round
