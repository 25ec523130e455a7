"""Rows of a file in any of the forms in which questions and answers are kept.

| file | rows |
| --- | --- |
| lines of JSON | one object a line |
| .json | a list of objects; an object of objects, each named by its key; a list inside an object |
| .csv, .tsv | one a line, named by the first line |
| .parquet, a folder of them | as they lie, the files in order of their names |
| a folder of .json files | one object a file, in order of their names, numbers by value (MATH) |

Any of the text forms may be gzipped. What a file is says its beginning, not its name; csv, tsv and
parquet go by their names.
"""

import csv
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.jsonl import check_characters, open_text, parse_object, read_objects

Record = tuple[str, dict[str, Any]]

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
# Where files keep a list of rows beside other facts.
_LISTS = ("data", "rows", "samples", "details", "examples", "instances", "questions", "results")
_BROKEN = (OSError, EOFError, zlib.error, UnicodeDecodeError)


def read_records(path: Path, holding: str) -> Iterator[Record]:
    """(place, row) of every row; the place is `FILE: line N`, `FILE: row N` or `FILE: key K`.

    Args:
      path: a file or a folder.
      holding: what it holds, for errors.

    Raises:
      InputError: no such file, or it is broken; the message names the place.
    """
    if path.is_dir():
        yield from _folder(path, holding)
        return
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".parquet":
        yield from _parquet(path)
    elif suffix in _SEPARATORS:
        yield from _table(path, holding, _SEPARATORS[suffix])
    else:
        whole = _whole(path)
        yield from read_objects(path, holding) if whole is None else _members(path, whole)


def present(value: Any) -> bool:
    """Whether a field says anything: null, NaN and blank text do not."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value == value


def _whole(path: Path) -> Any:
    """What a file holds as one piece of JSON, or None where it holds lines or is broken."""
    try:
        with open_text(path) as file:
            first = next((line for line in file if line.strip()), "").strip()
            if not first.startswith(("[", "{")):
                return None
            if first.startswith("{"):
                try:
                    alone = json.loads(first)
                except (ValueError, RecursionError):
                    alone = None
                if alone is not None:
                    rest = any(line.strip() for line in file)
                    return None if rest or not _holds_rows(alone) else alone
            file.seek(0)
            text = file.read()
        found = json.loads(text)
    except (*_BROKEN, ValueError, RecursionError):
        return None  # `read_objects` says what is wrong, and where
    rows = isinstance(found, list) and all(isinstance(row, dict) for row in found)
    return found if rows or isinstance(found, dict) else None


def _holds_rows(found: Any) -> bool:
    """Whether an object is not a row itself but holds rows."""
    values = list(found.values())
    if values and all(isinstance(value, dict) for value in values):
        return all(key.isdecimal() for key in found) or (
            len(values) > 1 and bool(set.intersection(*(set(value) for value in values)))
        )
    return _list_in(found) is not None


def _list_in(found: dict[str, Any]) -> str | None:
    for name in _LISTS:
        rows = found.get(name)
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            return name
    return None


def _members(path: Path, whole: Any) -> Iterator[Record]:
    check_characters(whole, str(path))
    if isinstance(whole, dict):
        if not _holds_rows(whole):
            yield f"{path}: row 1", whole
            return
        name = _list_in(whole)
        if name is None:
            for key, row in whole.items():
                yield f"{path}: key {key}", {"id": key} | row
            return
        whole = whole[name]
    for number, row in enumerate(whole, start=1):
        yield f"{path}: row {number}", row


def _table(path: Path, holding: str, separator: str) -> Iterator[Record]:
    try:
        with open_text(path) as file:
            text = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: expected a table with {holding}, found none") from None
    except _BROKEN as error:
        raise InputError(f"{path}: expected a table in UTF-8, found {error}") from None
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for row in rows:
            place = f"{path}: line {rows.line_num}"
            if None in row or None in row.values():
                raise InputError(
                    f"{place}: expected {len(rows.fieldnames)} fields as in the first line, found "
                    "another number"
                )
            yield place, row
    except csv.Error as error:
        raise InputError(f"{path}: line {rows.line_num}: expected a table, found {error}") from None


def _parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            f"{path}: expected pyarrow, which reads parquet, found none; pip install pyarrow to "
            "read it, or pass a jsonl file"
        ) from None
    try:
        rows = pyarrow.parquet.ParquetFile(path).read().to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        found = " ".join(str(error).split())
        raise InputError(f"{path}: expected a parquet file, found {found}") from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}: row {number}", row


def _folder(path: Path, holding: str) -> Iterator[Record]:
    """Parquet files are parts of one table; json files of a folder are one row each."""
    tables = sorted(path.rglob("*.parquet"))
    parents = sorted({table.parent for table in tables})
    if len(parents) > 1:  # the Hub keeps one configuration a folder
        chosen = [parent for parent in parents if parent.name in ("main", "default", "test")]
        if len(chosen) != 1:
            raise InputError(
                f"{path}: expected one folder of parquet files with {holding}, found "
                f"{', '.join(str(parent.relative_to(path)) for parent in parents)}; name one"
            )
        tables = [table for table in tables if table.parent == chosen[0]]
    if tables:
        splits = {re.split(r"[-_.]", table.name)[0] for table in tables}
        if len(splits) > 1 and "test" in splits:
            tables = [table for table in tables if table.name.startswith("test")]
        elif len(splits) > 1:
            raise InputError(
                f"{path}: expected one split's parquet files with {holding}, found "
                f"{', '.join(sorted(splits))}; name one file"
            )
        for table in tables:
            yield from _parquet(table)
        return
    split = path / "test" if (path / "test").is_dir() else path
    files = sorted(split.rglob("*.json"), key=_natural)
    if not files:
        raise InputError(
            f"{path}: expected a file, or a folder of parquet or json files, with {holding}, found "
            "a directory without any"
        )
    for file in files:
        try:
            with open_text(file) as opened:
                yield str(file), parse_object(opened.read(), str(file))
        except _BROKEN as error:
            raise InputError(f"{file}: expected a JSON object in UTF-8, found {error}") from None


def _natural(path: Path) -> list[tuple[int, str]]:
    """2.json comes before 10.json."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", str(path))
    ]
