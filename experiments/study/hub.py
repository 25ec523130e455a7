"""A checkpoint's name -> its local directory, from the Hugging Face Hub if it is not a directory."""

from pathlib import Path

from experiments.errors import InputError
from experiments.study.pairs import Side

_ALWAYS = ("*.json", "tokenizer*", "*.jinja")
# Pickled weights are taken only where a repository has no safetensors.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def local_checkpoint(name: str, side: Side) -> Path:
    """Directory of a checkpoint.

    Args:
      name: a local directory, or a Hub id (`owner/name`), which is downloaded unless it is cached.
      side: for the message.

    Raises:
      InputError: neither a directory nor a Hub id, or the Hub cannot be reached.
    """
    path = Path(name)
    if path.is_dir():
        return path
    advice = f"pass a local checkpoint with --{side}_checkpoint=DIR"
    if path.is_absolute() or len(path.parts) != 2 or path.parts[0] in (".", ".."):
        raise InputError(f"{side} checkpoint {name}: no such directory; {advice}")
    # Imported here: it takes half a second, and local checkpoints do not need it.
    import huggingface_hub

    try:
        files = {Path(file).suffix for file in huggingface_hub.list_repo_files(name)}
        weights = _WEIGHTS[0] if ".safetensors" in files else _WEIGHTS[1]
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[*_ALWAYS, weights]))
    # The Hub's client raises its own errors, httpx's and OSError, and promises no common base.
    except Exception as error:
        cached = _cached(name)
        if cached is not None:
            return cached
        raise InputError(
            f"{side} checkpoint {name}: no such directory, and it cannot be downloaded from the "
            f"Hugging Face Hub ({type(error).__name__}); {advice}"
        ) from error


def _cached(name: str) -> Path | None:
    """An earlier download, for work without network."""
    import huggingface_hub

    for weights in _WEIGHTS:
        try:
            found = Path(
                huggingface_hub.snapshot_download(
                    name, allow_patterns=[*_ALWAYS, weights], local_files_only=True
                )
            )
        except (OSError, ValueError):
            continue
        if any(found.glob(weights)):
            return found
    return None
