"""Causal grouped-query attention over slots: the same function serves texts and the KV cache.

A slot is a place in the key/value buffer. A text fills its slots from 0; a batch of prompts of
different lengths ends in the same slot, and each row's first used slot is its `start`.
"""

import jax
import jax.numpy as jnp

# Queries of a text that attend together; more of them in texts beyond 16 such groups.
_QUERIES, _MOST_GROUPS = 128, 16


def visible(
    query_slots_T: jax.Array,
    key_slots_S: jax.Array,
    *,
    window: jax.Array | int | None = None,
    start_B: jax.Array | None = None,
) -> jax.Array:
    """Which key each query may see.

    Args:
      query_slots_T, key_slots_S: slot numbers.
      window: number of keys a query sees, itself included, or None for all of the past.
      start_B: first used slot of each row, or None for 0.

    Returns:
      [B or 1, 1, T, S] bool, ready to broadcast over heads.
    """
    distance_TS = query_slots_T[:, None] - key_slots_S[None, :]
    seen = distance_TS >= 0
    if window is not None:
        seen &= distance_TS < window
    seen = seen[None, None]
    if start_B is not None:
        seen = seen & (key_slots_S[None, :] >= start_B[:, None])[:, None, None, :]
    return seen


def attend(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, seen: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(H)) v, each group of N/K query heads sharing one key/value head.

    Args:
      q_BTNH: rotated queries.
      k_BSKH: rotated keys.
      v_BSKH: values.
      seen: [B or 1, 1, T, S] bool from `visible`.

    Returns:
      [B, T, N, H] in the queries' dtype; logits and softmax are float32. A query that sees no key
      (a padded place) gets a finite, meaningless value.
    """
    return jax.nn.dot_product_attention(q_BTNH, k_BSKH, v_BSKH, mask=seen, implementation="xla")


def attend_text(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, window: jax.Array | int | None = None
) -> jax.Array:
    """`attend` of texts that fill their slots from 0, a group of queries at a time.

    A group is only held against the keys up to its own last place, so nearly half of all logits
    are never computed, forward or backward.

    Args:
      q_BTNH, k_BTKH, v_BTKH: of all T places.
      window: see `visible`.

    Returns:
      [B, T, N, H] in the queries' dtype.
    """
    length = q_BTNH.shape[1]
    group = max(_QUERIES, -(-length // _MOST_GROUPS))
    slots_T, mixed = jnp.arange(length), []
    for first in range(0, length, group):
        end = min(first + group, length)
        seen = visible(slots_T[first:end], slots_T[:end], window=window)
        mixed.append(attend(q_BTNH[:, first:end], k_BTKH[:, :end], v_BTKH[:, :end], seen))
    return jnp.concatenate(mixed, axis=1)
