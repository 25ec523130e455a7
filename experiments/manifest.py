"""manifest.json: everything that made a pair's results."""

import dataclasses
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

from experiments import store

_PACKAGES = ("jax", "jaxlib", "flax", "transformers", "orbax-checkpoint", "numpy", "math-verify")


def write(study, configs, hashes: dict[str, str], device: str, seconds: float) -> None:
    """Write the manifest of a study: settings, versions, hashes, device and time.

    Args:
      study: see study.py.
      configs: ModelConfig of each side.
      hashes: SHA-256 of each side's checkpoint.
      device: number and kind of devices.
      seconds: wall time of this run (a resumed run counts only its own part).
    """
    store.write_json(
        study.directory / "manifest.json",
        {
            "command": study.command,
            "pair": dataclasses.asdict(study.pair),
            "datasets": study.datasets,
            "rules": [dataclasses.asdict(rule) for rule in study.rules],
            "responses": None if study.responses is None else str(study.responses),
            "numerics": study.numerics,
            "mesh": study.mesh or "data:1,model:1",
            "batch_tokens": study.batch_tokens,
            "models": {side: dataclasses.asdict(config) for side, config in configs.items()},
            "checkpoint_sha256": hashes,
            "device": device,
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
