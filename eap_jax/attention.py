"""Causal grouped-query attention over slots: the same function serves texts and the KV cache.

A slot is a place in the key/value buffer. A text fills the slots from 0 on. Prompts of different
lengths in one batch end in the same slot, and `start` is the first slot that a row uses.

The head axis comes before the place axis, so each product is over contiguous matrices, one a head.
With places first, as in `jax.nn.dot_product_attention`, each product copies its operands, forward
and backward, and each decoding step copies the whole cache.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from eap_jax.layers import softcap

# A text's queries attend in groups of at least so many, and at most so many groups. A GPU compiles for
# two to three seconds a group, since every group has its own shapes, and computes them in no time.
_GROUPS = {"cpu": (64, 16), "default": (512, 4)}
# Logit of a key that is not seen: its softmax weight is 0, and the number cannot overflow.
_UNSEEN = -0.7 * float(jnp.finfo(jnp.float32).max)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitRule:
    """How attention's logits are made of products of queries and keys.

    Attributes:
      scale: multiplies the products; None: 1 / sqrt(H).
      softcap: c of c * tanh(x / c) on the scaled products, or None.
    """

    scale: float | None = None
    softcap: float | None = None


PLAIN = LogitRule()


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


@jax.custom_vjp
def _logits(q_BKQH: jax.Array, k_BKSH: jax.Array) -> jax.Array:
    """q k^T, [B, K, Q, S] float32. Its cotangent is multiplied in the dtype of queries and keys.

    A product's own rule would multiply the float32 cotangent: with bfloat16 keys, the two largest
    products of attention's way back would run at a quarter of a GPU's rate or less.
    """
    return _product(q_BKQH, k_BKSH, jnp.float32)


def _product(q_BKQH: jax.Array, k_BKSH: jax.Array, dtype=None) -> jax.Array:
    return jnp.einsum("BKQH,BKSH->BKQS", q_BKQH, k_BKSH, preferred_element_type=dtype)


def _logits_kept(q_BKQH, k_BKSH):
    return _logits(q_BKQH, k_BKSH), (q_BKQH, k_BKSH)


def _logits_back(kept, cotangent_BKQS):
    q_BKQH, k_BKSH = kept
    return jax.vjp(_product, q_BKQH, k_BKSH)[1](cotangent_BKQS.astype(q_BKQH.dtype))


_logits.defvjp(_logits_kept, _logits_back)


def attend(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    seen: jax.Array,
    rule: LogitRule = PLAIN,
) -> jax.Array:
    """softmax(q k^T / sqrt(H)) v, each group of N/K query heads sharing one key/value head.

    Args:
      q_BNTH: rotated queries.
      k_BKSH: rotated keys.
      v_BKSH: values.
      seen: [B or 1, 1, T, S] bool from `visible`.
      rule: another scale than 1 / sqrt(H), or a soft cap.

    Returns:
      [B, N, T, H] in the queries' dtype; logits and softmax are float32. A query that sees no key
      (a padded place) gets a finite, meaningless value.
    """
    rows, heads, length, size = q_BNTH.shape
    group = heads // k_BKSH.shape[1]
    # Q: the queries of all heads of a group, one after the other, so keys are never repeated.
    q_BKQH = q_BNTH.reshape(rows, -1, group * length, size)
    seen = jnp.tile(seen, (1, 1, group, 1))
    products = _logits(q_BKQH, k_BKSH)
    scaled = products / math.sqrt(size) if rule.scale is None else products * rule.scale
    # Finite, so that a query without keys has a finite softmax and gradient.
    logits = jnp.where(seen, softcap(scaled, rule.softcap), _UNSEEN)
    weights = jax.nn.softmax(logits, axis=-1).astype(v_BKSH.dtype)
    return jnp.einsum("BKQS,BKSH->BKQH", weights, v_BKSH).reshape(q_BNTH.shape)


def query_group(length: int) -> int:
    """The most queries of a text of `length` places that attend together, on any device."""
    return min(length, max(_group(length, *groups) for groups in _GROUPS.values()))


def _group(length: int, fewest: int, most_groups: int) -> int:
    return max(fewest, -(-length // most_groups))


def attend_text(
    q_BNTH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTH: jax.Array,
    window: jax.Array | int | None = None,
    start_B: jax.Array | None = None,
    rule: LogitRule = PLAIN,
) -> jax.Array:
    """`attend` for whole texts in slots from 0 on, a group of queries at a time.

    A group of queries is multiplied with the keys up to its own last place only, so with many groups
    nearly half of all logits are never computed, forward or backward. How many there are is decided
    by the device that the program is compiled for. Differentiated, it computes its weights again.

    Args:
      q_BNTH, k_BKTH, v_BKTH: queries, keys and values of all T places.
      window, start_B: see `visible`.
      rule: see `attend`.

    Returns:
      [B, N, T, H] in the queries' dtype.
    """
    return _attend_text(rule, (q_BNTH, k_BKTH, v_BKTH), (window, start_B))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend_text(rule, heads, places):
    return _by_device(functools.partial(_in_groups, rule), heads, places)


def _attend_text_kept(rule, heads, places):
    return _attend_text(rule, heads, places), (heads, places)


def _attend_text_back(rule, kept, cotangent_BNTH):
    def pull(groups, heads, places, cotangent_BNTH):
        attended = functools.partial(_in_groups, rule, groups, places=places)
        return jax.vjp(attended, heads)[1](cotangent_BNTH)

    return *_by_device(pull, *kept, cotangent_BNTH), None


# A choice by device cannot be differentiated as it is: it would keep what each device would need.
_attend_text.defvjp(_attend_text_kept, _attend_text_back)


def _by_device(function: Callable, *args):
    """The function with the groups of the device that the program is compiled for."""
    choices = {name: functools.partial(function, groups) for name, groups in _GROUPS.items()}
    return jax.lax.platform_dependent(*args, **choices)


def _in_groups(rule: LogitRule, groups: tuple[int, int], heads, places) -> jax.Array:
    (q_BNTH, k_BKTH, v_BKTH), (window, start_B) = heads, places
    length = q_BNTH.shape[2]
    group = _group(length, *groups)
    slots_T, mixed = jnp.arange(length), []
    for first in range(0, length, group):
        end = min(first + group, length)
        seen = visible(slots_T[first:end], slots_T[:end], window=window, start_B=start_B)
        queries, keys, values = q_BNTH[:, :, first:end], k_BKTH[:, :, :end], v_BKTH[:, :, :end]
        mixed.append(attend(queries, keys, values, seen, rule))
    return jnp.concatenate(mixed, axis=2)
