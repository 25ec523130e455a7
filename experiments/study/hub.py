"""A checkpoint's name -> its local directory, from the Hugging Face Hub if it is not a directory."""

from pathlib import Path

from experiments.errors import InputError

_ALWAYS = ("*.json", "tokenizer*", "*.jinja")
# Pickled weights are taken only where a repository has no safetensors.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def local_checkpoint(
    name: str, *, label: str = "checkpoint", advice: str = "pass a local directory"
) -> Path:
    """Directory of a checkpoint.

    Args:
      name: a local directory, or a Hub id, `owner/name` or `owner/name@revision`, which is
        downloaded unless it is cached.
      label: what the checkpoint is called in messages.
      advice: what a user can do instead, for messages.

    Raises:
      InputError: neither a directory nor a Hub id, or the Hub cannot be reached.
    """
    path = Path(name)
    if path.is_dir():
        return path
    repository = _repository(name, label, advice)
    # Imported here: it takes half a second, and local checkpoints do not need it.
    import huggingface_hub

    try:
        files = {Path(file).suffix for file in huggingface_hub.list_repo_files(**repository)}
        weights = _WEIGHTS[0] if ".safetensors" in files else _WEIGHTS[1]
        wanted = [*_ALWAYS, weights]
        return Path(huggingface_hub.snapshot_download(**repository, allow_patterns=wanted))
    # The Hub's client raises its own errors, httpx's and OSError, and promises no common base.
    except Exception as error:
        cached = _cached(repository)
        if cached is not None:
            return cached
        raise InputError(
            f"{label} {name}: no such directory, and it cannot be downloaded from the "
            f"Hugging Face Hub ({type(error).__name__}); {advice}"
        ) from error


def config_folder(name: str, *, label: str = "checkpoint") -> Path:
    """A folder with a checkpoint's config.json, of which nothing else is downloaded.

    Args:
      name, label: see `local_checkpoint`.

    Raises:
      InputError: neither a directory nor a Hub id, or the Hub cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    repository = _repository(name, label, "pass a local directory")
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(**repository, filename="config.json")).parent
    # See below.
    except Exception as error:
        raise InputError(
            f"{label} {name}: no such directory, and its config.json cannot be downloaded from the "
            f"Hugging Face Hub ({type(error).__name__}); pass a local directory"
        ) from error


def _repository(name: str, label: str, advice: str) -> dict[str, str | None]:
    """A Hub id taken apart, or InputError."""
    path = Path(name)
    if path.is_absolute() or len(path.parts) != 2 or path.parts[0] in (".", ".."):
        raise InputError(f"{label} {name}: no such directory; {advice}")
    owner_and_name, _, revision = name.partition("@")
    return {"repo_id": owner_and_name, "revision": revision or None}


def _cached(repository: dict[str, str | None]) -> Path | None:
    """An earlier download, for work without network."""
    import huggingface_hub

    for weights in _WEIGHTS:
        try:
            found = Path(
                huggingface_hub.snapshot_download(
                    **repository, allow_patterns=[*_ALWAYS, weights], local_files_only=True
                )
            )
        except (OSError, ValueError):
            continue
        if any(found.glob(weights)):
            return found
    return None
