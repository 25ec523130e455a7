"""The run directory: where each file lies, atomic writes, and the published npz format.

    <workdir>/<pair>/manifest.json, report.html, table.md, table.csv
    <workdir>/<pair>/<dataset>/answers.json, checkpoint_files.json, responses_{base,rl}.jsonl,
        all_correct.jsonl
    <workdir>/<pair>/<dataset>/cut<alpha>/results_<series>_<dataset>_<side>_cut<alpha>.npz
    <workdir>/<pair>/<dataset>/cut<alpha>/cell.json, metrics.json, views.csv
    <workdir>/<pair>/<dataset>/cut<alpha>/effects_<side>.npz, logit_difference_<side>.npz,
        fidelity_plan.json (what is cut), fidelity.json

Every file is written under a temporary name and renamed, so it is whole or absent. The name is the
same each time: what a kill leaves is overwritten. A file has one writer at a time, by grid's locks.
"""

import dataclasses
import io
import json
import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from eap_jax.graph import num_layers_of
from experiments.errors import InputError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write an indented JSON file; a number that is not finite becomes null."""
    write_text(path, json.dumps(_finite(data), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      InputError: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected JSON, found {error}") from None


def cell_directory(dataset_directory: Path, alpha: float, suffix: str = "") -> Path:
    """Directory of one cell's results; the suffix tells apart cells of one alpha."""
    return dataset_directory / f"cut{alpha:g}{suffix}"


def results_path(cell: Path, series: str, dataset: str, side: str, alpha: float) -> Path:
    """Published name of one side's score file."""
    return cell / f"results_{series}_{dataset}_{side}_cut{alpha:g}.npz"


def write_results(path: Path, scores_nWR: np.ndarray) -> None:
    """Write `scores` (the mean, [W, R]) and `all_scores` [N, W, R]; equal arrays, equal bytes."""
    write_arrays(path, scores=scores_nWR.mean(axis=0), all_scores=scores_nWR)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays by name as an npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named arrays of an npz file.

    Raises:
      InputError: no such file, not an npz of arrays, or a missing key.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        # numpy leaves a file open that it opened itself and cannot read.
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("one array")
            found = {}
            for name in arrays.files:
                _check_size(arrays.zip, name)
                found[name] = arrays[name]
    except MemoryError as error:
        raise InputError(
            f"{path}: expected arrays that fit in memory, found {error or 'larger ones'}"
        ) from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: expected an npz file of arrays, found {error}") from None
    for key in keys:
        if key not in found:
            raise InputError(f"{path}: expected the key {key}, found {sorted(found)}")
    return found


def _check_size(archive: zipfile.ZipFile, name: str) -> None:
    """A member holds what its header claims, or ValueError: numpy would first allocate the claim."""
    member = archive.NameToInfo.get(f"{name}.npy")
    if member is None:
        return
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            return
        shape, _, dtype = readers[version](file)
        held = member.file_size - file.tell()
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != held:
        raise ValueError(
            f"{name} {dtype} {shape}: its header claims {claimed:,} bytes, the file has {held:,}"
        )


def read_results(path: str | Path) -> np.ndarray:
    """`all_scores` of a published-format file, float32 [N, W, R].

    Raises:
      InputError: no such file, not an npz of arrays, a missing key, wrong shapes, or a NaN.
    """
    found = read_arrays(Path(path), ("scores", "all_scores"))
    for key, rank in (("scores", 2), ("all_scores", 3)):
        array = found[key]
        if array.ndim != rank or not np.issubdtype(array.dtype, np.floating):
            raise InputError(
                f"{path}: {key}: expected {rank} axes of floats, found {array.dtype} {array.shape}"
            )
        if not np.isfinite(array).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise InputError(
                f"{path}: {key}: expected finite numbers, found {array[place]} at {place}"
            )
    all_scores = found["all_scores"]
    if not len(all_scores) or found["scores"].shape != all_scores.shape[1:]:
        raise InputError(
            f"{path}: expected scores of one sample's shape, found {found['scores'].shape} and "
            f"all_scores {all_scores.shape}"
        )
    try:
        num_layers_of(*all_scores.shape[1:])
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return all_scores.astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effects:
    """Exact effects of some samples.

    Attributes:
      effects_mWR: float32, NaN where an edge was not cut.
      rows_m: int, the samples' places in the cell's all_scores.
    """

    effects_mWR: np.ndarray
    rows_m: np.ndarray


def read_effects(path: Path, shape: tuple[int, ...]) -> Effects:
    """A file of exact effects.

    Args:
      path: effects_<side>.npz.
      shape: [n, W, R] of the scores that the effects belong to.

    Raises:
      InputError: no such file, not an npz of arrays, a missing key, or wrong shapes or rows.
    """
    found = read_arrays(path, ("effects", "rows"))
    effects, rows = found["effects"], found["rows"]
    if (
        not np.issubdtype(effects.dtype, np.floating)
        or not np.issubdtype(rows.dtype, np.integer)
        or not len(rows)
        or effects.shape != (rows.size, *shape[1:])
    ):
        raise InputError(
            f"{path}: expected effects [m, {shape[1]}, {shape[2]}] of m rows, found {effects.dtype} "
            f"{effects.shape} and {rows.dtype} {rows.shape}"
        )
    if not (rows.min() >= 0 and rows.max() < shape[0]) or np.isinf(effects).any():
        raise InputError(
            f"{path}: expected rows from 0 to {shape[0] - 1} and no infinity, found rows "
            f"{rows.min()} to {rows.max()}"
        )
    return Effects(effects_mWR=effects.astype(np.float32), rows_m=rows)


def claim(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a directory's results, or check that the saved ones are the same.

    Raises:
      InputError: the directory holds results of other settings.
    """
    settings = json.loads(json.dumps(_finite(settings)))
    if not path.exists():
        write_json(path, settings)
        return
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected settings by name, found {type(found).__name__}")
    if found != settings:
        name, here, there = _first_difference(settings, found)
        raise InputError(
            f"{path}: holds results of other settings: {name}: expected {here!r:.60}, "
            f"found {there!r:.60}; choose another --workdir"
        )


def _first_difference(one: Any, other: Any) -> tuple[str, Any, Any]:
    """Where two different settings differ first, `questions.number`, and what each says."""
    names = []
    while isinstance(one, dict) and isinstance(other, dict):
        name = min(key for key in one | other if one.get(key) != other.get(key))
        names.append(name)
        one, other = one.get(name), other.get(name)
    return ".".join(names), one, other


def restored(data: Any) -> Any:
    """What `write_json` was given, from what `read_json` returns: null is NaN, a list a tuple."""
    if isinstance(data, dict):
        return {key: restored(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return tuple(restored(value) for value in data)
    return math.nan if data is None else data


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not np.isfinite(data):
        return None
    return data
