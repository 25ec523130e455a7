"""The table of tensor names: Hugging Face <-> our parameter tree, used in both directions.

A family says how its tensors are called (families.py). Our parameters keep their layout (output axes
first), so every transform is a reshape, or a cut of rows where a tensor holds several of ours (the
fused projections of Phi-3), and a round trip gives the same bits.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from converters.errors import CheckpointError
from converters.families import END_TENSORS, LLAMA, Family, key_of
from converters.pieces import assemble
from eap_jax.config import ModelConfig
from eap_jax.parameters import axis_sizes, block_axes, end_axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor in both worlds.

    Attributes:
      hf_name: its name in a Hugging Face checkpoint.
      hf_shape: its shape there, all of ours that it holds together.
      first: place of our first number among its numbers.
      name: its name in our tree, inside `blocks` when it has a layer.
      layer: which layer, or None outside the blocks.
      shape: its shape in our tree, without the leading layer axis.
    """

    hf_name: str
    hf_shape: tuple[int, ...]
    first: int
    name: str
    layer: int | None
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers of our tensor."""
        return math.prod(self.shape)


def table(config: ModelConfig, family: Family = LLAMA) -> list[Entry]:
    """Every tensor of a model, the ends first and then layer by layer; parts of one Hugging Face tensor
    one after the other."""
    sizes = axis_sizes(config)

    def entry(hf_name, name, layer, parts):
        """Of the tensors that `hf_name` holds, {name: axis letters}, the one called `name`."""
        shapes = {part: tuple(sizes[c] for c in letters) for part, letters in parts.items()}
        rows, *rest = zip(
            *(_hf_shape(letters, shapes[part]) for part, letters in parts.items()), strict=True
        )
        before = itertools.takewhile(lambda part: part != name, parts)
        return Entry(
            hf_name=hf_name,
            hf_shape=(sum(rows), *(size for size, *_ in rest)),
            first=sum(math.prod(shapes[part]) for part in before),
            name=name,
            layer=layer,
            shape=shapes[name],
        )

    entries = [
        entry(END_TENSORS[name], name, None, {name: letters})
        for name, letters in end_axes(config).items()
    ]
    axes = block_axes(config)
    for layer in range(config.num_layers):
        for name in axes:
            hf_name, parts = key_of(family, name)
            hf_name = f"model.layers.{layer}.{hf_name}"
            entries.append(entry(hf_name, name, layer, {part: axes[part] for part in parts}))
    return entries


def hf_tensors(
    entries: Iterable[Entry], value_of: Callable[[Entry], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) of each Hugging Face tensor.

    Args:
      entries: of `table`.
      value_of: our tensor of an entry.
    """
    for hf_name, parts in itertools.groupby(entries, key=lambda entry: entry.hf_name):
        parts = list(parts)
        flat = [value_of(part).reshape(-1) for part in parts]
        joined = flat[0] if len(flat) == 1 else np.concatenate(flat)
        yield hf_name, joined.reshape(parts[0].hf_shape)


def _hf_shape(letters: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Heads and head size are one axis there: NHD -> (N*H, D), DNH -> (D, N*H), NH -> (N*H,)."""
    if "H" not in letters or letters == "H":
        return shape
    head = letters.index("H")
    return (*shape[: head - 1], math.prod(shape[head - 1 : head + 1]), *shape[head + 1 :])


def check_complete(
    config: ModelConfig, reader, directory: str | Path, family: Family = LLAMA
) -> None:
    """Account for every tensor of a checkpoint by name, shape and dtype, without reading values.

    Raises:
      CheckpointError: a tensor is missing, unexpected, mis-shaped or of a dtype that is no float.
    """
    entries = {entry.hf_name: entry for entry in table(config, family)}
    found = set(reader.names)
    tied_copy = {END_TENSORS["head"]} if config.tied_embeddings else set()
    missing = [name for name in entries if name not in found]
    unexpected = found - set(entries) - tied_copy
    if missing:
        raise CheckpointError(_listing(directory, "missing", missing))
    unexpected -= reader.leave_out_zeros(unexpected)
    if unexpected:
        raise CheckpointError(_listing(directory, "unexpected", sorted(unexpected)))
    for name, entry in entries.items():
        if reader.shape(name) != entry.hf_shape:
            raise CheckpointError(
                f"{reader.file_of(name)}: tensor {name}: expected shape {entry.hf_shape}, "
                f"found {reader.shape(name)}"
            )
        reader.dtype(name)
    if tied_copy & found:
        head, embed = END_TENSORS["head"], END_TENSORS["embed"]
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
    first, part = entry.first, ()
    if entry.size != math.prod(entry.hf_shape):
        part = (entry.first, entry.size)
    for piece in reader.pieces(entry.hf_name, *part):
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
