"""Which files decided the texts of a dataset's results: a rerun after an edit of one names it.

    <workdir>/<pair>/<dataset>/checkpoint_files.json    {side: {"sha256", "files": {name: SHA-256}}}

A checkpoint's hash (`converters.load`) says that something changed, not what, and does not cover the
tokenizer of a snapshot, which lies in the training's folder.
"""

import hashlib
from pathlib import Path

from converters.adapter_config import CONFIG as ADAPTER
from converters.gguf_file import is_gguf
from converters.load import TOKENIZER_FILES
from experiments import store
from experiments.errors import InputError
from experiments.responses.tokenization import tokenizer_folder
from experiments.study.opened import OpenStudy
from experiments.study.pairs import SIDES

NAME = "checkpoint_files.json"
# What a dataset has once results of it are saved; before, a run binds nobody to its files.
_RESULTS = ("all_correct.jsonl", *(f"responses_{side}.jsonl" for side in SIDES))


def claim_files(opened: OpenStudy, dataset: str) -> None:
    """Write which files both models' texts come from, or check that they are those of the saved results.

    Raises:
      InputError: one is another now; nothing is overwritten.
    """
    directory = opened.study.directory / dataset
    path = directory / NAME
    now = {
        side: {"sha256": opened.hashes[side], "files": _hashes(opened.checkpoints[side])}
        for side in SIDES
    }
    if not any((directory / name).exists() for name in _RESULTS):
        store.write_json(path, now)
        return
    if not path.exists():  # results of a version that did not write it
        return
    saved = store.read_json(path)
    for side in SIDES:
        try:
            before, sha256 = dict(saved[side]["files"]), saved[side]["sha256"]
        except (TypeError, KeyError, ValueError):
            raise InputError(
                f"{path}: expected the files of both models, found another content; choose another "
                "--workdir"
            ) from None
        after, checkpoint = now[side]["files"], opened.checkpoints[side]
        changed = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
        if changed or sha256 != now[side]["sha256"]:
            folder = tokenizer_folder(checkpoint)
            place = folder if changed and changed[0] in TOKENIZER_FILES else checkpoint
            what = " and ".join(changed) or ("the file" if is_gguf(checkpoint) else "the weights")
            raise InputError(
                f"{path}: {side} checkpoint {place}: {what}: expected as when these results were made, "
                "found changed since; put back what was there, or choose another --workdir"
            )


def _hashes(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of the small files that decide a checkpoint's texts, by name; a GGUF file has none."""
    texts = tokenizer_folder(checkpoint)
    files = [checkpoint / name for name in ("config.json", ADAPTER)]
    files += [texts / name for name in TOKENIZER_FILES]
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()
    }
