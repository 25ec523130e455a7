"""A JSON object from a file of a checkpoint."""

import json
import math
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      CheckpointError: no such file, not JSON, or not an object.
    """
    try:
        data = json.loads(
            path.read_text(encoding="utf-8"), parse_constant=_refuse, parse_float=_finite
        )
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except ValueError as error:  # not JSON, not UTF-8, NaN, or beyond a float
        raise CheckpointError(f"{path}: expected JSON, found {error}") from None
    except RecursionError:
        raise CheckpointError(
            f"{path}: expected JSON, found objects or lists nested too deeply"
        ) from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def _refuse(text: str):
    raise ValueError(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]}, which is beyond every float")
    return value
