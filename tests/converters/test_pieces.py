"""An array from pieces has their numbers in order, in the wanted dtype, where JAX need not copy it."""

import ml_dtypes
import numpy as np
import pytest

from converters.pieces import assemble


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_numbers_stand_in_order_and_are_cast(dtype):
    whole = np.random.default_rng(0).normal(size=105)
    found = assemble(np.split(whole, [1, 40, 40, 100]), (3, 5, 7), np.dtype(dtype))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, whole.astype(dtype).reshape(3, 5, 7))
    assert assemble([], (0, 4), np.dtype(dtype)).shape == (0, 4)


def test_every_array_begins_at_a_multiple_of_64_bytes():
    """numpy's own begin at multiples of 16; all are kept, so that none takes the place of another."""
    kept = [assemble([np.ones(size)], (size,), np.dtype(np.float32)) for size in range(1, 60)]
    assert {array.ctypes.data % 64 for array in kept} == {0}
    assert all((array == 1).all() for array in kept)
