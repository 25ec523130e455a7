"""A GGUF file: its metadata and the table of its tensors, and a tensor's rows as numbers.

Types and their dequantisation are the `gguf` package's; the header is read by `gguf_header`.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from converters.errors import CheckpointError

# Types that are numbers as they lie; all others are blocks of quantised numbers, or no weights.
PLAIN = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor's entry in the table.

    Attributes:
      shape: output axes first, as Hugging Face has them (the file lists them the other way).
      kind: ggml's name of its type, such as `F16` or `Q4_K`.
      path: the file that holds it.
      offset: of its first byte in that file.
      row_bytes: of one row, the last axis.
    """

    path: Path
    shape: tuple[int, ...]
    kind: str
    offset: int
    row_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GGUFFile:
    """What a file says before its data.

    Attributes:
      path: the file; of a split model the first.
      metadata: every key of that file; integers, floats, bools, strings, and lists of these.
      tensors: by the file's own names, of a split model those of all files.
      parts: all files.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]
    parts: tuple[Path, ...]

    def open(self, name: str) -> BinaryIO:
        """The file that holds a tensor, for `rows`."""
        return self.tensors[name].path.open("rb", buffering=0)

    def rows(self, file: BinaryIO, name: str, first: int, count: int) -> np.ndarray:
        """Rows of a tensor, all but its last axis taken as one, dequantised.

        Args:
          file: `open(name)`.
          name: of the tensor.
          first, count: which rows.

        Returns:
          [count, last axis]: the type of plain tensors, float32 of quantised ones.

        Raises:
          CheckpointError: the file ends early.
        """
        tensor = self.tensors[name]
        file.seek(tensor.offset + first * tensor.row_bytes)
        raw = np.empty(count * tensor.row_bytes, np.uint8)
        unread = memoryview(raw)
        while unread:
            done = file.readinto(unread)
            if not done:
                raise CheckpointError(f"{tensor.path}: tensor {name}: the file ends inside it")
            unread = unread[done:]
        if tensor.kind in PLAIN:
            return raw.view(PLAIN[tensor.kind]).reshape(count, -1)
        from gguf import quants

        # A broken file's scales may overflow; what is not finite is found where it is read.
        with np.errstate(all="ignore"):
            return quants.dequantize(raw.reshape(count, -1), _types()[tensor.kind])


def is_gguf(path: str | Path) -> bool:
    """Whether a path is a file with the suffix of this format."""
    return Path(path).suffix.lower() == ".gguf" and Path(path).is_file()


@functools.cache
def supported(kind: str) -> bool:
    """Whether a tensor's type is plain or one that `gguf` dequantises."""
    if kind in PLAIN:
        return True
    import gguf

    if kind not in _types():
        return False
    block = np.zeros((1, gguf.GGML_QUANT_SIZES[_types()[kind]][1]), np.uint8)
    try:
        gguf.quants.dequantize(block, _types()[kind])
    except NotImplementedError:
        return False
    return True


@functools.cache
def _types() -> dict[str, Any]:
    """ggml's types by name."""
    # Imported where a file is of this format: other checkpoints do not pay for it.
    import gguf

    return {kind.name: kind for kind in gguf.GGMLQuantizationType}
