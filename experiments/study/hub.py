"""A checkpoint's name -> where it lies, downloaded from the Hugging Face Hub if it is not here."""

import fnmatch
from pathlib import Path

from converters.adapter_base import base_of, base_record, with_base
from converters.adapter_config import is_adapter, is_beside_base
from converters.errors import CheckpointError
from converters.gguf_header import part_names
from converters.packages import local_model
from experiments.errors import InputError

# merges.txt, vocab.txt, and sentencepiece's *.model are tokenizers, tiktoken's files too.
_ALWAYS = (
    "*.json",
    "tokenizer*",
    "*.jinja",
    "merges.txt",
    "vocab.txt",
    "*.model",
    "*.tiktoken",
    "adapter_model.bin",
)
# The same weights again, in other formats or in the original release's.
_SECOND_COPIES = ("consolidated*", "*/*", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "optimizer*")
# Pickled weights are taken only where a repository has no safetensors.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# Seconds for the Hub to answer.
_PATIENCE = 10.0


def local_checkpoint(
    name: str,
    *,
    label: str = "checkpoint",
    advice: str = "pass a local directory",
    base: str | None = None,
) -> Path:
    """Directory of a checkpoint, or its GGUF file. The base of an adapter is found with it; where that
    is another than its record leads to, the path knows it (`adapter_config.AdaptedFolder`).

    Args:
      name: a local directory or .gguf file, a package that holds a model (`converters.packages`), or a
        Hub id, `owner/name` or `owner/name@revision`, and for a GGUF file `owner/name/file.gguf`, which
        is downloaded unless it is cached.
      label: what the checkpoint is called in messages.
      advice: what a user can do instead, for messages.
      base: name of an adapter's base, instead of what its own record says.

    Raises:
      CheckpointError: an adapter has no base here, it is no adapter and `base` is given, or a package
        is not installed.
      InputError: neither a directory nor a Hub id, or the Hub does not give it; the message says
        why and what to do.
    """
    path = _fetched(name, label, advice)
    if base is not None:
        return with_base(path, _fetched(base, f"base of {label}", advice))
    elif is_adapter(path) and not is_beside_base(path):
        try:
            base_of(path)
        except CheckpointError:
            recorded, revision = base_record(path)
            if recorded is None or not _is_hub_id(recorded):
                raise
            recorded += f"@{revision}" if revision else ""
            return with_base(path, _fetched(recorded, f"base of {label}", "pass it with --base"))
    return path


