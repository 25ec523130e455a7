"""A checkpoint of either kind read a part at a time, the next layer while the last one is used."""

import collections
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp

from converters import checkpoint as orbax
from converters import mapping
from converters.adapter_base import as_path
from converters.hf_config import read_config, read_family
from converters.hf_weights import open_weights
from converters.pieces import assemble
from eap_jax.parameters import block_axes


class StoredWeights:
    """The weights of a checkpoint on disk, as `eap_jax.streaming.Weights` asks for them.

    Use it as a context manager. Blocks are read by one thread of its own, one ahead.

    Args:
      path: directory of a Hugging Face or converted (Orbax) checkpoint, or a GGUF file.
      dtype: cast the weights to this, or None to keep the checkpoint's.

    Raises:
      CheckpointError: from the start and from every reading, as `load.load_checkpoint`.
    """

    def __init__(self, path: str | Path, *, dtype: str | None = None):
        self.path, self.config = as_path(path), read_config(path)
        self._dtype = None if dtype is None else jnp.dtype(dtype)
        self._thread = ThreadPoolExecutor(1)
        self._reader = None
        self._entries = collections.defaultdict(dict)
        if orbax.is_orbax(path):
            orbax.check_complete(path, self.config)
        else:
            self._reader = open_weights(path).__enter__()
            family = read_family(path)
            mapping.check_complete(self.config, self._reader, path, family)
            for entry in mapping.table(self.config, family):
                self._entries[entry.layer][entry.name] = entry

    def __enter__(self) -> "StoredWeights":
        return self

    def __exit__(self, *problem) -> None:
        self._thread.shutdown(cancel_futures=True)
        if self._reader is not None:
            self._reader.__exit__(*problem)

    def blocks(self, layers: Sequence[int]) -> Iterator[dict[str, jax.Array]]:
        """Each layer's parameters in this order."""
        following = self._thread.submit(self._block, layers[0])
        for position in range(len(layers)):
            block = following.result()
            if position + 1 < len(layers):
                following = self._thread.submit(self._block, layers[position + 1])
            yield block

    def ends(self, names: Sequence[str]) -> dict[str, jax.Array]:
        """The named parameters outside the blocks."""
        return self._read(None, names)

    def _block(self, layer: int) -> dict[str, jax.Array]:
        return self._read(layer, tuple(block_axes(self.config)))

    def _read(self, layer: int | None, names: Sequence[str]) -> dict[str, jax.Array]:
        if self._reader is not None:
            found = {
                name: mapping.read_entry(self._entries[layer][name], self._reader, self._dtype)
                for name in names
            }
        elif layer is None:
            found = orbax.load_ends(self.path, self.config, names=names)
        else:
            found = orbax.load_block(self.path, self.config, layer)
        placed = {}
        for name in names:  # one tensor at a time is in memory in both dtypes
            tensor = found.pop(name)
            if self._dtype not in (None, tensor.dtype):
                tensor = assemble([tensor.reshape(-1)], tensor.shape, self._dtype)
            placed[name] = jax.device_put(tensor)
        return jax.block_until_ready(placed)
