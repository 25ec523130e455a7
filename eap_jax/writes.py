"""The buffer of all residual writes, [B, W, T, D]: its place on a mesh, its sum, its contraction."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from eap_jax.sharding import Layout


def whole(layout: Layout | None, stream_BTD: jax.Array) -> jax.Array:
    """A stream, gradient or write pinned to its place on a mesh, or left alone without one."""
    return stream_BTD if layout is None else layout.whole(stream_BTD)


def apart(layout: Layout | None, writes_BWTD: jax.Array) -> jax.Array:
    """The buffer of all writes pinned to its place on a mesh, or left alone without one."""
    return writes_BWTD if layout is None else layout.apart(writes_BWTD)


def stream_before(writes_BWTD: jax.Array, number: jax.Array | int) -> jax.Array:
    """The stream that layer `number` reads.

    The writes are added in the order of the forward pass, so the sum has the same bits as there.
    """

    def add(writer, stream_BTD):
        return stream_BTD + jax.lax.dynamic_index_in_dim(writes_BWTD, writer, 1, False)

    return jax.lax.fori_loop(1, 1 + 2 * number, add, writes_BWTD[:, 0])


def contract(writes_BWTD: jax.Array, grads: Sequence[jax.Array]) -> jax.Array:
    """- sum over T and D of writes times gradients, no edge mask.

    Args:
      writes_BWTD: all writes.
      grads: groups of gradients [B, R, T', D]; beyond T' they are zero.

    Returns:
      [B, W, all R of all groups] float32.
    """
    length = writes_BWTD.shape[2]
    # T and D as one axis Y: contracted as two, XLA would first transpose a copy of the writes.
    writes_BWY = writes_BWTD.reshape(*writes_BWTD.shape[:2], -1)

    def product(grads_BRTD):
        beyond = length - grads_BRTD.shape[2]
        padded_BRTD = jnp.pad(grads_BRTD, ((0, 0), (0, 0), (0, beyond), (0, 0)))
        return -jnp.einsum(
            "BWY,BRY->BWR",
            writes_BWY,
            padded_BRTD.reshape(*padded_BRTD.shape[:2], -1),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )

    # One product for each group: on a CPU a single product with four groups takes twice the time.
    return jnp.concatenate([product(grads_BRTD) for grads_BRTD in grads], axis=-1)