def _is_hub_id(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and len(path.parts) == 2 and path.parts[0] not in (".", "..")


def _fetched(name: str, label: str, advice: str) -> Path:
    path = local_model(name)
    if path is not None:
        return _checked(path, label)
    repository, file = _repository(name, label, advice)
    # Imported here: it takes half a second, and local checkpoints do not need it.
    import huggingface_hub

    try:
        # The one call of the client that asks once: others wait and ask again, for 48 s in all.
        there = huggingface_hub.model_info(**repository, timeout=_PATIENCE)
        files = [Path(sibling.rfilename) for sibling in there.siblings or ()]
        if file is not None:
            parts = part_names(file)
            if not {Path(part) for part in parts} <= set(files):
                raise _NotThereError(files)
            found = {
                part: huggingface_hub.hf_hub_download(**repository, filename=part) for part in parts
            }
            return Path(found[file])
        suffixes = {
            file.suffix
            for file in files
            if not any(fnmatch.fnmatch(str(file), other) for other in _SECOND_COPIES)
        }
        weights = _WEIGHTS[0] if ".safetensors" in suffixes else _WEIGHTS[1]
        return Path(
            huggingface_hub.snapshot_download(
                **repository, allow_patterns=[*_ALWAYS, weights], ignore_patterns=[*_SECOND_COPIES]
            )
        )
    # The Hub's client raises its own errors, httpx's and OSError, and promises no common base.
    except Exception as error:
        cached = _cached(repository, file)
        if cached is not None:
            return cached
        reason = _reason(error, **repository)
        missing = "file" if file else "directory"
        raise InputError(f"{label} {name}: no such {missing}, and {reason}; {advice}") from error


def _reason(error: Exception, repo_id: str, revision: str | None) -> str:
    """Why a download failed, and what the user can do about it."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repo_id}"
    if isinstance(error, _NotThereError):
        return f"{page} has none of that name, but {error}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"the repository is gated: accept its licence on {page}, then set HF_TOKEN to a token of "
            "that account (https://huggingface.co/settings/tokens)"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the Hugging Face Hub shows no {page}: the name is wrong, or the repository is private "
            "and HF_TOKEN must be set to a token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{page} has no revision {revision!r}"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{page} has no such file"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            "it cannot be downloaded: HF_HUB_OFFLINE is set, and the Hub's cache (HF_HOME) does not "
            "hold it whole"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the Hub refuses it ({status}): set HF_TOKEN to a token that may read {page}"
    if status is not None:
        return f"it cannot be downloaded: the Hugging Face Hub answered {status}; try again later"
    said = " ".join(str(error).split())[:120]
    return (
        f"it cannot be downloaded from the Hugging Face Hub ({type(error).__name__}: {said}); "
        "without network, download it elsewhere and copy the Hub's cache (HF_HOME)"
    )


def config_folder(name: str, *, label: str = "checkpoint", base: str | None = None) -> Path:
    """A folder with a checkpoint's config.json, of which nothing else is downloaded; or a GGUF file.

    Args:
      name, label: see `local_checkpoint`.
      base: name of its base if it is a local adapter, or None.

    Raises:
      InputError: neither a directory nor a Hub id, or the Hub cannot be reached.
    """
    if base is not None and is_adapter(name) and not is_beside_base(name):
        return with_base(name, config_folder(base, label=f"base of {label}"))
    path = local_model(name)
    if path is not None:
        return _checked(path, label)
    repository, file = _repository(name, label, "pass a local directory")
    if file is not None:
        raise InputError(
            f"{label} {name}: no such file; a GGUF file is planned for when it has been downloaded"
        )
    import huggingface_hub

    try:
        # As in `local_checkpoint`: it asks once.
        huggingface_hub.model_info(**repository, timeout=_PATIENCE)
        return Path(huggingface_hub.hf_hub_download(**repository, filename="config.json")).parent
    except Exception as error:
        cached = _cached(repository, "config.json")
        if cached is not None:
            return cached.parent
        reason = f"its config.json: {_reason(error, **repository)}"
        raise InputError(
            f"{label} {name}: no such directory, and {reason}; pass a local directory"
        ) from error


def _repository(name: str, label: str, advice: str) -> tuple[dict[str, str | None], str | None]:
    """A Hub id taken apart, and the GGUF file that it names; or InputError."""
    path, file = Path(name), None
    if path.suffix.lower() == ".gguf":
        if path.is_absolute() or len(path.parts) < 3 or path.parts[0] in (".", ".."):
            raise InputError(f"{label} {name}: no such file; {advice}")
        name, file = "/".join(path.parts[:2]), "/".join(path.parts[2:])
        path = Path(name)
    if path.is_absolute() or len(path.parts) != 2 or path.parts[0] in (".", ".."):
        raise InputError(f"{label} {name}: no such directory; {advice}")
    owner_and_name, _, revision = name.partition("@")
    return {"repo_id": owner_and_name, "revision": revision or None}, file


class _NotThereError(Exception):
    """A repository lacks the GGUF file that was asked for; says which ones it has."""

    def __init__(self, files: list[Path]):
        named = sorted(str(file) for file in files if file.suffix.lower() == ".gguf")
        super().__init__(", ".join(named[:3]) or "no GGUF file at all")


def _checked(path: Path, label: str) -> Path:
    """A local checkpoint, unless it is a folder that only holds GGUF files."""
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if files:
            raise InputError(
                f"{label} {path}: expected a folder with config.json, found GGUF files; pass one of "
                f"them, such as {files[0]}"
            )
    return path


def _cached(repository: dict[str, str | None], file: str | None) -> Path | None:
    """An earlier download, for work without network."""
    import huggingface_hub

    if file is not None:
        try:
            found = {
                part: huggingface_hub.hf_hub_download(
                    **repository, filename=part, local_files_only=True
                )
                for part in part_names(file)
            }
        except (OSError, ValueError):
            return None
        return Path(found[file])
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
