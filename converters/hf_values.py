"""Values of config.json, checked: of the right kind, finite, and of a size that an array can have."""

import reprlib
from typing import Any

from converters.errors import CheckpointError

# An axis of an array is counted in 32 bits.
LARGEST_SIZE = 2**31 - 1
# Far beyond any model; checked before anything with one entry a layer is made.
MOST_LAYERS = 100_000
LARGEST_HEAD = 2**16
# Frequencies, norms and logits are float32.
LARGEST_NUMBER = 3.4e38
SMALLEST_NUMBER = 1.2e-38

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: Any) -> str:
    """A value for a message: one short line, whatever its size."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    return _SHORT.repr(value)


def flag(data: dict[str, Any], key: str, default: bool, place: str) -> bool:
    """A key that is true or false; `default` where it is missing or null."""
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointError(f"{place}: {key}: expected true or false, found {shown(value)}")
    return value


def whole(
    data: dict[str, Any], key: str, place: str, *, least: int = 1, most: int = LARGEST_SIZE
) -> int:
    """A key that is there and is a whole number from `least` to `most`."""
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = "a positive whole number" if least == 1 else f"a whole number, {least} or more"
        raise CheckpointError(f"{place}: {key}: expected {kind}, found {shown(value)}")
    if value > most:
        raise CheckpointError(
            f"{place}: {key}: expected a whole number of at most {most}, found {shown(value)}"
        )
    return value


def number(value: Any, name: str, *, least: float = SMALLEST_NUMBER) -> float:
    """A number that float32 can hold, of at least `least`; `name` is what the message begins with."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not least <= value <= LARGEST_NUMBER:
        kind = "a positive number" if least > 0 else "a number, 0 or more,"
        raise CheckpointError(f"{name}: expected {kind} that float32 holds, found {shown(value)}")
    return value
