"""Readers of safetensors files and of torch's pickles: one tensor in memory at a time.

Pickles are read through torch with `weights_only=True`. Every reader of weights (these, GGUF's, those
that rename or merge) has `names`, `file_of`, `shape`, `dtype`, `pieces` and `read`, and is a context
manager.
"""

import json
import math
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from converters.errors import CheckpointError
from converters.pieces import PIECE, assemble

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


class FileReader:
    """What both formats share: which file holds which tensor."""

    def __init__(self, shards: list[Path], weight_map: dict[str, str] | None):
        self._place: dict[str, int] = {}
        self.shards = shards
        for number, shard in enumerate(shards):
            for tensor in self._open(number, shard):
                if tensor in self._place:
                    first = shards[self._place[tensor]].name
                    raise CheckpointError(f"{shard}: tensor {tensor} is also in {first}")
                self._place[tensor] = number
        for tensor, file in (weight_map or {}).items():
            found = self._place.get(tensor)
            if found is None or shards[found].name != file:
                where = "no shard" if found is None else shards[found].name
                raise CheckpointError(
                    f"{shards[0].parent / file}: expected tensor {tensor} as the index says, found "
                    f"it in {where}"
                )

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._place)

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor, for messages."""
        return self.shards[self._place[name]]

    def read(self, name: str) -> np.ndarray:
        """One tensor, a copy of its own.

        Raises:
          CheckpointError: as `pieces`.
        """
        return assemble(self.pieces(name), self.shape(name), self.dtype(name))

    def _known(self, name: str, code: str, known: dict[str, np.dtype]) -> np.dtype:
        """The dtype that a format calls by a code."""
        if code not in known:
            raise CheckpointError(
                f"{self.file_of(name)}: tensor {name}: expected dtype {', '.join(known)}, "
                f"found {code}"
            )
        return known[code]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._opened = []


class SafetensorsReader(FileReader):
    """Reads tensors from safetensors files.

    The library checks each file's header against its size; the bytes are then read, not mapped: the
    pages of a mapped file stay in memory, and a 7B model would fill a small machine.
    """

    def __init__(self, shards, weight_map):
        self._opened, self._offsets = [], []
        super().__init__(shards, weight_map)

    def _open(self, number: int, shard: Path) -> list[str]:
        try:
            handle = safetensors.safe_open(shard, framework="np")
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"{shard}: not a whole safetensors file: {error}") from None
        self._opened.append(handle)
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        self._offsets.append(
            {n: 8 + length + part["data_offsets"][0] for n, part in header.items()}
        )
        return list(handle.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._opened[self._place[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> np.dtype:
        """Dtype of a tensor, without reading it.

        Raises:
          CheckpointError: not float32, float16 or bfloat16.
        """
        return self._known(
            name, self._opened[self._place[name]].get_slice(name).get_dtype(), DTYPES
        )

    def pieces(self, name: str, start: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        """A tensor's numbers in order, some at a time; each piece is valid until the next one.

        Args:
          name: of the tensor.
          start: place of the first number.
          count: how many; None: to the end.

        Raises:
          CheckpointError: the file ends early.
        """
        count = math.prod(self.shape(name)) - start if count is None else count
        dtype = self.dtype(name)
        # One small buffer for all: fresh pages for a large one cost more than reading them.
        buffer = np.empty(min(count, PIECE), dtype)
        with self.file_of(name).open("rb", buffering=0) as file:
            file.seek(self._offsets[self._place[name]][name] + start * dtype.itemsize)
            for first in range(0, count, PIECE):
                piece = buffer[: count - first]
                unread = memoryview(piece.view(np.uint8))
                while unread:
                    done = file.readinto(unread)
                    if not done:
                        found = first + piece.size - -(-len(unread) // dtype.itemsize)
                        raise CheckpointError(
                            f"{self.file_of(name)}: tensor {name}: expected {count} numbers, "
                            f"found {found}"
                        )
                    unread = unread[done:]
                yield piece


class TorchReader(FileReader):
    """Reads tensors from pickle checkpoints; torch maps the file and loads nothing but tensors."""

    def __init__(self, shards, weight_map):
        try:
            import torch
        except ImportError:
            raise CheckpointError(
                f"{shards[0]}: pickle weights need torch (pip install torch); "
                "safetensors weights do not"
            ) from None
        self._torch = torch
        self._opened = []
        super().__init__(shards, weight_map)

    def _open(self, number: int, shard: Path) -> list[str]:
        try:
            with warnings.catch_warnings():  # about the pickle's protocol; it loads or it does not
                warnings.simplefilter("ignore")
                # Files of torch before 1.6 are no archives, and cannot be mapped.
                mapped = zipfile.is_zipfile(shard)
                tensors = self._torch.load(
                    shard, map_location="cpu", weights_only=True, mmap=mapped
                )
        except Exception as error:  # torch raises whatever its unpickler met
            # Its advice, to load the file unguarded, comes before the reason.
            reason = str(error).split("trusted source.")[-1]
            reason = reason.split("WeightsUnpickler error:")[-1].strip() or repr(error)
            reason = reason.splitlines()[0].split(". ")[0]
            raise CheckpointError(f"{shard}: not a loadable weights file: {reason}") from None
        if not isinstance(tensors, dict) or not all(
            isinstance(name, str) and isinstance(tensor, self._torch.Tensor)
            for name, tensor in tensors.items()
        ):
            raise CheckpointError(f"{shard}: expected a dictionary of tensors by name")
        self._opened.append(tensors)
        return list(tensors)

    def _tensor(self, name: str):
        return self._opened[self._place[name]][name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._tensor(name).shape)

    def dtype(self, name: str) -> np.dtype:
        """Dtype of a tensor; an error unless float32, float16 or bfloat16."""
        code = str(self._tensor(name).dtype).removeprefix("torch.")
        return self._known(name, code, {str(dtype): dtype for dtype in DTYPES.values()})

    def pieces(self, name: str, start: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        """A tensor's numbers in one piece, all or `count` from `start` on; bfloat16 travels as its
        bits, which both know."""
        tensor = self._tensor(name).detach().contiguous().reshape(-1)
        tensor = tensor[start : None if count is None else start + count]
        if tensor.dtype == self._torch.bfloat16:
            yield tensor.view(self._torch.int16).numpy().view(ml_dtypes.bfloat16)
        else:
            yield tensor.numpy()


def write_index(path: Path, weight_map: dict[str, str], total_bytes: int) -> None:
    """Write a sharded checkpoint's index."""
    data = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")
