"""One layer: attention, then gated MLP, each reading the stream and adding to it.

A branch normalises what it reads, what it writes, or both (`config.norm_position`). A write is what is
added to the stream: normalised and multiplied where the model does so.

A block is cut at its matrix products into four stages (`attention_in`, `attention_out`, `mlp_in`,
`mlp_out`), so the attribution sweep can differentiate stage by stage from the activations between
them.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.attention import LogitRule, attend, attend_text, visible
from eap_jax.config import ModelConfig
from eap_jax.layers import gated, linear, rms_norm, rotate, times
from eap_jax.parameters import axis_sizes, block_axes
from eap_jax.places import ALIKE, Kind, Places

READS = ("q", "k", "v", "mlp")


@flax.struct.dataclass(kw_only=True)
class Layer:
    """What tells one layer from the others.

    Attributes:
      params: its parameters, named as in `parameters.block_axes`.
      number: from 0; may be traced.
      kind: how its attention differs.
    """

    params: dict
    number: jax.Array | int
    kind: Kind = ALIKE


@flax.struct.dataclass
class Activations:
    """One block's values between its matrix products (a leading L axis when stacked).

    Attributes:
      stream_BTD: what the block's attention reads, before any norm.
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


def matrix_init(key, shape, dtype):
    """Normal numbers of deviation 0.02."""
    return 0.02 * jax.random.normal(key, shape, dtype)


def norm_init(config: ModelConfig):
    """Gains that leave what is normalised as it is."""
    return nn.initializers.constant(1 - config.norm_gain_offset)


