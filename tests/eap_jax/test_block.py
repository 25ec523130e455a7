"""One layer against transformers' decoder layer, on whole texts and token by token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax.block import Activations, Block, Cache
from eap_jax.places import Kind, Places

# Grouped queries, biases, a window above the first layer.
TOY = toys.ZOO["window 5 above the first layer"]
LENGTH = 12


@functools.cache
def hidden_states(torch) -> list[np.ndarray]:
    """The stream before each layer [2, T, D], by transformers."""
    model = toys.torch_model(TOY, toys.random_params(TOY.config))
    tokens_BT = torch.tensor(toys.random_tokens(TOY.config, 2, LENGTH), dtype=torch.long)
    with torch.no_grad():
        states = model(tokens_BT, output_hidden_states=True).hidden_states
    return [state.numpy() for state in states]


def variables(number: int) -> dict:
    blocks = toys.random_params(TOY.config)["blocks"]
    return {"params": {name: leaf[number] for name, leaf in blocks.items()}}


# The last state of transformers is normalised, so the last layer is left to the whole model's test.
@pytest.mark.parametrize("number", [0, 1])
def test_a_layer_equals_transformers_and_adds_exactly_its_writes(torch, number):
    states = hidden_states(torch)
    places = Places.of_texts(TOY.config, LENGTH)
    kind = Kind.each(TOY.config)[number]
    apply = jax.jit(Block(TOY.config).apply)
    stream, (writes, kept) = apply(variables(number), states[number], places, kind)
    assert toys.relative(stream, states[number + 1]) <= 1e-5
    np.testing.assert_allclose(writes.sum(axis=0), stream - states[number], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(kept.stream_BTD, states[number])


@pytest.mark.parametrize("number", [0, 1])
def test_tokens_through_a_cache_in_three_pieces_equal_transformers_on_the_whole_text(torch, number):
    """A whole start, then several tokens at once, then one; the second row begins two slots late."""
    config, states = TOY.config, hidden_states(torch)
    late, slots = 2, 16
    stream = np.zeros((2, LENGTH + late, config.d_model), np.float32)
    stream[0, late:], stream[1, late:] = states[number]
    start_B = jnp.full(2, late)
    empty = jnp.zeros((2, config.num_kv_heads, slots, config.head_dim))
    cache, found = Cache(k_BKSH=empty, v_BKSH=empty), []
    for first, end in ((0, 8), (8, 13), (13, 14)):
        places = Places.of_slots(config, jnp.arange(first, end), slots, start_B, whole=first == 0)
        piece, cache = Block(config).apply(
            variables(number), stream[:, first:end], places, cache,
            Kind.each(config)[number], method=Block.extend,
        )  # fmt: skip
        found.append(piece)
    found = np.concatenate(found, axis=1)[:, late:]
    assert toys.relative(found, states[number + 1]) <= 1e-5


def test_a_prefix_of_activations_is_that_of_the_shorter_text(torch):
    stream = hidden_states(torch)[0]
    places = [Places.of_texts(TOY.config, length) for length in (LENGTH, 7)]
    apply = functools.partial(Block(TOY.config).apply, variables(0))
    _, (_, long) = apply(stream, places[0])
    _, (_, short) = apply(stream[:, :7], places[1])
    cut = long.prefix(7)
    assert isinstance(cut, Activations)
    for one, other in zip(jax.tree.leaves(cut), jax.tree.leaves(short), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
