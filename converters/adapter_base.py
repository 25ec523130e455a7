"""Where the base of a LoRA folder is: given with the folder's path, or by the folder's own record."""

from pathlib import Path

from converters.adapter_config import CONFIG, is_adapter, is_beside_base
from converters.errors import CheckpointError
from converters.json_file import read_json
from converters.packages import packaged_model


class AdaptedFolder(type(Path())):
    """The path of an adapter's folder that knows the base it was given by hand, see `with_base`. Paths
    that are made from it, and `Path` of it, are those of the folder alone.

    Attributes:
      base: of the adapter.
    """

    base: Path | None = None

    def with_segments(self, *parts) -> Path:
        """What Python 3.12 and newer make paths from it with."""
        return Path(*parts)


def with_base(folder: str | Path, base: str | Path) -> AdaptedFolder:
    """An adapter's folder with its base, instead of what its own record says.

    Raises:
      CheckpointError: the folder holds no adapter, or lies beside a base of its own.
    """
    if not is_adapter(folder):
        raise CheckpointError(f"{folder}: expected an adapter's folder with {CONFIG}, found none")
    if is_beside_base(folder):
        raise CheckpointError(f"{folder}: expected an adapter alone, found a base model beside it")
    found = AdaptedFolder(folder)
    found.base = Path(base)
    return found


def given_base(folder: str | Path) -> Path | None:
    """The base that was given with an adapter's folder, or None."""
    return getattr(folder, "base", None)


def as_path(place: str | Path) -> Path:
    """A path from a text; a path stays what it is, with the base that it knows."""
    return place if isinstance(place, Path) else Path(place)


def base_record(folder: str | Path) -> tuple[str | None, str | None]:
    """Name and revision of the base as an adapter's file has them."""
    data = read_json(Path(folder) / CONFIG)
    name, revision = data.get("base_model_name_or_path"), data.get("revision")
    name = name if isinstance(name, str) and name else None
    return name, revision if isinstance(revision, str) and revision else None


def base_of(folder: str | Path) -> Path:
    """The base of an adapter: its own folder, the one given with it (`with_base`), or by its record a
    folder (as it is, or seen from the adapter's), a package (`packages`) or a Hub id in the Hub's cache.

    Raises:
      CheckpointError: none of these is there, or a package's file is not the one that it should be.
    """
    given, folder = given_base(folder), Path(folder)
    if is_beside_base(folder):
        return folder
    if given is not None:
        return _whole_model(folder, given)
    name, revision = base_record(folder)
    if name is None:
        raise _error(folder, "the base model's name", "none; pass --base")
    for place in (Path(name), folder / name):
        if place.is_dir() or (place.is_file() and place.suffix.lower() == ".gguf"):
            return _whole_model(folder, place)
    try:
        packaged = packaged_model(name)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / CONFIG}: base_model_name_or_path: {error}") from None
    if packaged is not None:
        return packaged
    cached = _in_hub_cache(name, revision)
    if cached is None:
        found = f"{name!r}; download it, or pass the base with --base"
        raise _error(folder, "a folder or a cached Hub id", found)
    return _whole_model(folder, cached)


def _whole_model(folder: Path, base: Path) -> Path:
    if is_adapter(base) or (base / "ends").is_dir():
        kind = "an adapter in it" if is_adapter(base) else "a converted (Orbax) checkpoint"
        raise CheckpointError(
            f"{folder}: base {base}: expected a Hugging Face folder or a GGUF file, found {kind}"
        )
    if not base.exists():
        raise CheckpointError(f"{folder}: base {base}: no such checkpoint directory")
    return base


def _in_hub_cache(name: str, revision: str | None) -> Path | None:
    import huggingface_hub

    try:
        found = huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    return Path(found)


def _error(folder: Path, expected: str, found: str) -> CheckpointError:
    place = f"{folder / CONFIG}: base_model_name_or_path"
    return CheckpointError(f"{place}: expected {expected}, found {found:.200}")
