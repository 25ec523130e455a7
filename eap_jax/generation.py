"""Text generation: a prefill of the prompts, then jitted decoding with a key/value cache.

Prompts are padded on the left, so that all rows write to the same slot of the cache at the same
step. A full cache grows by half, so a step never reads many more slots than the texts fill, and only
few cache sizes are compiled. A row's sampled tokens depend on the key, the row's number and its own
text, not on the other rows.
"""

import dataclasses
import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from eap_jax.block import Block, Cache, Places
from eap_jax.checks import check_parameters
from eap_jax.config import ModelConfig
from eap_jax.transformer import Transformer

# Prompts and caches are rounded up to this many slots, to share compiled programs.
_SLOT_MULTIPLE = 16
_FIRST_SEGMENT = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
      max_new_tokens: most tokens generated a prompt.
      stop_tokens: ids that end a response; the response includes the one it ends with.
      temperature: 0 is greedy (the first of equally likely tokens); otherwise logits are divided
        by it.
      top_p: sample from the smallest set of tokens whose probability reaches this (nucleus
        sampling, Holtzman et al. 2020); 1 keeps all.

    Raises:
      ValueError: a field is out of range.
    """

    max_new_tokens: int
    stop_tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1, found {self.max_new_tokens}")
        if not self.temperature >= 0:
            raise ValueError(f"temperature: expected at least 0, found {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected a number in (0, 1], found {self.top_p}")


@flax.struct.dataclass(kw_only=True)
class _Rows:
    """What stays the same of each row: its first used slot, and its PRNG key."""

    start_B: jax.Array
    keys_B: jax.Array


@flax.struct.dataclass(kw_only=True)
class _State:
    """Decoding in progress: `slot` is where the newest token, `last_B`, goes."""

    slot: jax.Array
    last_B: jax.Array
    done_B: jax.Array
    caches: tuple[Cache, ...]


def generate(
    params: dict,
    prompts: Sequence[Sequence[int]],
    *,
    config: ModelConfig,
    sampling: Sampling,
    key: jax.Array | None = None,
) -> list[list[int]]:
    """Responses to a batch of prompts.

    Args:
      params: parameters in the structure of `parameters.parameter_axes`.
      prompts: token ids of each prompt, at least one each; lengths may differ.
      config: the model.
      sampling: how to choose tokens and when to stop.
      key: a PRNG key for the whole batch, or an array of one key a prompt; needed unless greedy.

    Returns:
      Token ids of each response, without the prompt, ending with a stop token or cut after
      `max_new_tokens`.

    Raises:
      ValueError: no prompts, an empty prompt, an id outside the vocabulary, sampling without a
        key or with another number of keys than prompts, or a parameter of another shape.
    """
    check_parameters(params, config)
    _check_prompts(prompts, config)
    if key is None and sampling.temperature > 0:
        raise ValueError("sampling with a temperature needs a key")
    num_rows = len(prompts)
    if key is not None and key.shape not in ((), (num_rows,)):
        raise ValueError(f"key: expected one, or one a prompt [B={num_rows}], found {key.shape}")
    if key is None:
        key = jax.random.key(0)
    keys_B = (
        key
        if key.ndim
        else jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(num_rows))
    )
    width = _round_up(max(map(len, prompts)))
    tokens_BT = np.zeros((num_rows, width), np.int32)
    for row, prompt in zip(tokens_BT, prompts, strict=True):
        row[width - len(prompt) :] = prompt
    start_B = np.asarray([width - len(prompt) for prompt in prompts], np.int32)

    capacity = width + min(_round_up(sampling.max_new_tokens), _FIRST_SEGMENT)
    rows = _Rows(start_B=start_B, keys_B=keys_B)
    state = _prefill(params, tokens_BT, rows, config=config, sampling=sampling, capacity=capacity)
    responses_BT = [np.asarray(state.last_B)[:, None]]
    left = sampling.max_new_tokens - 1
    while left > 0 and not bool(state.done_B.all()):
        # The newest token is not yet in the cache, so a full cache has room for no step.
        steps = min(left, capacity - int(state.slot))
        if steps == 0:
            capacity = _round_up(min(capacity + capacity // 2, capacity + left))
            state = _grow(state, capacity)
            continue
        state, new_TB = _decode(params, state, rows, steps, config=config, sampling=sampling)
        responses_BT.append(np.asarray(new_TB).T[:, :steps])
        left -= steps
    return [_cut(row, sampling) for row in np.concatenate(responses_BT, axis=1).tolist()]


@functools.partial(jax.jit, static_argnames=("config", "sampling", "capacity"))
def _prefill(
    params: dict,
    tokens_BT: jax.Array,
    rows: _Rows,
    *,
    config: ModelConfig,
    sampling: Sampling,
    capacity: int,
) -> _State:
    """State after the prompts and the first generated token, its caches of `capacity` slots."""
    num_rows, width = tokens_BT.shape
    empty = jnp.zeros(
        (num_rows, config.num_kv_heads, capacity, config.head_dim), params["embed"].dtype
    )
    caches = (Cache(k_BKSH=empty, v_BKSH=empty),) * config.num_layers
    places = Places.of_slots(config, jnp.arange(width), capacity, rows.start_B, whole=True)
    logits_BV, caches = _extend(_unstack(params, config), tokens_BT, places, caches, config)
    last_B = _choose(logits_BV, rows.keys_B, width - rows.start_B, sampling)
    return _State(
        slot=jnp.int32(width), last_B=last_B, done_B=_stops(last_B, sampling), caches=caches
    )


@functools.partial(jax.jit, static_argnames=("config", "sampling"), donate_argnames="state")
def _decode(
    params: dict,
    state: _State,
    rows: _Rows,
    steps: jax.Array,
    *,
    config: ModelConfig,
    sampling: Sampling,
) -> tuple[_State, jax.Array]:
    """Up to `steps` more tokens, or fewer once all rows are done.

    Returns:
      the new state, and the tokens [slots of the cache, B], of which the first `steps` are valid.
    """
    capacity = state.caches[0].k_BKSH.shape[2]
    layers = _unstack(params, config)

    def unfinished(carry):
        step, state, _ = carry
        return (step < steps) & ~state.done_B.all()

    def advance(carry):
        step, state, tokens_TB = carry
        places = Places.of_slots(config, state.slot[None], capacity, rows.start_B, whole=False)
        logits_BV, caches = _extend(layers, state.last_B[:, None], places, state.caches, config)
        new_B = _choose(logits_BV, rows.keys_B, state.slot + 1 - rows.start_B, sampling)
        tokens_TB = jax.lax.dynamic_update_index_in_dim(tokens_TB, new_B, step, 0)
        state = _State(
            slot=state.slot + 1,
            last_B=new_B,
            done_B=state.done_B | _stops(new_B, sampling),
            caches=caches,
        )
        return step + 1, state, tokens_TB

    tokens_TB = jnp.zeros((capacity, state.last_B.shape[0]), jnp.int32)
    _, state, tokens_TB = jax.lax.while_loop(unfinished, advance, (jnp.int32(0), state, tokens_TB))
    return state, tokens_TB


@functools.partial(jax.jit, static_argnames="capacity")
def _grow(state: _State, capacity: int) -> _State:
    """The same state, its caches with `capacity` slots."""
    room = [(0, 0), (0, 0), (0, capacity - state.caches[0].k_BKSH.shape[2]), (0, 0)]
    return state.replace(caches=jax.tree.map(lambda leaf: jnp.pad(leaf, room), state.caches))


def _unstack(params: dict, config: ModelConfig) -> dict:
    """Parameters with the blocks as a list: sliced once, not in every step of the decoding loop."""
    blocks = [
        jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["blocks"])
        for layer in range(config.num_layers)
    ]
    return params | {"blocks": blocks}


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
    windows = config.layer_windows or (None,) * config.num_layers
    grown = []
    for block_params, cache, window in zip(layers["blocks"], caches, windows, strict=True):
        stream_BTD, cache = Block(config).apply(
            {"params": block_params}, stream_BTD, places, cache, window, method=Block.extend
        )
        grown.append(cache)
    return model(stream_BTD[:, -1], method=Transformer.unembed), tuple(grown)


def _choose(
    logits_BV: jax.Array, keys_B: jax.Array, position_B: jax.Array, sampling: Sampling
) -> jax.Array:
    """Next token of each row, int32 [B]; the randomness is a function of row key and position."""
    logits_BV = logits_BV.astype(jnp.float32)
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_p < 1:
        logits_BV = _nucleus(logits_BV, sampling.top_p)
    step_keys_B = jax.vmap(jax.random.fold_in)(keys_B, position_B)
    return jax.vmap(jax.random.categorical)(step_keys_B, logits_BV).astype(jnp.int32)


def _nucleus(logits_BV: jax.Array, top_p: float) -> jax.Array:
    """Logits with -inf outside the smallest set of tokens whose probability reaches `top_p`."""
    order_BV = jnp.argsort(logits_BV, axis=-1, descending=True)
    sorted_BV = jnp.take_along_axis(jax.nn.softmax(logits_BV, axis=-1), order_BV, axis=-1)
    kept_BV = jnp.cumsum(sorted_BV, axis=-1) - sorted_BV < top_p
    rows_B1 = jnp.arange(logits_BV.shape[0])[:, None]
    kept_BV = jnp.zeros_like(kept_BV).at[rows_B1, order_BV].set(kept_BV)
    return jnp.where(kept_BV, logits_BV, -jnp.inf)


def _stops(tokens_B: jax.Array, sampling: Sampling) -> jax.Array:
    return jnp.isin(tokens_B, jnp.asarray(sampling.stop_tokens, jnp.int32))


def _cut(tokens: list[int], sampling: Sampling) -> list[int]:
    """The response up to and including its first stop token."""
    for index, token in enumerate(tokens):
        if token in sampling.stop_tokens:
            return tokens[: index + 1]
    return tokens


def _round_up(slots: int) -> int:
    return -(-slots // _SLOT_MULTIPLE) * _SLOT_MULTIPLE


def _check_prompts(prompts: Sequence[Sequence[int]], config: ModelConfig) -> None:
    if not prompts:
        raise ValueError("prompts: expected at least one")
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number}: expected at least one token")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise ValueError(
                f"prompt {number}: expected token ids below {config.vocab_size}, found "
                f"{min(prompt)} to {max(prompt)}"
            )
