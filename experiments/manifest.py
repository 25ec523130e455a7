"""manifest.json: everything that made a pair's results."""

import dataclasses
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

from converters.adapter_base import given_base
from experiments import store
from experiments.scoring.cells import Cell
from experiments.study.numerics import weight_dtype
from experiments.study.opened import OpenStudy

_PACKAGES = (
    "jax", "jaxlib", "flax", "transformers", "orbax-checkpoint", "numpy", "scipy", "math-verify",
)  # fmt: skip


def write(opened: OpenStudy, cells: list[Cell], seconds: float) -> None:
    """Write the manifest of a study: settings, cells, versions, hashes, device and time.

    Args:
      opened: the study.
      cells: the cells that were measured.
      seconds: wall time of this run (a resumed run counts only its own part).
    """
    study = opened.study
    imported = {side: str(path) for side, path in (study.imported or {}).items()}
    store.write_json(
        study.directory / "manifest.json",
        {
            "command": study.command,
            "pair": dataclasses.asdict(study.pair),
            "cells": [str(cell.directory.relative_to(study.directory)) for cell in cells],
            "questions": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in dataclasses.asdict(study.questions).items()
            },
            "responses": None if study.responses is None else str(study.responses),
            "imported": imported,
            "numerics": study.numerics,
            "estimator": study.estimator,
            "precision": {
                "answers": opened.answer_dtypes,
                "scores": weight_dtype(study.numerics),
            },
            "mesh": study.mesh or "data:1,model:1",
            "batch_tokens": study.batch_tokens,
            "models": {side: dataclasses.asdict(found) for side, found in opened.configs.items()},
            "parameters": opened.configs["base"].num_parameters,
            "checkpoints": {side: str(path) for side, path in opened.checkpoints.items()},
            "adapter_bases": {
                side: str(base)
                for side, path in opened.checkpoints.items()
                if (base := given_base(path)) is not None
            },
            "checkpoint_sha256": opened.hashes,
            "device": opened.device,
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "git_commit": git_commit(),
            "seconds": round(seconds, 1),
        },
    )


def git_commit() -> str | None:
    """Commit of this program's checkout, with `+changes` if files differ from it; None outside."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
