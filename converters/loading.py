"""Load a checkpoint of either kind into the model's parameter tree, and write one."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from filelock import FileLock, Timeout

from converters import checkpoint as orbax
from converters import mapping
from converters.errors import CheckpointError
from converters.hf_config import read_config, to_hf_config
from converters.hf_weights import open_weights, write_index
from eap_jax.config import ModelConfig
from eap_jax.parameters import parameter_axes, parameter_shapes

_SHARD_BYTES = 5 * 10**9
_WEIGHT_SUFFIXES = (
    ".safetensors", ".bin", ".index.json", ".h5", ".msgpack", ".gguf", ".pt", ".pth",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model in memory: its shape, and parameters in the tree of `parameters.parameter_axes`."""

    config: ModelConfig
    params: dict[str, Any]


def load_checkpoint(
    path: str | Path, *, dtype: str | None = None, shardings: dict[str, Any] | None = None
) -> Checkpoint:
    """Load a Hugging Face or converted (Orbax) checkpoint.

    Args:
      path: its directory.
      dtype: cast the weights to this, or None to keep the checkpoint's.
      shardings: a NamedSharding for every parameter (`sharding.parameter_shardings`), or None for
        the default device. Each tensor goes straight to its shards, a layer at a time.

    Raises:
      CheckpointError: no such directory, or its contents do not fit; the message says which.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint directory")
    config = read_config(path)
    if shardings is None:
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda _: here, parameter_axes(config))
    groups = _orbax_groups(path, config) if orbax.is_orbax(path) else _hf_groups(path, config)
    params: dict[str, Any] = {"blocks": {}}
    shapes = parameter_shapes(config)
    for layer, group in groups:
        for name, tensor in group.items():
            tensor = tensor if dtype is None else tensor.astype(jnp.dtype(dtype))
            if layer is None:
                params[name] = jax.device_put(tensor, shardings[name])
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

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for entry in mapping.table(config):
            leaf = params[entry.name] if entry.layer is None else params["blocks"][entry.name]
            leaf = leaf if entry.layer is None else leaf[entry.layer]
            yield entry.hf_name, np.asarray(leaf).astype(jnp.dtype(dtype)).reshape(entry.hf_shape)

    with staged(directory) as staging:
        (staging / "config.json").write_text(json.dumps(data, indent=2) + "\n")
        write_safetensors(staging, tensors(), sum(leaf.nbytes for leaf in jax.tree.leaves(params)))


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


class staged:  # noqa: N801, used as a function
    """Context manager: a hidden sibling directory that becomes `directory` if all goes well.

    What a killed program left there is removed by the next one; programs that run keep a lock.

    Raises:
      CheckpointError: `directory` exists, or another program is writing it.
    """

    def __init__(self, directory: str | Path):
        self._final = Path(directory)

    def __enter__(self) -> Path:
        self._refuse_existing()
        self._staging = self._final.with_name(f".{self._final.name}.partial")
        self._lock = FileLock(self._staging / ".lock", timeout=0)
        self._made = [folder for folder in self._staging.parents if not folder.exists()]
        self._staging.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise CheckpointError(f"{self._final}: another program is writing it") from None
        try:
            self._refuse_existing()  # its writer may have ended meanwhile
            for left in self._staging.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
                elif left.name != ".lock":
                    left.unlink()
        except BaseException:
            self._discard()
            raise
        return self._staging

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            # The lock goes along: nobody may take a finished folder for one that was left.
            self._staging.rename(self._final)
        except OSError:
            self._discard()
            raise
        (self._final / ".lock").unlink(missing_ok=True)
        self._lock.release()

    def _refuse_existing(self) -> None:
        if os.path.lexists(self._final):
            raise CheckpointError(f"{self._final}: exists already; choose another output")

    def _discard(self) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        self._lock.release()
        for folder in self._made:
            with contextlib.suppress(OSError):  # another program uses it, too
                folder.rmdir()


def check_room(output: Path, needed: int) -> None:
    """Hold the bytes that a `staged` checkpoint needs against those that its disk has.

    Raises:
      CheckpointError: there are fewer.
    """
    free = shutil.disk_usage(output.absolute().parent).free
    if free < needed:
        raise CheckpointError(
            f"{output}: expected {needed:,} bytes of room on the disk, found {free:,}"
        )


def copy_companions(source: Path, target: Path) -> None:
    """Copy config, tokenizer and other small files of a checkpoint, everything but its weights."""
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.endswith(_WEIGHT_SUFFIXES):
            shutil.copyfile(file, target / file.name)


def checkpoint_hash(path: str | Path) -> str:
    """SHA-256 of a checkpoint's config and weights, names included, for manifests."""
    path = Path(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix()
        converted = name.startswith(("ends/", "blocks/"))
        if name != "config.json" and not converted and not name.endswith((".safetensors", ".bin")):
            continue
        digest.update(name.encode() + b"\0")
        with file.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _hf_groups(path: Path, config: ModelConfig):
    """(layer or None, tensors) of a Hugging Face checkpoint, one group in memory at a time."""
    with open_weights(path) as reader:
        mapping.check_complete(config, reader, path)
        groups = collections.defaultdict(list)
        for entry in mapping.table(config):
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
