"""A model in memory -> a Hugging Face folder: config.json, safetensors in shards, small files."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from converters import mapping
from converters.errors import CheckpointError
from converters.families import FAMILIES
from converters.hf_config import to_hf_config
from converters.staging import staged
from converters.weight_files import write_index
from eap_jax.config import ModelConfig

_SHARD_BYTES = 5 * 10**9
_WEIGHT_SUFFIXES = (
    ".safetensors", ".bin", ".index.json", ".h5", ".msgpack", ".gguf", ".pt", ".pth",
)  # fmt: skip


def save_hf(
    directory: str | Path,
    config: ModelConfig,
    params: dict[str, Any],
    *,
    architecture: str = "LlamaForCausalLM",
    dtype: str = "float32",
    extra: dict[str, Any] | None = None,
) -> None:
    """Write config.json and safetensors weights; the directory appears whole or not at all.

    Args:
      directory: must not exist.
      config, params: the model.
      architecture, extra: see `hf_config.to_hf_config`.
      dtype: of the written weights.

    Raises:
      CheckpointError: the directory exists, or the architecture cannot express the model.
    """
    data = to_hf_config(config, architecture=architecture, dtype=dtype, extra=extra)

    def value_of(entry: mapping.Entry) -> np.ndarray:
        leaf = params[entry.name] if entry.layer is None else params["blocks"][entry.name]
        leaf = leaf if entry.layer is None else leaf[entry.layer]
        return np.asarray(leaf).astype(jnp.dtype(dtype))

    tensors = mapping.hf_tensors(mapping.table(config, FAMILIES[architecture]), value_of)

    with staged(directory) as staging:
        (staging / "config.json").write_text(json.dumps(data, indent=2) + "\n")
        write_safetensors(staging, tensors, sum(leaf.nbytes for leaf in jax.tree.leaves(params)))


def write_safetensors(directory: Path, tensors: Iterator, total_bytes: int) -> None:
    """Write tensors to one file, or to shards with an index when they are larger than one shard.

    Args:
      directory: where.
      tensors: (name, numpy array) pairs, read one at a time and held a shard at a time.
      total_bytes: about how large all of them are.

    Raises:
      CheckpointError: a file cannot be written.
    """
    if total_bytes <= _SHARD_BYTES:
        _save_file(dict(tensors), directory / "model.safetensors")
        return
    shards: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    size = written = 0

    def flush():
        shards.append(list(held))
        _save_file(held, directory / f"shard-{len(shards):05d}")
        held.clear()

    for name, tensor in tensors:
        if held and size + tensor.nbytes > _SHARD_BYTES:
            flush()
            size = 0
        held[name] = np.ascontiguousarray(tensor)
        size, written = size + tensor.nbytes, written + tensor.nbytes
    flush()
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (directory / f"shard-{number:05d}").rename(directory / file)
        weight_map |= dict.fromkeys(names, file)
    write_index(directory / "model.safetensors.index.json", weight_map, written)


def _save_file(tensors: dict[str, np.ndarray], path: Path) -> None:
    try:
        safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from None
    path.chmod(path.parent.stat().st_mode & 0o666)  # the library's own is for the owner only


def copy_companions(source: Path, target: Path) -> None:
    """Copy config, tokenizer and other small files of a checkpoint, everything but its weights."""
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.endswith(_WEIGHT_SUFFIXES):
            shutil.copyfile(file, target / file.name)
