"""A LoRA adapter's tensors, and its base's weights with the adapter merged in while they are read.

    merged = W + scale * B A        W [out, in], A [r, in], B [out, r]; an embedding: (B A)^T

as peft's `merge_and_unload`: the product and the sum in float32, rounded once to the base's dtype. A
piece of W is in memory at a time, with the adapter's two matrices of that module.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters.adapter_config import AdapterConfig, read_adapter_config
from converters.errors import CheckpointError
from converters.pieces import PIECE, assemble
from converters.tensor_names import EMBED, HEAD, plain_names
from converters.weight_files import FileReader, SafetensorsReader, TorchReader

# In transformers' order.
ADAPTER_FILES = {"adapter_model.safetensors": SafetensorsReader, "adapter_model.bin": TorchReader}
# `lora_A.weight`, or `lora_A.<name of the adapter>.weight` in files that peft did not write itself.
_MATRIX = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.(?!weight$)[^.]+)?(?:\.weight)?")
_WRAPPER = re.compile(
    r"\.(?:base_layer|original_module|modules_to_save(?:\.(?!weight$)[^.]+)?)(?=\.)"
)


class Adapter:
    """An adapter's tensors by the weights of the base that they change; a context manager.

    Attributes:
      config: its settings.
      pairs: names of A and B in the file, by the base's weight.
      replaced: names in the file of whole tensors, by the base's name.
    """

    def __init__(self, config: AdapterConfig, reader: FileReader):
        self.config, self.reader = config, reader
        self.pairs: dict[str, dict[str, str]] = {}
        self.replaced: dict[str, str] = {}
        wrapped = all(name.startswith("base_model.model.") for name in reader.names)
        for own in reader.names:
            name = own.removeprefix("base_model.model.") if wrapped else own
            matrix = _MATRIX.fullmatch(name)
            if matrix:
                module = _plain_module(matrix[1])
                kind = f"embedding_{matrix[3]}" if matrix[2] else matrix[3]
                self.pairs.setdefault(f"{module}.weight", {})[kind] = own
            else:
                self.replaced[_plain_module(_WRAPPER.sub("", name))] = own
        for weight, pair in self.pairs.items():
            self._check_pair(weight, pair)
        for weight, own in self.replaced.items():
            self._check_replaced(weight, own)

    def __enter__(self) -> "Adapter":
        self.reader.__enter__()
        return self

    def __exit__(self, *problem):
        return self.reader.__exit__(*problem)

    @property
    def changed_settings(self) -> dict[str, Any]:
        """See the function of this name."""
        changed: dict[str, Any] = {}
        if not self.config.keeps_ties and {EMBED, HEAD} & {*self.pairs, *self.replaced}:
            changed["tie_word_embeddings"] = False
        if EMBED in self.replaced:
            changed["vocab_size"] = self.reader.shape(self.replaced[EMBED])[0]
        return changed

    def factors(self, weight: str) -> tuple[np.ndarray, np.ndarray]:
        """Two float32 matrices whose product is what is added to a weight, before the scale."""
        pair = self.pairs[weight]
        found = {kind: self.reader.read(own).astype(np.float32) for kind, own in pair.items()}
        if "A" in found:
            return found["B"], found["A"]
        return found["embedding_A"].T, found["embedding_B"].T

    def shape(self, weight: str) -> tuple[int, int]:
        """Shape of the weight that a pair of matrices belongs to."""
        pair = self.pairs[weight]
        if "A" in pair:
            return self.reader.shape(pair["B"])[0], self.reader.shape(pair["A"])[1]
        return self.reader.shape(pair["embedding_A"])[1], self.reader.shape(pair["embedding_B"])[0]

    def _check_pair(self, weight: str, pair: dict[str, str]) -> None:
        module, own = weight.removesuffix(".weight"), next(iter(pair.values()))
        if set(pair) not in ({"A", "B"}, {"embedding_A", "embedding_B"}):
            raise self._error(own, "both lora_A and lora_B", "one of them")
        if not self.config.is_target(module):
            raise self._error(own, f"a module that {self.config.path.name} targets", module)
        rank, a, b = self.config.rank_of(module), *(pair[kind] for kind in sorted(pair))
        shapes = [self.reader.shape(a), self.reader.shape(b)]
        if any(len(shape) != 2 for shape in shapes) or (shapes[0][0], shapes[1][1]) != (rank, rank):
            raise self._error(own, f"rank {rank} as in {self.config.path.name}", f"shapes {shapes}")

    def _check_replaced(self, weight: str, own: str) -> None:
        """Whole tensors are those of modules_to_save, biases that were trained, and the two ends, which
        peft saves where the vocabulary has grown."""
        module, _, kind = weight.rpartition(".")
        trained_bias = kind == "bias" and self.config.bias != "none"
        if not (trained_bias or self.config.is_saved(module) or weight in (EMBED, HEAD)):
            expected = "lora_A, lora_B, a trained bias or a tensor of modules_to_save"
            raise self._error(
                own, expected, "another; merge the adapter into its base with peft first"
            )

    def _error(self, own: str, expected: str, found: str) -> CheckpointError:
        return CheckpointError(
            f"{self.reader.file_of(own)}: tensor {own}: expected {expected}, found {found}"
        )


class MergedReader:
    """Reads a base's tensors with an adapter merged in; a context manager.

    Args:
      base: a `NamedReader` of the base.
      adapter: what is merged in.
      beside: whether it lies in the base's folder.

    Attributes:
      notes: one line that says so, after the base's.

    Raises:
      CheckpointError: the adapter is broken, or does not fit the base.
    """

    def __init__(self, base, adapter: Adapter, *, beside: bool):
        self._base, self._adapter, self._beside = base, adapter, beside
        folder = adapter.config.path.parent
        for weight in (*adapter.pairs, *adapter.replaced):
            if weight not in self.names:
                raise CheckpointError(
                    f"{folder}: the adapter changes {weight}, which its base does not have"
                )
        for weight in adapter.pairs:
            if adapter.shape(weight) != self.shape(weight):
                raise CheckpointError(
                    f"{folder}: the adapter's matrices of {weight}: expected shape "
                    f"{self.shape(weight)} as in its base, found {adapter.shape(weight)}"
                )

    def __enter__(self):
        self._base.__enter__()
        self._adapter.__enter__()
        return self

    def __exit__(self, *problem):
        self._adapter.__exit__(*problem)
        return self._base.__exit__(*problem)

    @property
    def notes(self) -> list[str]:
        """The base's, and a line that says what is merged."""
        adapter = self._adapter
        what = f"{len(adapter.pairs)} weights changed, {len(adapter.replaced)} replaced"
        place = "the weights beside it" if self._beside else "its base"
        return [*self._base.notes, f"a LoRA adapter is merged into {place}: {what}"]

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return self._base.names

    def leave_out_zeros(self, names) -> set[str]:
        """As `NamedReader.leave_out_zeros`."""
        return self._base.leave_out_zeros(set(names) & set(self._base.names))

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor, for messages; the adapter's where it changes it."""
        adapter = self._adapter
        own = adapter.replaced.get(name) or next(iter(adapter.pairs.get(name, {}).values()), None)
        return self._base.file_of(name) if own is None else adapter.reader.file_of(own)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        if name in self._adapter.replaced:
            return self._adapter.reader.shape(self._adapter.replaced[name])
        return self._base.shape(name)

    def dtype(self, name: str) -> np.dtype:
        """Dtype that a tensor is read in: the base's."""
        return self._base.dtype(name)

    def pieces(self, name: str, start: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        """A tensor's numbers in order, all or those of a part.

        Raises:
          CheckpointError: as the readers.
        """
        part = () if count is None and not start else (start, count)
        adapter, dtype = self._adapter, self.dtype(name)
        if name in adapter.replaced:
            for piece in adapter.reader.pieces(adapter.replaced[name], *part):
                yield piece.astype(dtype, copy=False)
            return
        pieces = self._base.pieces(name, *part)
        if name not in adapter.pairs:
            yield from pieces
            return
        (left, right), scale = adapter.factors(name), np.float32(self._scale(name))
        columns, first = right.shape[1], start
        for whole in pieces:
            for at in range(0, whole.size, PIECE):
                piece = whole[at : at + PIECE].astype(np.float32)
                top = first // columns
                added = left[top : -(-(first + piece.size) // columns)] @ right * scale
                skipped = first - top * columns
                piece += added.reshape(-1)[skipped : skipped + piece.size]
                yield piece.astype(dtype, copy=False)
                first += piece.size

    def read(self, name: str) -> np.ndarray:
        """One tensor, a copy of its own; raises as `pieces`."""
        return assemble(self.pieces(name), self.shape(name), self.dtype(name))

    def _scale(self, name: str) -> float:
        return self._adapter.config.scale_of(name.removesuffix(".weight"))


def open_adapter(folder: str | Path) -> Adapter:
    """An adapter's settings and tensors.

    Raises:
      CheckpointError: a file is missing or broken, the adapter is of another kind than LoRA, or its
        tensors are not those that its settings say.
    """
    folder = Path(folder)
    config = read_adapter_config(folder)
    for name, reader in ADAPTER_FILES.items():
        if (folder / name).exists():
            return Adapter(config, reader([folder / name], None))
    raise CheckpointError(f"{folder}: expected {' or '.join(ADAPTER_FILES)}, found neither")


def changed_settings(folder: str | Path) -> dict[str, Any]:
    """What config.json of the merged model says differently from its base's.

    An adapter that changes the embedding or the head alone unties them, and one that brings an embedding
    of another length brings another vocabulary.

    Raises:
      CheckpointError: as `open_adapter`.
    """
    with open_adapter(folder) as adapter:
        return adapter.changed_settings


def _plain_module(name: str) -> str:
    """The base's plain name of a module or tensor that an adapter's file names."""
    return next(iter(plain_names([name]).values()))
