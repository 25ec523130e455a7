"""Rows of a jsonl file that people or other programs wrote, each with its place for errors."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from experiments.errors import InputError

_GZIP = b"\x1f\x8b"


def read_objects(path: Path, holding: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of every line that is not blank; the place is `FILE: line N`.

    Lines end at a newline only: a string may hold other line separators of Unicode.

    Args:
      path: the file, UTF-8, perhaps gzipped; a byte order mark is no text.
      holding: what it holds, for errors.

    Raises:
      InputError: no such file, not UTF-8, or a line is no JSON object that can be written again.
    """
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    place = f"{path}: line {number}"
                    yield place, parse_object(line.rstrip("\r\n"), place)
    except FileNotFoundError:
        raise InputError(f"{path}: expected a jsonl file with {holding}, found none") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a jsonl file in UTF-8, found {error}") from None


def open_text(path: Path) -> IO[str]:
    """A text file in UTF-8, unpacked where it is gzipped, whatever its name; OSError as `open`."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    opened = gzip.open if packed else open
    return opened(path, "rt", encoding="utf-8-sig", newline="\n")


def parse_object(line: str, place: str) -> dict[str, Any]:
    """The object that a text holds; `place` names it in errors.

    Raises:
      InputError: it is no JSON object that can be written again.
    """
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:  # its own text would name line 1, of this line
        raise InputError(
            f"{place}: expected a JSON object, found broken JSON at column {error.colno}: "
            f"{error.msg}"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of too many digits; endless brackets
        raise InputError(f"{place}: expected a JSON object, found broken JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{place}: expected a JSON object, found {type(found).__name__}")
    if "\\u" in line:
        check_characters(found, place)
    return found


def check_characters(found: Any, place: str) -> None:
    """Refuse text that cannot be written again: half of a surrogate pair.

    Raises:
      InputError: there is one.
    """
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"{place}: expected text, found half a character (\\ud...)") from None
