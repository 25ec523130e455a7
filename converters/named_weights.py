"""The weights of a checkpoint under Hugging Face's names, whatever wrapped the model before."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from converters.errors import CheckpointError
from converters.pieces import assemble
from converters.tensor_names import left_out, plain_names


class NamedReader:
    """Reads another reader's tensors by their plain names; a context manager, as that one.

    Args:
      reader: of the files.

    Attributes:
      notes: one line about everything that was renamed or left out.

    Raises:
      CheckpointError: two tensors get the same name.
    """

    def __init__(self, reader):
        self._reader = reader
        plain = plain_names(reader.names)
        self._own: dict[str, str] = {}
        self._left_out: dict[str, list[str]] = {}
        for own, name in plain.items():
            kind = left_out(name)
            if kind is not None:
                self._left_out.setdefault(kind, []).append(own)
                continue
            if name in self._own:
                raise CheckpointError(
                    f"{reader.file_of(own)}: tensor {own}: is also there as {self._own[name]}"
                )
            self._own[name] = own
        self._renamed = next(((o, n) for n, o in self._own.items() if o != n), None)

    def __enter__(self):
        self._reader.__enter__()
        return self

    def __exit__(self, *problem):
        return self._reader.__exit__(*problem)

    @property
    def notes(self) -> list[str]:
        """One line about everything that was renamed or left out."""
        notes = list(getattr(self._reader, "notes", ()))
        if self._renamed:
            notes.append(f"tensors are read without their prefixes: {self._renamed[0]} is "
                         f"{self._renamed[1]}")  # fmt: skip
        if self._left_out:
            kinds = [f"{kind} ({_listed(names)})" for kind, names in self._left_out.items()]
            notes.append(
                f"left out, since the language model does not use them: {'; '.join(kinds)}"
            )
        return notes

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._own)

    def share(self, name: str, other: str) -> None:
        """Read a tensor by another name too: that of one which the model ties to it."""
        self._own[other] = self._own[name]

    def leave_out_zeros(self, names: Iterable[str]) -> set[str]:
        """Leave out those of the tensors that are biases of zeros, which change nothing.

        Args:
          names: of tensors that the model has no place for.

        Returns:
          the names that were left out.

        Raises:
          CheckpointError: as `pieces`.
        """
        zeros = {
            name
            for name in names
            if name.endswith(".bias") and not any(piece.any() for piece in self.pieces(name))
        }
        if zeros:
            own = [self._own.pop(name) for name in sorted(zeros)]
            self._left_out["biases that are zero"] = own
        return zeros

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor, for messages."""
        return self._reader.file_of(self._own[name])

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return self._reader.shape(self._own[name])

    def dtype(self, name: str) -> np.dtype:
        """Dtype of a tensor, without reading it; raises as the reader."""
        return self._reader.dtype(self._own[name])

    def pieces(self, name: str, *part: int) -> Iterator[np.ndarray]:
        """A tensor's numbers in order, all or those of a part (start, count); raises as the reader."""
        return self._reader.pieces(self._own[name], *part)

    def read(self, name: str) -> np.ndarray:
        """One tensor, a copy of its own; raises as the reader."""
        return assemble(self.pieces(name), self.shape(name), self.dtype(name))


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
