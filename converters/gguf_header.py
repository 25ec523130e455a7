"""The header of a GGUF file, read up to its data.

The file (version 2 or 3, little endian): the magic `GGUF`, the version, the numbers of tensors and of
metadata keys, the metadata, the table (name, sizes, type and place of every tensor), the data at
multiples of `general.alignment`. Source: ggml's docs/gguf.md. A model may be split into files
`NAME-00001-of-00003.gguf`, of which the first has the metadata and each the table of its own tensors
(`split.no`, `split.count`, `split.tensors.count`; llama.cpp's llama-gguf-split). The `gguf` package's
reader is not used: it makes several arrays of every word of the vocabulary, maps the file, and never
ends on a file whose header claims more than there is.
"""

import dataclasses
import importlib.metadata
import math
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from converters.errors import CheckpointError
from converters.gguf_file import GGUFFile, StoredTensor

# Types of metadata values by their number; 8 is a string and 9 an array.
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8",
    11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
# Far above the longest vocabulary and template: a broken length in a large file must not be believed
# because the file is as large.
_MOST = 2**24
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def read_header(path: str | Path) -> GGUFFile:
    """Read a file up to its data, and those of a split model's other files; every size is held against
    the file's own before it is believed.

    Args:
      path: the file; of a split model the first.

    Raises:
      CheckpointError: not a whole file of version 2 or 3, or a part of the model is missing.
    """
    first = _read_one(Path(path))
    count = first.metadata.get("split.count", 0)
    if type(count) is not int or not 0 <= count < 10**5:
        raise CheckpointError(
            f"{path}: split.count: expected a number of files, found {count!r:.80}"
        )
    if count < 2:
        return first
    name = _PART.fullmatch(first.path.name)
    if name is None or int(name[3]) != count:
        raise CheckpointError(
            f"{path}: split.count: expected {count} files named {_part_name('NAME', 1, count)} and so "
            "on, found another name; name them as they were"
        )
    parts = [first.path.with_name(_part_name(name[1], n, count)) for n in range(1, count + 1)]
    if first.metadata.get("split.no") != 0:
        raise CheckpointError(
            f"{path}: is a later part of a split model; pass the first, {parts[0]}"
        )
    tensors = dict(first.tensors)
    for number, part in enumerate(parts[1:], start=1):
        if not part.is_file():
            raise CheckpointError(f"{part}: no such file, of the {count} parts of a split model")
        found = _read_one(part)
        for key, expected in (("split.no", number), ("split.count", count)):
            if found.metadata.get(key) != expected:
                raise CheckpointError(
                    f"{part}: {key}: expected {expected}, found {found.metadata.get(key)!r:.80}"
                )
        if twice := sorted(set(tensors) & set(found.tensors)):
            raise CheckpointError(f"{part}: tensor {twice[0]}: expected each once, found it twice")
        tensors |= found.tensors
    stated = first.metadata.get("split.tensors.count", len(tensors))
    if stated != len(tensors):
        raise CheckpointError(
            f"{path}: split.tensors.count: expected {stated!r:.80} tensors in {count} files, found "
            f"{len(tensors)}"
        )
    return dataclasses.replace(first, tensors=tensors, parts=tuple(parts))


def part_names(name: str) -> list[str]:
    """Names of all files of a split model by that of one, or the one name."""
    found = _PART.fullmatch(name)
    if found is None:
        return [name]
    count = int(found[3])
    return [_part_name(found[1], number, count) for number in range(1, count + 1)]


def _part_name(prefix: str, number: int, count: int) -> str:
    return f"{prefix}-{number:05d}-of-{count:05d}.gguf"


def _read_one(path: Path) -> GGUFFile:
    try:
        with path.open("rb") as file:
            reader = _Header(path, file)
            return reader.read()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None


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
        return GGUFFile(path=self._path, metadata=metadata, tensors=tensors, parts=(self._path,))

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
        return StoredTensor(
            path=self._path, shape=shape, kind=kind.name, offset=start + offset, row_bytes=row_bytes
        )


def _package_version() -> str:
    return importlib.metadata.version("gguf")
