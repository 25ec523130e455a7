"""The table of tensor names: Hugging Face <-> our parameter tree, used in both directions.

Llama, Mistral and Qwen2 share their names, and our parameters keep their layout (output axes
first), so every transform is a reshape and a round trip gives the same bits.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from converters.errors import CheckpointError
from converters.pieces import assemble
from eap_jax.config import ModelConfig
from eap_jax.parameters import axis_sizes, block_axes, end_axes

_END_NAMES = {
    "embed": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
}
_BLOCK_NAMES = {
    "attention_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    **{name: f"self_attn.{name}_proj.weight" for name in "qkvo"},
    **{f"{name}_bias": f"self_attn.{name}_proj.bias" for name in "qkvo"},
    **{name: f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
    **{f"{name}_bias": f"mlp.{name}_proj.bias" for name in ("gate", "up", "down")},
}
# Buffers that old checkpoints hold beside the weights; recomputed from the config.
_IGNORED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor in both worlds.

    Attributes:
      hf_name: its name in a Hugging Face checkpoint.
      hf_shape: its shape there.
      name: its name in our tree, inside `blocks` when it has a layer.
      layer: which layer, or None outside the blocks.
      shape: its shape in our tree, without the leading layer axis.
    """

    hf_name: str
    hf_shape: tuple[int, ...]
    name: str
    layer: int | None
    shape: tuple[int, ...]


def table(config: ModelConfig) -> list[Entry]:
    """Every tensor of a model, the ends first and then layer by layer."""
    sizes = axis_sizes(config)

    def entry(hf_name, name, layer, letters):
        shape = tuple(sizes[letter] for letter in letters)
        return Entry(
            hf_name=hf_name, hf_shape=_hf_shape(letters, shape), name=name, layer=layer, shape=shape
        )

    entries = [entry(_END_NAMES[n], n, None, letters) for n, letters in end_axes(config).items()]
    for layer in range(config.num_layers):
        for name, letters in block_axes(config).items():
            hf_name = f"model.layers.{layer}.{_BLOCK_NAMES[name]}"
            entries.append(entry(hf_name, name, layer, letters))
    return entries


def _hf_shape(letters: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Heads and head size are one axis there: NHD -> (N*H, D), DNH -> (D, N*H), NH -> (N*H,)."""
    if "H" not in letters:
        return shape
    head = letters.index("H")
    return (*shape[: head - 1], math.prod(shape[head - 1 : head + 1]), *shape[head + 1 :])


def check_complete(config: ModelConfig, reader, directory: str | Path) -> None:
    """Account for every tensor of a checkpoint by name, shape and dtype, without reading values.

    Raises:
      CheckpointError: a tensor is missing, unexpected, mis-shaped or of a dtype that is no float.
    """
    entries = {entry.hf_name: entry for entry in table(config)}
    found = {name for name in reader.names if not _IGNORED.fullmatch(name)}
    tied_copy = {_END_NAMES["head"]} if config.tied_embeddings else set()
    missing = [name for name in entries if name not in found]
    unexpected = sorted(found - set(entries) - tied_copy)
    if missing:
        raise CheckpointError(_listing(directory, "missing", missing))
    if unexpected:
        raise CheckpointError(_listing(directory, "unexpected", unexpected))
    for name, entry in entries.items():
        if reader.shape(name) != entry.hf_shape:
            raise CheckpointError(
                f"{reader.file_of(name)}: tensor {name}: expected shape {entry.hf_shape}, "
                f"found {reader.shape(name)}"
            )
        reader.dtype(name)
    if tied_copy & found:
        head, embed = _END_NAMES["head"], _END_NAMES["embed"]
        reader.dtype(head)
        if not np.array_equal(reader.read(head), reader.read(embed)):
            raise CheckpointError(
                f"{reader.file_of(head)}: tensor {head}: config.json ties it to {embed}, but the "
                "two differ"
            )


def read_entry(entry: Entry, reader, dtype: np.dtype | None = None) -> np.ndarray:
    """One tensor in our shape, its values checked.

    Args:
      entry: which.
      reader: of the checkpoint.
      dtype: cast to it on the way, so that the tensor is never whole in both; None: as it is.

    Raises:
      CheckpointError: a value is NaN or infinite.
    """
    dtype = reader.dtype(entry.hf_name) if dtype is None else dtype
    return assemble(_finite_pieces(entry, reader), entry.shape, dtype)


def _finite_pieces(entry: Entry, reader) -> Iterator[np.ndarray]:
    first = 0
    for piece in reader.pieces(entry.hf_name):
        if not _all_finite(piece):
            at = int(np.flatnonzero(~np.isfinite(piece))[0])
            place = tuple(int(i) for i in np.unravel_index(first + at, entry.hf_shape))
            raise CheckpointError(
                f"{reader.file_of(entry.hf_name)}: tensor {entry.hf_name}: expected finite values, "
                f"found {piece[at]} at {place}"
            )
        yield piece
        first += piece.size


def _all_finite(tensor: np.ndarray) -> bool:
    """Whether no number has all bits of its exponent set; numpy's own test of bfloat16 is slow."""
    whole = np.dtype(f"u{tensor.dtype.itemsize}")
    exponent = np.array(np.inf, tensor.dtype).view(whole)
    bits = np.ascontiguousarray(tensor).reshape(-1).view(whole)
    # A piece at a time, so that the masked bits stay in the processor's cache.
    pieces = (bits[first : first + 2**18] for first in range(0, bits.size, 2**18))
    return all((piece & exponent).max() < exponent for piece in pieces)


def _listing(directory, kind: str, names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    noun = "tensor" if len(names) == 1 else "tensors"
    return f"{directory}: {len(names)} {kind} {noun}: {shown}"
