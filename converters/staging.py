"""A folder that appears whole or not at all, and the room on the disk that it needs."""

import contextlib
import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from converters.errors import CheckpointError


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
