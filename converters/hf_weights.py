"""A checkpoint's folder or file -> the reader of its weights, under Hugging Face's names.

Reads `model.safetensors`, sharded safetensors with their index, and, where a checkpoint has nothing
else, `pytorch_model*.bin`; GGUF files; and adapters, merged into their base while it is read.
"""

from pathlib import Path

from converters.adapter_base import as_path, base_of
from converters.adapter_config import is_adapter, is_beside_base
from converters.adapter_weights import ADAPTER_FILES, MergedReader, open_adapter
from converters.errors import CheckpointError
from converters.foreign_weights import check_fetched, described
from converters.gguf_file import is_gguf
from converters.gguf_weights import GGUFReader
from converters.hf_config import own_settings, parse_config
from converters.json_file import read_json
from converters.named_weights import NamedReader
from converters.tensor_names import EMBED, HEAD
from converters.weight_files import SafetensorsReader, TorchReader


def open_weights(directory: str | Path) -> NamedReader | MergedReader:
    """Reader of a checkpoint's directory or GGUF file; a context manager.

    Raises:
      CheckpointError: no weights, a missing, truncated or foreign shard, a tensor in two shards, an
        index that contradicts its shards, or pickle weights without torch installed.
    """
    directory = as_path(directory)
    if not is_adapter(directory):
        return _open_named(directory)
    base, adapter = base_of(directory), open_adapter(directory)
    reader = _open_named(base)
    if adapter.changed_settings and HEAD not in reader.names and _is_tied(base):
        reader.share(EMBED, HEAD)  # the adapter changes one of the two
    return MergedReader(reader, adapter, beside=base == directory)


def weight_files(directory: str | Path) -> list[Path]:
    """The files that `open_weights` reads of a folder's own weights; an adapter's too.

    Raises:
      CheckpointError: there are none, or an index is broken.
    """
    directory = Path(directory)
    files = [directory / name for name in ADAPTER_FILES if (directory / name).exists()][:1]
    if is_adapter(directory) and not is_beside_base(directory):
        return files
    return [*_find(directory)[0], *(files if is_adapter(directory) else ())]


def _is_tied(directory: Path) -> bool:
    """Of the weights alone, whatever an adapter beside them says."""
    if not is_gguf(directory) and not (directory / "config.json").exists():
        return False
    return parse_config(*own_settings(directory)).tied_embeddings


def _open_named(directory: Path) -> NamedReader:
    if is_gguf(directory):
        return NamedReader(GGUFReader(directory))
    shards, weight_map = _find(directory)
    for shard in shards:
        check_fetched(shard)
    pickled = shards[0].suffix == ".bin"
    reader = NamedReader((TorchReader if pickled else SafetensorsReader)(shards, weight_map))
    if HEAD in reader.names and EMBED not in reader.names and _is_tied(directory):
        reader.share(HEAD, EMBED)
    return reader


def _find(directory: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The files of a folder's weights, and which tensor is in which where an index says so."""
    # Where a folder holds several, transformers' order decides.
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (directory / name).exists():
            return [directory / name], None
        if (directory / f"{name}.index.json").exists():
            return _indexed(directory, f"{name}.index.json")
    found = described(directory)
    raise CheckpointError(
        f"{directory}: expected model.safetensors, model.safetensors.index.json or "
        f"pytorch_model.bin, found {found or 'none of them'}"
    )


def _indexed(directory: Path, name: str) -> tuple[list[Path], dict[str, str]]:
    """Shards of an index in order, and the index's file name of each tensor."""
    path = directory / name
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: weight_map: expected tensor names and files")
    for tensor, file in weight_map.items():
        # A bare file name cannot lead out of the folder.
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
            raise CheckpointError(
                f"{path}: weight_map: {tensor}: expected a file name inside the folder, "
                f"found {file!r}"
            )
    shards = [directory / file for file in sorted(set(weight_map.values()))]
    for shard in shards:
        if not shard.exists():
            raise CheckpointError(f"{path}: names the shard {shard.name}, which is missing")
    return shards, weight_map