class Block(nn.Module):
    """One layer."""

    config: ModelConfig

    def setup(self):
        sizes = axis_sizes(self.config)
        for name, letters in block_axes(self.config).items():
            init = norm_init(self.config) if name.endswith("norm") else matrix_init
            if name.endswith(("bias", "_b")):
                init = nn.initializers.zeros
            shape = tuple(sizes[letter] for letter in letters)
            setattr(self, "p_" + name, self.param(name, init, shape, jnp.float32))

    def _linear(self, x: jax.Array, name: str, has_bias: bool) -> jax.Array:
        """x [B, T, in] -> [B, T, out] by a weight and, where there is one, a bias.

        The head axes N and H of a weight are joined first. Contracted as two axes, they would make
        the compiler transpose the weight at each use.
        """
        y = linear(x, getattr(self, "p_" + name).reshape(-1, x.shape[-1]))
        if rank := self.config.adapter_rank:
            a, b = getattr(self, f"p_{name}_a"), getattr(self, f"p_{name}_b")
            y = y + linear(linear(x, a.reshape(rank, -1)), b.reshape(-1, rank))
        return y + getattr(self, f"p_{name}_bias").reshape(-1).astype(x.dtype) if has_bias else y

    def _norm(self, x: jax.Array, name: str) -> jax.Array:
        """RMSNorm over the last axis by the gain `name`."""
        gain = getattr(self, "p_" + name).reshape(-1)
        return rms_norm(x, gain, self.config.norm_eps, self.config.norm_gain_offset)

    def _read(self, read_BTD: jax.Array, name: str) -> jax.Array:
        """What a branch computes on: its read, normalised or as it is."""
        return read_BTD if self.config.norm_position == "post" else self._norm(read_BTD, name)

    def _write(self, y_BTD: jax.Array, name: str) -> jax.Array:
        """A branch's output as it is added to the stream."""
        if self.config.norm_position != "pre":
            y_BTD = self._norm(y_BTD, name)
        return times(y_BTD, self.config.residual_multiplier)

    def _heads(self, read_BTD: jax.Array, name: str) -> jax.Array:
        """A branch read -> the projection's heads, [B, heads, T, H]."""
        x = self._read(read_BTD, "attention_norm")
        y = self._linear(x, name, self.config.qkv_bias)
        qk_norm = None if name == "v" else self.config.qk_norm
        if qk_norm == "full":
            y = self._norm(y, name + "_norm")
        y = y.reshape(*y.shape[:2], -1, self.config.head_dim).swapaxes(1, 2)
        return self._norm(y, name + "_norm") if qk_norm == "head" else y

    def attention_in(self, read_q, read_k, read_v, places: Places, kind: Kind = ALIKE):
        """Three branch reads [B, T, D] -> rotated q [B, N, T, H], k [B, K, T, H] and v [B, K, T, H]."""
        q, k, v = self._heads(read_q, "q"), self._heads(read_k, "k"), self._heads(read_v, "v")
        cos, sin = places.rotary(kind)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def attention_out(self, q_BNTH, k_BKSH, v_BKSH, places: Places, kind: Kind = ALIKE):
        """Queries, keys and values -> the attention's write [B, T, D]."""
        window, start_B = kind.window, places.start_B
        rule = LogitRule(scale=self.config.attention_scale, softcap=self.config.attention_softcap)
        if places.whole:
            mixed_BNTH = attend_text(q_BNTH, k_BKSH, v_BKSH, window, start_B, rule)
        else:
            seen = visible(places.query_slots_T, places.key_slots_S, window=window, start_B=start_B)
            mixed_BNTH = attend(q_BNTH, k_BKSH, v_BKSH, seen, rule)
        rows, _, length, _ = mixed_BNTH.shape
        mixed = mixed_BNTH.swapaxes(1, 2).reshape(rows, length, -1)
        write_BTD = self._linear(mixed, "o", self.config.output_bias)
        return self._write(write_BTD, "attention_post_norm")

    def mlp_in(self, read_BTD):
        """The MLP's branch read [B, T, D] -> gate and up, [B, T, F] each."""
        x = self._read(read_BTD, "mlp_norm")
        bias = self.config.mlp_bias
        return self._linear(x, "gate", bias), self._linear(x, "up", bias)

    def mlp_out(self, gate_BTF, up_BTF) -> jax.Array:
        """Gate and up -> the MLP's write [B, T, D]."""
        hidden_BTF = gated(gate_BTF, up_BTF, self.config.activation)
        return self._write(self._linear(hidden_BTF, "down", self.config.mlp_bias), "mlp_post_norm")

    def __call__(self, stream_BTD, places: Places, kind: Kind = ALIKE, taps_4BTD=None):
        """One layer over whole texts.

        Args:
          stream_BTD: the residual stream.
          places: where the tokens sit.
          kind: how this layer's attention differs.
          taps_4BTD: perturbations of the four branch reads, or None.

        Returns:
          (stream after the layer, (writes [2, B, T, D], `Activations`)).
        """
        taps = (
            [0, 0, 0, 0] if taps_4BTD is None else [t.astype(stream_BTD.dtype) for t in taps_4BTD]
        )
        reads = [stream_BTD + tap for tap in taps[:3]]
        q, k, v = self.attention_in(*reads, places, kind)
        attention_BTD = self.attention_out(q, k, v, places, kind)
        middle_BTD = stream_BTD + attention_BTD
        gate, up = self.mlp_in(middle_BTD + taps[3])
        mlp_BTD = self.mlp_out(gate, up)
        writes = jnp.stack([attention_BTD, mlp_BTD])
        return middle_BTD + mlp_BTD, (writes, Activations(stream_BTD, q, k, v, gate, up))

    def extend(self, stream_BTD, places: Places, cache: Cache, kind: Kind = ALIKE):
        """One layer over the next T tokens of texts whose past is in a cache.

        Args:
          stream_BTD: the residual stream of the new tokens.
          places: slots of the new tokens (consecutive) and of the whole cache.
          cache: keys and values of the past.
          kind: how this layer's attention differs.

        Returns:
          (stream after the layer, cache with the new tokens written to their slots).
        """
        q, k, v = self.attention_in(stream_BTD, stream_BTD, stream_BTD, places, kind)
        first = (0, 0, places.query_slots_T[0], 0)
        cache = Cache(
            k_BKSH=jax.lax.dynamic_update_slice(cache.k_BKSH, k, first),
            v_BKSH=jax.lax.dynamic_update_slice(cache.v_BKSH, v, first),
        )
        past = (k, v) if places.whole else (cache.k_BKSH, cache.v_BKSH)
        stream_BTD += self.attention_out(q, *past, places, kind)
        return stream_BTD + self.mlp_out(*self.mlp_in(stream_BTD)), cache
