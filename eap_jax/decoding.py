"""The compiled programs of generation: prefill of some prompts, decoding, and moves of the cache.

All rows of a batch write to the same slot of the cache at the same step, and a row's text begins in
its own slot `start`. So prompts are padded on the left, and a new prompt can enter a batch at work:
it is prefilled apart and put where it ends at the present slot.

Layers come as separate arrays (`parameters.separate_layers`): cut from stacked ones inside a program
they would be a second copy of all weights. Caches are donated and updated in place, one array a
layer, so that moving one needs the room of one.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.block import Block, Cache
from eap_jax.config import ModelConfig
from eap_jax.places import Kind, Places
from eap_jax.sampling import Sampling, choose, stops
from eap_jax.sharding import DecodingLayout
from eap_jax.transformer import Transformer

# Most steps of one call of `decode`: after so many the host hears of the answers that ended.
STEPS = 64

# On a GPU, the compiler would join the projections of one read into a product, and the joined
# weights of all layers, made before the loop, would be a second copy of a quarter of the model.
_COMPILER = {"xla_gpu_dot_merger_threshold_mb": "0"}

_SLOT_MULTIPLE = 16
_FINE = 1024


def ladder(slots: int) -> int:
    """The smallest size of prompts and caches that holds so many slots.

    16, 32, 48, 64, 96, 128, 192, ... 768, 1,024, 2,048, 4,096, ...: one ladder for all widths, so
    that few programs are compiled. Up to 1,024 slots a step is at most half, so that decoding never
    reads many slots in vain; above it each step doubles.
    """
    size = _SLOT_MULTIPLE
    while size < slots:
        between = size + size // 2
        if size < _FINE and between % _SLOT_MULTIPLE == 0 and slots <= between:
            return between
        size *= 2
    return size


@flax.struct.dataclass(kw_only=True)
class Rows:
    """The rows of a batch before a call of `decode`, int32 [B] unless said otherwise.

    Attributes:
      last_B: newest token of each row, not in the cache yet.
      start_B: first slot of its text.
      left_B: tokens it may still get; 0 for a row that is finished or free.
      keys_B: its PRNG key.
    """

    last_B: jax.Array
    start_B: jax.Array
    left_B: jax.Array
    keys_B: jax.Array


@flax.struct.dataclass(kw_only=True)
class Decoded:
    """What `decode` returns.

    Attributes:
      caches: one `Cache` a layer, with the new tokens.
      tokens_TB: [STEPS, B] new tokens, of which the first `steps` are valid. A row that ends on the
        way goes on with meaningless ones.
      steps: int32, steps done.
    """

    caches: tuple[Cache, ...]
    tokens_TB: jax.Array
    steps: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "sampling", "layout"))
def prefill(
    layers: dict,
    tokens_BT: jax.Array,
    start_B: jax.Array,
    keys_B: jax.Array,
    *,
    config: ModelConfig,
    sampling: Sampling,
    layout: DecodingLayout | None = None,
) -> tuple[tuple[Cache, ...], jax.Array]:
    """Keys and values of some prompts, and the first token of each answer.

    Args:
      layers: parameters, `parameters.separate_layers`.
      tokens_BT: prompts, padded on the left.
      start_B: first place of each prompt.
      keys_B: a PRNG key a row.
      config: the model.
      sampling: how to choose the token.
      layout: where rows and caches lie on a mesh, or None for one device.

    Returns:
      one `Cache` [B, K, T, H] a layer, and int32 [B].
    """
    rows, width = tokens_BT.shape
    empty = empty_caches(layers, config, rows, width)
    places = Places.of_slots(config, jnp.arange(width), width, start_B, whole=True)
    logits_BV, caches = _extend(layers, tokens_BT, places, empty, config)
    if layout is not None:
        caches = layout.place_caches(caches)
    return caches, choose(logits_BV, keys_B, width - start_B, sampling)


@functools.partial(
    jax.jit,
    static_argnames=("config", "sampling", "layout"),
    donate_argnames="caches",
    compiler_options=_COMPILER,
)
def decode(
    layers: dict,
    caches: tuple[Cache, ...],
    rows: Rows,
    slot: jax.Array,
    wanted: jax.Array,
    *,
    config: ModelConfig,
    sampling: Sampling,
    layout: DecodingLayout | None = None,
) -> Decoded:
    """New tokens for all rows, until enough rows are done, the cache is full or `STEPS` were made.

    Args:
      layers: parameters, `parameters.separate_layers`.
      caches: one `Cache` [B, K, S, H] a layer; their memory is reused.
      rows: the batch.
      slot: int32, where the newest tokens go.
      wanted: int32, stop once so many rows have nothing left.
      config: the model.
      sampling: how to choose tokens and which ones stop; `max_new_tokens` is not looked at.
      layout: where rows and caches lie on a mesh, or None for one device.
    """
    capacity = caches[0].k_BKSH.shape[2]

    def unfinished(carry):
        step, _, left_B, _, _ = carry
        return (step < STEPS) & (slot + step < capacity) & (jnp.sum(left_B <= 0) < wanted)

    def advance(carry):
        step, last_B, left_B, caches, tokens_TB = carry
        here = slot + step
        places = Places.of_slots(config, here[None], capacity, rows.start_B, whole=False)
        logits_BV, caches = _extend(layers, last_B[:, None], places, caches, config)
        if layout is not None:
            caches = layout.place_caches(caches)
        new_B = choose(logits_BV, rows.keys_B, here + 1 - rows.start_B, sampling)
        tokens_TB = jax.lax.dynamic_update_index_in_dim(tokens_TB, new_B, step, 0)
        left_B = jnp.where(stops(new_B, sampling), 0, left_B - 1)
        return step + 1, new_B, left_B, caches, tokens_TB

    tokens_TB = jnp.zeros((STEPS, *rows.last_B.shape), jnp.int32)
    carry = (jnp.int32(0), rows.last_B, rows.left_B, caches, tokens_TB)
    steps, _, _, caches, tokens_TB = jax.lax.while_loop(unfinished, advance, carry)
    return Decoded(caches=caches, tokens_TB=tokens_TB, steps=steps)


def empty_caches(
    layers: dict,
    config: ModelConfig,
    rows: int,
    slots: int,
    layout: DecodingLayout | None = None,
) -> tuple[Cache, ...]:
    """Zero caches [rows, K, slots, H] of all layers, in the activations' dtype."""
    shape, dtype = (rows, config.num_kv_heads, slots, config.head_dim), layers["embed"].dtype
    device = None if layout is None else layout.cache

    def empty() -> jax.Array:
        return jnp.zeros(shape, dtype, device=device)

    return tuple(Cache(k_BKSH=empty(), v_BKSH=empty()) for _ in range(config.num_layers))


