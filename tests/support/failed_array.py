"""An array whose computation ran out of memory: waiting for it raises, reading it would hang."""

import pytest


class FailedArray:
    """Stands in for a jax.Array of the given shape; any part of it failed too."""

    is_fully_addressable = is_fully_replicated = True

    def __init__(self, *shape: int):
        self.shape = shape

    def __getitem__(self, _) -> "FailedArray":
        return FailedArray(*self.shape[1:])

    def block_until_ready(self) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")

    def __array__(self, *_, **__):
        pytest.fail("a failed array was read before it was waited for")
