"""A GGUF file: its metadata and the table of its tensors, and a tensor's rows as numbers.

The file (version 2 or 3, little endian): the magic `GGUF`, the version, the numbers of tensors and of
metadata keys, the metadata, the table (name, sizes, type and place of every tensor), the data at
multiples of `general.alignment`. Source: ggml's docs/gguf.md. Types and their dequantisation are the
`gguf` package's. Its reader is not used: it makes several arrays of every word of the vocabulary, maps
the file, and never ends on a file whose header claims more than there is.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from converters.errors import CheckpointError

# Types of metadata values by their number; 8 is a string and 9 an array.
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8",
    11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
# Far above the longest vocabulary and template: a broken length in a large file must not be believed
# because the file is as large.
_MOST = 2**24
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
      offset: of its first byte in the file.
      row_bytes: of one row, the last axis.
    """

    shape: tuple[int, ...]
    kind: str
    offset: int
    row_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GGUFFile:
    """What a file says before its data.

    Attributes:
      path: the file.
      metadata: every key; integers, floats, bools, strings, and lists of these.
      tensors: by the file's own names.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]

    def rows(self, file: BinaryIO, name: str, first: int, count: int) -> np.ndarray:
        """Rows of a tensor, all but its last axis taken as one, dequantised.

        Args:
          file: this file, open and unbuffered.
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
                raise CheckpointError(f"{self.path}: tensor {name}: the file ends inside it")
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


def read_header(path: str | Path) -> GGUFFile:
    """Read a file up to its data; every size is held against the file's own before it is believed.

    Raises:
      CheckpointError: not a whole file of version 2 or 3.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            reader = _Header(path, file)
            return reader.read()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None


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


class _Header:
    """The file from its first byte to its data, each part checked against what is left."""

    def __init__(self, path: Path, file: BinaryIO):
        self._path, self._file = path, file
        self._size, self._at = path.stat().st_size, 0

    def read(self) -> GGUFFile:
        magic = self._take(4, "its magic")
        if magic != b"GGUF":
            raise self._error(f"expected a GGUF file, which begins with b'GGUF', found {magic!r}")
        version = self._number("<u4")
        if version not in (2, 3):
            raise self._error(f"expected GGUF version 2 or 3, little endian, found {version}")
        num_tensors, num_keys = self._count(24, "tensors", ahead=8), self._count(12, "keys")
        metadata = {}
        for _ in range(num_keys):
            key = self._text("a key")
            if key in metadata:
                raise self._error(f"{key}: expected each key once, found it twice")
            metadata[key] = self._value(self._number("<u4"), key)
        entries = {}
        for _ in range(num_tensors):
            name = self._text("a tensor's name")
            if name in entries:
                raise self._error(f"tensor {name}: expected each tensor once, found it twice")
            entries[name] = self._entry(name)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise self._error(f"general.alignment: expected a power of two, found {alignment!r}")
        start = -(-self._at // alignment) * alignment
        tensors = {name: self._placed(name, start, *entry) for name, entry in entries.items()}
        return GGUFFile(path=self._path, metadata=metadata, tensors=tensors)

    def _error(self, text: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {text}")

    def _take(self, count: int, what: str) -> bytes:
        if count > self._size - self._at:
            raise self._error(
                f"{what}: expected {count:,} more bytes at byte {self._at:,}, found "
                f"{self._size - self._at:,}; the file is broken or was not downloaded whole"
            )
        self._at += count
        return self._file.read(count)

    def _number(self, kind: str, what: str = "its header") -> Any:
        dtype = np.dtype(kind)
        return np.frombuffer(self._take(dtype.itemsize, what), dtype)[0].item()

    def _count(self, least: int, what: str, *, ahead: int = 0) -> int:
        """A number of things of at least so many bytes, `ahead` bytes before the first of them."""
        count = self._number("<u8")
        left = self._size - self._at - ahead
        if count * least > left or count > _MOST:
            raise self._error(
                f"{what}: expected as many as {max(left, 0):,} bytes hold, {_MOST:,} at most, found "
                f"{count:,}; the file is broken or was not downloaded whole"
            )
        return count

    def _text(self, what: str) -> str:
        length = self._count(1, what)
        try:
            return self._take(length, what).decode()
        except UnicodeDecodeError:
            raise self._error(f"{what}: expected UTF-8, found other bytes") from None

    def _value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind], key)
        if kind == _STRING:
            return self._text(key)
        if kind != _ARRAY:
            raise self._error(f"{key}: expected a type of metadata, found number {kind}")
        kind = self._number("<u4", key)
        if kind in _SCALARS:
            dtype = np.dtype(_SCALARS[kind])
            count = self._count(dtype.itemsize, key)
            return np.frombuffer(self._take(count * dtype.itemsize, key), dtype).tolist()
        if kind != _STRING:
            raise self._error(f"{key}: expected an array of numbers or strings, found type {kind}")
        return [self._text(key) for _ in range(self._count(8, key))]

    def _entry(self, name: str) -> tuple[tuple[int, ...], int, int]:
        place = f"tensor {name}"
        axes = self._number("<u4", place)
        if not 1 <= axes <= 4:
            raise self._error(f"{place}: expected 1 to 4 axes, found {axes}")
        sizes = np.frombuffer(self._take(8 * axes, place), "<u8").tolist()
        return tuple(reversed(sizes)), self._number("<u4", place), self._number("<u8", place)

    def _placed(
        self, name: str, start: int, shape: tuple[int, ...], number: int, offset: int
    ) -> StoredTensor:
        import gguf

        try:
            kind = gguf.GGMLQuantizationType(number)
        except ValueError:
            raise self._error(
                f"tensor {name}: expected a type that gguf {_package_version()} knows, found number "
                f"{number}"
            ) from None
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        if 0 in shape or shape[-1] % block:
            raise self._error(
                f"tensor {name}: expected rows of whole blocks of {block} numbers ({kind.name}), found "
                f"shape {shape}"
            )
        row_bytes = shape[-1] // block * block_bytes
        end = start + offset + row_bytes * math.prod(shape[:-1])
        if end > self._size:
            raise self._error(
                f"tensor {name}: expected {end:,} bytes of file, found {self._size:,}; the file is "
                "broken or was not downloaded whole"
            )
        return StoredTensor(shape=shape, kind=kind.name, offset=start + offset, row_bytes=row_bytes)


def _package_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("gguf")