@functools.partial(jax.jit, static_argnames="ways", donate_argnames="cache_BKSH")
def put(
    cache_BKSH: jax.Array, new_BKTH: jax.Array, place_B: jax.Array, end: jax.Array, *, ways: int
) -> jax.Array:
    """Keys or values of new prompts put into a cache, in place, their last one before slot `end`.

    Args:
      cache_BKSH: the cache; its memory is reused.
      new_BKTH: of some rows, as many for each of the `ways` parts of the cache.
      place_B: row of each in its own part; one that the part does not have is dropped.
      end: int32, at least T.
      ways: parts that the rows of both are divided into, one a device of the data axis.
    """
    # Rows never leave their device: along the first axis the parts do not mix.
    parts, new, place = (
        array.reshape(ways, -1, *array.shape[1:]) for array in (cache_BKSH, new_BKTH, place_B)
    )
    numbers = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2, 3), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0, 2)
    )
    first = end - new_BKTH.shape[2]

    def put_part(part, new, place):
        indices = jnp.stack([place, jnp.full_like(place, first)], axis=1)
        mode = jax.lax.GatherScatterMode.FILL_OR_DROP
        return jax.lax.scatter(part, indices, new, numbers, mode=mode, unique_indices=True)

    return jax.vmap(put_part)(parts, new, place).reshape(cache_BKSH.shape)


@functools.partial(jax.jit, static_argnames="capacity")
def shift(cache_BKSH: jax.Array, slots: jax.Array, *, capacity: int) -> jax.Array:
    """A cache of another capacity whose slot 0 is the old slot `slots`."""
    moved = jnp.roll(cache_BKSH, -slots, axis=2)
    more = capacity - moved.shape[2]
    if more <= 0:
        return moved[:, :, :capacity]
    return jnp.pad(moved, [(0, 0), (0, 0), (0, more), (0, 0)])


@functools.partial(jax.jit, static_argnames="ways")
def take(cache_BKSH: jax.Array, place_B: jax.Array, *, ways: int) -> jax.Array:
    """Some rows of a cache; `place_B` and `ways` as in `put`."""
    parts, place = (array.reshape(ways, -1, *array.shape[1:]) for array in (cache_BKSH, place_B))
    taken = jax.vmap(lambda part, place: part[place])(parts, place)
    return taken.reshape(-1, *cache_BKSH.shape[1:])


def _extend(
    layers: dict,
    tokens_BT: jax.Array,
    places: Places,
    caches: tuple[Cache, ...],
    config: ModelConfig,
) -> tuple[jax.Array, tuple[Cache, ...]]:
    """Run new tokens through all layers: (logits of the last one [B, V], caches)."""
    ends = {name: leaf for name, leaf in layers.items() if name != "blocks"}
    model = functools.partial(Transformer(config).apply, {"params": ends})
    stream_BTD = model(tokens_BT, method=Transformer.embed)
    grown = []
    for block_params, cache, kind in zip(layers["blocks"], caches, Kind.each(config), strict=True):
        stream_BTD, cache = Block(config).apply(
            {"params": block_params}, stream_BTD, places, cache, kind, method=Block.extend
        )
        grown.append(cache)
    return model(stream_BTD[:, -1], method=Transformer.unembed), tuple(grown)
