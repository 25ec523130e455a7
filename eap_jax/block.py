"""One layer: attention, then gated MLP, each reading the normalised stream and adding to it.

A block is cut at its matrix products into four stages (`attention_in`, `attention_out`, `mlp_in`,
`mlp_out`), so the attribution sweep can differentiate stage by stage from the activations between
them.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.attention import attend, attend_text, visible
from eap_jax.config import ModelConfig
from eap_jax.layers import gated, linear, rms_norm, rotary_tables, rotate
from eap_jax.parameters import axis_sizes, block_axes

READS = ("q", "k", "v", "mlp")


@flax.struct.dataclass(kw_only=True)
class Layer:
    """What tells one layer from the others.

    Attributes:
      params: its parameters, named as in `parameters.block_axes`.
      number: from 0; may be traced.
      window: keys a query sees, itself included; None for all of the past; may be traced.
    """

    params: dict
    number: jax.Array | int
    window: jax.Array | int | None = None


@flax.struct.dataclass
class Activations:
    """One block's values between its matrix products (a leading L axis when stacked).

    Attributes:
      stream_BTD: what the block's attention reads, before the norm.
      q_BNTH, k_BKTH, v_BKTH: rotated queries and keys, values.
      gate_BTF, up_BTF: the MLP's two projections.
    """

    stream_BTD: jax.Array
    q_BNTH: jax.Array
    k_BKTH: jax.Array
    v_BKTH: jax.Array
    gate_BTF: jax.Array
    up_BTF: jax.Array

    def prefix(self, length: int) -> "Activations":
        """The activations of the first `length` places."""
        heads = self.q_BNTH, self.k_BKTH, self.v_BKTH
        stream, gate, up = (x[:, :length] for x in (self.stream_BTD, self.gate_BTF, self.up_BTF))
        return Activations(stream, *(x[:, :, :length] for x in heads), gate, up)


@flax.struct.dataclass
class Cache:
    """Rotated keys and values of one layer, [B, K, S, H] each, in slot order."""

    k_BKSH: jax.Array
    v_BKSH: jax.Array


@flax.struct.dataclass
class Places:
    """Where the tokens of a batch sit.

    Attributes:
      cos, sin: [B or 1, T, H] float32 rotary tables of the queries' positions.
      query_slots_T, key_slots_S: slot numbers, see attention.py.
      start_B: first used slot of each row, or None for 0.
      whole: these are all tokens of their texts so far, in slots from 0 on: nothing is in a cache.
    """

    cos: jax.Array
    sin: jax.Array
    query_slots_T: jax.Array
    key_slots_S: jax.Array
    start_B: jax.Array | None = None
    whole: bool = flax.struct.field(pytree_node=False, default=True)

    @classmethod
    def of_texts(cls, config: ModelConfig, length: int) -> "Places":
        """Places of texts that begin in slot 0 (shorter ones padded on the right)."""
        slots = jnp.arange(length)
        return cls(*rotary_tables(config, slots[None]), slots, slots)

    @classmethod
    def of_slots(
        cls, config: ModelConfig, query_slots_T, num_slots: int, start_B, *, whole: bool
    ) -> "Places":
        """Places of the tokens in `query_slots_T` of texts that begin in slot `start_B`."""
        positions_BT = jnp.maximum(query_slots_T[None, :] - start_B[:, None], 0)
        tables = rotary_tables(config, positions_BT)
        return cls(*tables, query_slots_T, jnp.arange(num_slots), start_B, whole)


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

    def _linear(self, x: jax.Array, name: str, has_bias: bool) -> jax.Array:
        """x [B, T, in] -> [B, T, out] by a weight and, where there is one, a bias.

        The head axes N and H of a weight are joined first. Contracted as two axes, they would make
        the compiler transpose the weight at each use.
        """
        y = linear(x, getattr(self, "p_" + name).reshape(-1, x.shape[-1]))
        return y + getattr(self, f"p_{name}_bias").reshape(-1).astype(x.dtype) if has_bias else y

    def _heads(self, read_BTD: jax.Array, name: str) -> jax.Array:
        """A branch read -> the projection's heads, [B, heads, T, H]."""
        x = rms_norm(read_BTD, self.p_attention_norm, self.config.norm_eps)
        y = self._linear(x, name, self.config.qkv_bias)
        return y.reshape(*y.shape[:2], -1, self.config.head_dim).swapaxes(1, 2)

    def attention_in(self, read_q, read_k, read_v, places: Places):
        """Three branch reads [B, T, D] -> rotated q [B, N, T, H], k [B, K, T, H] and v [B, K, T, H]."""
        q, k, v = self._heads(read_q, "q"), self._heads(read_k, "k"), self._heads(read_v, "v")
        return rotate(q, places.cos, places.sin), rotate(k, places.cos, places.sin), v

    def attention_out(self, q_BNTH, k_BKSH, v_BKSH, places: Places, window=None) -> jax.Array:
        """Queries, keys and values -> the attention's write [B, T, D]."""
        if places.whole:
            mixed_BNTH = attend_text(q_BNTH, k_BKSH, v_BKSH, window, places.start_B)
        else:
            seen = visible(
                places.query_slots_T, places.key_slots_S, window=window, start_B=places.start_B
            )
            mixed_BNTH = attend(q_BNTH, k_BKSH, v_BKSH, seen)
        rows, _, length, _ = mixed_BNTH.shape
        mixed = mixed_BNTH.swapaxes(1, 2).reshape(rows, length, -1)
        return self._linear(mixed, "o", self.config.output_bias)

    def mlp_in(self, read_BTD):
        """The MLP's branch read [B, T, D] -> gate and up, [B, T, F] each."""
        x = rms_norm(read_BTD, self.p_mlp_norm, self.config.norm_eps)
        bias = self.config.mlp_bias
        return self._linear(x, "gate", bias), self._linear(x, "up", bias)

    def mlp_out(self, gate_BTF, up_BTF) -> jax.Array:
        """Gate and up -> the MLP's write [B, T, D]."""
        return self._linear(gated(gate_BTF, up_BTF), "down", self.config.mlp_bias)

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
        first = (0, 0, places.query_slots_T[0], 0)
        cache = Cache(
            k_BKSH=jax.lax.dynamic_update_slice(cache.k_BKSH, k, first),
            v_BKSH=jax.lax.dynamic_update_slice(cache.v_BKSH, v, first),
        )
        past = (k, v) if places.whole else (cache.k_BKSH, cache.v_BKSH)
        stream_BTD += self.attention_out(q, *past, places, window)
        return stream_BTD + self.mlp_out(*self.mlp_in(stream_BTD)), cache
