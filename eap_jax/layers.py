"""RMSNorm, rotary embedding, the MLP's activation, soft caps, and the product with a weight matrix.

Cast order follows transformers' Llama: norm statistics and rotary angles are float32, the result is
cast to the activations' dtype and then multiplied by the weight.
"""

import functools
import math

import jax
import jax.numpy as jnp

# A product of at most this many rows has the weight as its first operand, see `linear`.
_FEW_ROWS = 128


def rms_norm(x: jax.Array, scale_D: jax.Array, eps: float, offset: float = 0.0) -> jax.Array:
    """Root-mean-square normalisation, x / sqrt(mean(x^2) + eps) * (offset + scale) (Zhang & Sennrich
    2019).

    Args:
      x: [..., D], any float dtype.
      scale_D: [D] learned gain.
      eps: added to the mean square.
      offset: added to the gain; where there is one, the product with the gain is float32 too, as in
        transformers' Gemma.

    Returns:
      [..., D] in x's dtype; the statistics are float32.
    """
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    normal = x32 * jax.lax.rsqrt(mean_square + eps)
    if offset:
        return (normal * (offset + scale_D.astype(jnp.float32))).astype(x.dtype)
    return normal.astype(x.dtype) * scale_D.astype(x.dtype)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Apply the rotary embedding to heads.

    Args:
      x: [..., heads, T, H].
      cos, sin: [..., T, H] from `places.rotary_tables`, cast to x's dtype as transformers does; if
        they are smaller than a head, its last numbers stay as they are.

    Returns:
      x rotated, same shape and dtype.
    """
    cos = cos[..., None, :, :].astype(x.dtype)
    sin = sin[..., None, :, :].astype(x.dtype)
    rest = None
    if cos.shape[-1] != x.shape[-1]:
        x, rest = jnp.split(x, [cos.shape[-1]], axis=-1)
    first, second = jnp.split(x, 2, axis=-1)
    rotated = x * cos + jnp.concatenate([-second, first], axis=-1) * sin
    return rotated if rest is None else jnp.concatenate([rotated, rest], axis=-1)


_ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


def gated(gate: jax.Array, up: jax.Array, activation: str = "silu") -> jax.Array:
    """Gated activation of the MLP, activation(gate) * up (Shazeer 2020). Any shape."""
    return _ACTIVATIONS[activation](gate) * up


def times(x: jax.Array, factor: float) -> jax.Array:
    """x times a constant, in x's dtype; the product is float32, as torch's is. 1 costs nothing."""
    return x if factor == 1 else (x.astype(jnp.float32) * factor).astype(x.dtype)


def softcap(x: jax.Array, cap: float | None) -> jax.Array:
    """cap * tanh(x / cap), or x itself without a cap (Gemma 2). Any shape."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def linear(x: jax.Array, weight_OI: jax.Array) -> jax.Array:
    """x times the transposed weight, as every projection of the model: y_o = sum_i W_oi x_i.

    With few rows, as in decoding, the product is computed as W x^T. A CPU rearranges the second
    operand of a product first; if that is the weight, rearranging costs about as much as multiplying
    (1.3 to 1.6 times the time at 32 rows).

    Args:
      x: [..., I], any float dtype.
      weight_OI: output axis first; cast to x's dtype.

    Returns:
      [..., O] in x's dtype.
    """
    weight_OI = weight_OI.astype(x.dtype)
    if math.prod(x.shape[:-1]) > _FEW_ROWS:
        return jnp.einsum("...I,OI->...O", x, weight_OI)
    y_OM = jnp.einsum("OI,MI->OM", weight_OI, x.reshape(-1, x.shape[-1]))
    # The compiler would turn the transposed product back into the usual one.
    return jax.lax.optimization_barrier(y_OM).T.reshape(*x.shape[:-1], -1)
