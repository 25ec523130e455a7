"""Where the tokens of a batch sit, and how a layer's attention differs from the others'.

Rotary angles depend on places alone, so they are computed once for all layers: one table for each
set of frequencies that the model has (`rotary_sets`). Most models have one set. In some, layers with
a window rotate with another base (Gemma 3, OLMo 3), or some layers do not rotate (SmolLM3).
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from eap_jax.config import ModelConfig
from eap_jax.rope import RopeScaling, frequencies


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotarySet:
    """One set of rotary frequencies.

    Attributes:
      theta: base; None: nothing is rotated.
      scaling: stretch, or None.
    """

    theta: float | None
    scaling: RopeScaling | None = None


@flax.struct.dataclass(kw_only=True)
class Kind:
    """How the attention of one layer differs from that of the others (arrays [L] when stacked).

    Attributes:
      window: keys a query sees, itself included; None for all of the past; may be traced.
      table: which rotary table of `Places`; None where there is one for all layers; may be traced.
    """

    window: jax.Array | int | None = None
    table: jax.Array | int | None = None

    @classmethod
    def stacked(cls, config: ModelConfig) -> "Kind":
        """The kinds of all layers as int32 [L] for a scan; a layer without a window gets one that no
        text reaches."""
        windows, tables = config.layer_windows, _layer_tables(config)
        if windows is not None:
            unlimited = jnp.iinfo(jnp.int32).max
            windows = jnp.asarray([unlimited if w is None else w for w in windows], jnp.int32)
        return cls(window=windows, table=None if tables is None else jnp.asarray(tables, jnp.int32))

    @classmethod
    def each(cls, config: ModelConfig) -> tuple["Kind", ...]:
        """The kind of each layer, in Python's numbers."""
        nothing = (None,) * config.num_layers
        windows, tables = config.layer_windows or nothing, _layer_tables(config) or nothing
        return tuple(
            cls(window=window, table=table) for window, table in zip(windows, tables, strict=True)
        )

    def of(self, number: jax.Array | int) -> "Kind":
        """One layer of stacked kinds."""
        return jax.tree.map(lambda leaf_L: leaf_L[number], self)


# The kind of every layer of a model whose layers are all alike.
ALIKE = Kind()


@flax.struct.dataclass
class Places:
    """Where the tokens of a batch sit.

    Attributes:
      cos, sin: [B or 1, T, H] float32 rotary tables of the queries' positions, or one of each for
        every set of frequencies; with partial rotation the last axis is `rotary_dim`.
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
        """Places of texts that begin in slot 0 (shorter ones padded on the right).

        Frequencies are those that the config names: `config.for_length` decides them.
        """
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

    def rotary(self, kind: Kind) -> tuple[jax.Array, jax.Array]:
        """Cosine and sine [B or 1, T, H] of one layer."""
        if kind.table is None:
            return self.cos, self.sin
        return tuple(
            jax.lax.dynamic_index_in_dim(table, kind.table, keepdims=False)
            for table in (self.cos, self.sin)
        )


def rotary_sets(config: ModelConfig) -> tuple[RotarySet, ...]:
    """The different sets of frequencies of a model, in the order of the first layers that use them."""
    return tuple(dict.fromkeys(_layer_sets(config)))


def rotary_frequencies(config: ModelConfig, rotary_set: RotarySet | None = None) -> np.ndarray:
    """Angular frequencies of one set, the first one if none is named: float32, radians a position,
    half as many as numbers of a head are rotated."""
    rotary_set = rotary_set or rotary_sets(config)[0]
    size = config.rotary_dim or config.head_dim
    if rotary_set.theta is None:
        return np.zeros(size // 2, np.float32)
    return frequencies(rotary_set.theta, size, rotary_set.scaling)


def rotary_tables(config: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the rotary angles, times the scaling's attention factor.

    Args:
      config: the model.
      positions: [...] whole numbers, position of each token in its text.

    Returns:
      cos, sin: each [..., H] float32, the two halves repeated (transformers' layout); with several
      sets of frequencies, one table after the other along a new first axis. H is `rotary_dim`
      where only that much of a head is rotated.
    """
    sets = rotary_sets(config)
    tables = [_table(config, rotary_set, positions) for rotary_set in sets]
    if len(tables) == 1:
        return tables[0]
    return tuple(jnp.stack(of_sets) for of_sets in zip(*tables, strict=True))


def _table(config: ModelConfig, rotary_set: RotarySet, positions) -> tuple[jax.Array, jax.Array]:
    angles = positions.astype(jnp.float32)[..., None] * rotary_frequencies(config, rotary_set)
    angles = jnp.concatenate([angles, angles], axis=-1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    scaling = rotary_set.scaling
    if scaling is None or scaling.attention_factor is None:
        return cos, sin
    return cos * scaling.attention_factor, sin * scaling.attention_factor


def _layer_sets(config: ModelConfig) -> list[RotarySet]:
    """The set of frequencies of each layer."""
    main = RotarySet(theta=config.rope_theta, scaling=config.rope_scaling)
    local = main
    if config.local_rope_theta is not None:
        local = RotarySet(theta=config.local_rope_theta, scaling=config.local_rope_scaling)
    all_rotate = (True,) * config.num_layers
    windows = config.layer_windows or (None,) * config.num_layers
    return [
        (main if window is None else local) if rotates else RotarySet(theta=None)
        for window, rotates in zip(windows, config.layer_rotary or all_rotate, strict=True)
    ]


def _layer_tables(config: ModelConfig) -> tuple[int, ...] | None:
    """Each layer's place in `rotary_sets`, or None where there is one set."""
    sets = rotary_sets(config)
    if len(sets) == 1:
        return None
    return tuple(sets.index(of_layer) for of_layer in _layer_sets(config))
