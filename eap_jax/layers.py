"""RMSNorm, rotary embedding, the MLP's activation, and the product with a weight matrix.

Cast order follows transformers' Llama: norm statistics and rotary angles are float32, the result is
cast to the activations' dtype and then multiplied by the weight.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from eap_jax.config import ModelConfig

# A product of at most this many rows has the weight as its first operand, see `linear`.
_FEW_ROWS = 128


def rms_norm(x: jax.Array, scale_D: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square normalisation, x / sqrt(mean(x^2) + eps) * scale (Zhang & Sennrich 2019).

    Args:
      x: [..., D], any float dtype.
      scale_D: [D] learned gain.
      eps: added to the mean square.

    Returns:
      [..., D] in x's dtype; the statistics are float32.
    """
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean_square + eps)).astype(x.dtype) * scale_D.astype(x.dtype)


def rotary_frequencies(config: ModelConfig) -> np.ndarray:
    """Angular frequencies of the rotary embedding, [H/2] float32, radians a position.

    theta^(-2i/H) (Su et al. 2021), stretched by `config.rope_scaling` as transformers does.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return (frequencies / scaling.factor).astype(np.float32)
    # llama3: rotations over the original context decide between kept, blended and divided.
    rotations = scaling.original_context * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((rotations - low) / (high - low), 0, 1)
    return ((1 - kept) * frequencies / scaling.factor + kept * frequencies).astype(np.float32)


def rotary_tables(config: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the rotary angles.

    Args:
      config: the model.
      positions: [...] whole numbers, position of each token in its text.

    Returns:
      cos, sin: each [..., H] float32, the two halves repeated (transformers' layout).
    """
    angles = positions.astype(jnp.float32)[..., None] * rotary_frequencies(config)
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Apply the rotary embedding to heads.

    Args:
      x: [..., heads, T, H].
      cos, sin: [..., T, H] from `rotary_tables`, cast to x's dtype as transformers does.

    Returns:
      x rotated, same shape and dtype.
    """
    cos = cos[..., None, :, :].astype(x.dtype)
    sin = sin[..., None, :, :].astype(x.dtype)
    first, second = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-second, first], axis=-1) * sin


def gated(gate: jax.Array, up: jax.Array) -> jax.Array:
    """SiLU-gated activation of the MLP, silu(gate) * up (Shazeer 2020). Any shape."""
    return jax.nn.silu(gate) * up


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
