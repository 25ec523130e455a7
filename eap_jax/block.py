"""One layer: attention, then gated MLP, each reading the normalised stream and adding to it.

A block is cut at its matrix products into four stages (`attention_in`, `attention_out`, `mlp_in`,
`mlp_out`), so the attribution sweep can differentiate stage by stage from the activations between
them.
"""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.attention import attend, attend_text, visible
from eap_jax.config import ModelConfig
from eap_jax.layers import gated, rms_norm, rotary_tables, rotate
from eap_jax.parameters import axis_sizes, block_axes

READS = ("q", "k", "v", "mlp")


@flax.struct.dataclass
class Activations:
    """One block's values between its matrix products (a leading L axis when stacked).

    Attributes:
      stream_BTD: what the block's attention reads, before the norm.
      q_BTNH, k_BTKH, v_BTKH: rotated queries and keys, values.
      gate_BTF, up_BTF: the MLP's two projections.
    """

    stream_BTD: jax.Array
    q_BTNH: jax.Array
    k_BTKH: jax.Array
    v_BTKH: jax.Array
    gate_BTF: jax.Array
    up_BTF: jax.Array


@flax.struct.dataclass
class Cache:
    """Rotated keys and values of one layer, [B, S, K, H] each, in slot order."""

    k_BSKH: jax.Array
    v_BSKH: jax.Array


@flax.struct.dataclass
class Places:
    """Where the tokens of a batch sit.

    Attributes:
      cos, sin: [B or 1, T, H] float32 rotary tables of the queries' positions.
      query_slots_T, key_slots_S: slot numbers, see attention.py.
      start_B: first used slot of each row, or None for 0.
    """

    cos: jax.Array
    sin: jax.Array
    query_slots_T: jax.Array
    key_slots_S: jax.Array
    start_B: jax.Array | None = None

    @classmethod
    def of_texts(cls, config: ModelConfig, length: int) -> "Places":
        """Places of texts that begin in slot 0 (shorter ones padded on the right)."""
        slots = jnp.arange(length)
        return cls(*rotary_tables(config, slots[None]), slots, slots)

    @classmethod
    def of_slots(cls, config: ModelConfig, query_slots_T, num_slots: int, start_B) -> "Places":
        """Places of the tokens in `query_slots_T` of texts that begin in slot `start_B`."""
        positions_BT = jnp.maximum(query_slots_T[None, :] - start_B[:, None], 0)
        tables = rotary_tables(config, positions_BT)
        return cls(*tables, query_slots_T, jnp.arange(num_slots), start_B)


def matrix_init(key, shape, dtype):
    """Normal numbers of deviation 0.02."""
    return 0.02 * jax.random.normal(key, shape, dtype)


class Block(nn.Module):
    """One layer."""

    config: ModelConfig

    def setup(self):
        sizes = axis_sizes(self.config)
        for name, letters in block_axes(self.config).items():
            init = nn.initializers.ones if name.endswith("norm") else matrix_init
            if name.endswith("bias"):
                init = nn.initializers.zeros
            shape = tuple(sizes[letter] for letter in letters)
            setattr(self, "p_" + name, self.param(name, init, shape, jnp.float32))

    def _linear(self, equation: str, x: jax.Array, name: str, has_bias: bool) -> jax.Array:
        y = jnp.einsum(equation, x, getattr(self, "p_" + name).astype(x.dtype))
        return y + getattr(self, f"p_{name}_bias").astype(x.dtype) if has_bias else y

    def attention_in(self, read_q, read_k, read_v, places: Places):
        """Three branch reads [B, T, D] -> rotated q [B, T, N, H], k [B, T, K, H] and v [B, T, K, H]."""
        norm = functools.partial(rms_norm, scale_D=self.p_attention_norm, eps=self.config.norm_eps)
        bias = self.config.qkv_bias
        q = self._linear("BTD,NHD->BTNH", norm(read_q), "q", bias)
        k = self._linear("BTD,KHD->BTKH", norm(read_k), "k", bias)
        v = self._linear("BTD,KHD->BTKH", norm(read_v), "v", bias)
        return rotate(q, places.cos, places.sin), rotate(k, places.cos, places.sin), v

    def attention_out(self, q_BTNH, k_BSKH, v_BSKH, places: Places, window=None) -> jax.Array:
        """Queries, keys and values -> the attention's write [B, T, D]."""
        if places.start_B is None:
            mixed_BTNH = attend_text(q_BTNH, k_BSKH, v_BSKH, window)
        else:
            seen = visible(
                places.query_slots_T, places.key_slots_S, window=window, start_B=places.start_B
            )
            mixed_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, seen)
        return self._linear("BTNH,DNH->BTD", mixed_BTNH, "o", self.config.output_bias)

    def mlp_in(self, read_BTD):
        """The MLP's branch read [B, T, D] -> gate and up, [B, T, F] each."""
        x = rms_norm(read_BTD, self.p_mlp_norm, self.config.norm_eps)
        bias = self.config.mlp_bias
        return (
            self._linear("BTD,FD->BTF", x, "gate", bias),
            self._linear("BTD,FD->BTF", x, "up", bias),
        )

    def mlp_out(self, gate_BTF, up_BTF) -> jax.Array:
        """Gate and up -> the MLP's write [B, T, D]."""
        return self._linear("BTF,DF->BTD", gated(gate_BTF, up_BTF), "down", self.config.mlp_bias)

    def __call__(self, stream_BTD, places: Places, window=None, taps_4BTD=None):
        """One layer over whole texts.

        Args:
          stream_BTD: the residual stream.
          places: where the tokens sit.
          window: keys a query sees (scalar, may be traced) or None.
          taps_4BTD: perturbations of the four branch reads, or None.

        Returns:
          (stream after the layer, (writes [2, B, T, D], `Activations`)).
        """
        taps = (
            [0, 0, 0, 0] if taps_4BTD is None else [t.astype(stream_BTD.dtype) for t in taps_4BTD]
        )
        reads = [stream_BTD + tap for tap in taps[:3]]
        q, k, v = self.attention_in(*reads, places)
        attention_BTD = self.attention_out(q, k, v, places, window)
        middle_BTD = stream_BTD + attention_BTD
        gate, up = self.mlp_in(middle_BTD + taps[3])
        mlp_BTD = self.mlp_out(gate, up)
        writes = jnp.stack([attention_BTD, mlp_BTD])
        return middle_BTD + mlp_BTD, (writes, Activations(stream_BTD, q, k, v, gate, up))

    def extend(self, stream_BTD, places: Places, cache: Cache, window=None):
        """One layer over the next T tokens of texts whose past is in a cache.

        Args:
          stream_BTD: the residual stream of the new tokens.
          places: slots of the new tokens (consecutive) and of the whole cache.
          cache: keys and values of the past.
          window: keys a query sees, or None.

        Returns:
          (stream after the layer, cache with the new tokens written to their slots).
        """
        q, k, v = self.attention_in(stream_BTD, stream_BTD, stream_BTD, places)
        first = (0, places.query_slots_T[0], 0, 0)
        cache = Cache(
            k_BSKH=jax.lax.dynamic_update_slice(cache.k_BSKH, k, first),
            v_BSKH=jax.lax.dynamic_update_slice(cache.v_BSKH, v, first),
        )
        stream_BTD += self.attention_out(q, cache.k_BSKH, cache.v_BSKH, places, window)
        return stream_BTD + self.mlp_out(*self.mlp_in(stream_BTD)), cache
