"""Causal grouped-query attention over slots: the same function serves texts and the KV cache.

A slot is a place in the key/value buffer. A text fills its slots from 0; a batch of prompts of
different lengths ends in the same slot, and each row's first used slot is its `start`.
"""

import jax


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
