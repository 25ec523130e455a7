"""The buffer of writes is contracted and summed as plain numpy does it."""

import functools

import jax.numpy as jnp
import numpy as np
import toys

from eap_jax import writes


def test_the_contraction_is_minus_the_sum_over_places_and_width():
    """In float64, loops over nothing; groups of unequal lengths, bfloat16 as well."""
    rng = np.random.default_rng(1)
    writes_BWTD = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    groups = [rng.normal(size=(2, 4, length, 3)).astype(np.float32) for length in (7, 4)]
    expected = np.concatenate(
        [
            -np.einsum("BWTD,BRTD->BWR", writes_BWTD[:, :, : g.shape[2]].astype(np.float64), g)
            for g in groups
        ],
        axis=-1,
    )
    assert toys.relative(writes.contract(writes_BWTD, groups), expected) <= 1e-6
    low = functools.partial(jnp.asarray, dtype=jnp.bfloat16)
    found = writes.contract(low(writes_BWTD), [low(group) for group in groups])
    assert found.dtype == jnp.float32
    assert toys.relative(found, expected) <= 1e-2


def test_the_stream_before_a_layer_is_the_sum_of_the_writes_before_it():
    writes_BWTD = np.random.default_rng(2).normal(size=(2, 7, 3, 4)).astype(np.float32)
    for number in range(4):
        expected = writes_BWTD[:, : 1 + 2 * number].sum(axis=1, dtype=np.float64)
        found = writes.stream_before(jnp.asarray(writes_BWTD), number)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
