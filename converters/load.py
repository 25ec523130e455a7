"""A checkpoint of any kind -> the model's parameter tree in memory, and the hash that names it."""

import collections
import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from converters import checkpoint as orbax
from converters import mapping
from converters.adapter_base import as_path, base_of
from converters.adapter_config import CONFIG as ADAPTER
from converters.adapter_config import is_adapter, is_beside_base
from converters.errors import CheckpointError
from converters.gguf_file import is_gguf
from converters.gguf_header import read_header
from converters.hf_config import read_config, read_family
from converters.hf_weights import open_weights, weight_files
from eap_jax.config import ModelConfig
from eap_jax.parameters import parameter_axes, parameter_shapes

# Files that decide how a checkpoint's prompts and texts become tokens.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tekken.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model in memory: its shape, and parameters in the tree of `parameters.parameter_axes`, or
    with separate layers (`parameters.separate_layers`)."""

    config: ModelConfig
    params: dict[str, Any]


def load_checkpoint(
    path: str | Path,
    *,
    dtype: str | None = None,
    shardings: dict[str, Any] | None = None,
    separate: bool = False,
) -> Checkpoint:
    """Load a Hugging Face or converted (Orbax) checkpoint, or a GGUF file.

    Args:
      path: its directory, or the file.
      dtype: cast the weights to this, or None to keep the checkpoint's.
      shardings: a NamedSharding for every parameter (`sharding.parameter_shardings`), or None for
        the default device. Each tensor goes straight to its shards, a layer at a time.
      separate: layers as separate arrays, as generation wants them; `shardings` then too.

    Raises:
      CheckpointError: no such directory, or its contents do not fit; the message says which.
    """
    path = as_path(path)
    if not path.is_dir() and not is_gguf(path):
        raise CheckpointError(f"{path}: no such checkpoint directory")
    config = read_config(path)
    if shardings is None:
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda _: here, parameter_axes(config))
        if separate:
            shardings["blocks"] = (shardings["blocks"],) * config.num_layers
    groups = _orbax_groups(path, config) if orbax.is_orbax(path) else _hf_groups(path, config)
    blocks = tuple({} for _ in range(config.num_layers)) if separate else {}
    params: dict[str, Any] = {"blocks": blocks}
    shapes = parameter_shapes(config)
    for layer, group in groups:
        for name, tensor in group.items():
            tensor = tensor if dtype is None else tensor.astype(jnp.dtype(dtype))
            if layer is None:
                params[name] = jax.device_put(tensor, shardings[name])
                continue
            if separate:
                sharding = shardings["blocks"][layer][name]
                params["blocks"][layer][name] = jax.device_put(tensor, sharding)
                continue
            stack, sharding = params["blocks"], shardings["blocks"][name]
            if name not in stack:
                stack[name] = _zeros(shapes["blocks"][name], tensor.dtype, sharding)()
            elif stack[name].dtype != tensor.dtype:
                raise CheckpointError(
                    f"{path}: {name} of layer {layer}: expected dtype {stack[name].dtype} as in "
                    f"the layers before, found {tensor.dtype}"
                )
            stack[name] = _insert(sharding)(stack[name], tensor, layer)
    return Checkpoint(config=config, params=params)


def checkpoint_dtype(path: str | Path) -> str:
    """Dtype of a checkpoint's embedding, in which its activations are computed when it is loaded
    as it is; read from the files, since config.json is often wrong about it.

    Raises:
      CheckpointError: as `load_checkpoint`, as far as this looks.
    """
    path = as_path(path)
    config = read_config(path)
    if orbax.is_orbax(path):
        return orbax.saved_dtype(path, "embed").name
    with open_weights(path) as reader:
        family = read_family(path)
        mapping.check_complete(config, reader, path, family)
        (entry,) = (entry for entry in mapping.table(config, family) if entry.name == "embed")
        return reader.dtype(entry.hf_name).name


def checkpoint_hash(path: str | Path) -> str:
    """SHA-256 of a checkpoint's config, weights and tokenizer, names included, for manifests; of a GGUF
    file its contents, of a split one those of all; of an adapter its base's too.

    Raises:
      CheckpointError: there are no weights.
    """
    path = as_path(path)
    digest = hashlib.sha256()
    if is_gguf(path):
        for part in read_header(path).parts:
            _add_contents(digest, part)
        return digest.hexdigest()
    if orbax.is_orbax(path):
        parts = (part for place in ("ends", "blocks") for part in (path / place).rglob("*"))
        files = {part for part in parts if part.is_file()}
    else:
        files = set(weight_files(path))
    files |= {path / name for name in ("config.json", ADAPTER, *TOKENIZER_FILES)}
    for file in sorted(file for file in files if file.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        _add_contents(digest, file)
    if is_adapter(path) and not is_beside_base(path):
        digest.update(checkpoint_hash(base_of(path)).encode())
    return digest.hexdigest()


def _add_contents(digest, file: Path) -> None:
    with file.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)


def checkpoint_notes(path: str | Path) -> list[str]:
    """One line for each thing about a checkpoint's weights that a user should know: an adapter that is
    merged in, prefixes that were removed, tensors that are left out.

    Raises:
      CheckpointError: as `load_checkpoint`, as far as this looks.
    """
    if orbax.is_orbax(path):
        orbax.check_complete(path, read_config(path))
        return []
    with open_weights(path) as reader:
        mapping.check_complete(read_config(path), reader, path, read_family(path))
        return reader.notes


def _hf_groups(path: Path, config: ModelConfig):
    """(layer or None, tensors) of a Hugging Face checkpoint, one group in memory at a time."""
    family = read_family(path)
    with open_weights(path) as reader:
        mapping.check_complete(config, reader, path, family)
        groups = collections.defaultdict(list)
        for entry in mapping.table(config, family):
            groups[entry.layer].append(entry)
        for layer, entries in groups.items():
            for entry in entries:
                yield layer, {entry.name: mapping.read_entry(entry, reader)}


def _orbax_groups(path: Path, config: ModelConfig):
    orbax.check_layers(path, config)
    yield None, orbax.load_ends(path, config)
    for layer in range(config.num_layers):
        yield layer, orbax.load_block(path, config, layer)


@functools.lru_cache(maxsize=64)
def _zeros(shape, dtype, sharding):
    """Compiled once a shape: a run loads several checkpoints of one model."""
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)


@functools.lru_cache(maxsize=64)
def _insert(sharding):
    """Write one layer into a stack in place; the layer is cut to the stack's shards."""

    def insert(stack, tensor, layer):
        return jax.lax.dynamic_update_index_in_dim(stack, tensor, layer, 0)

    return jax.jit(insert, donate_argnums=0, out_shardings=sharding)
