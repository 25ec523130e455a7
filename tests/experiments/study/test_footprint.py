"""What is counted from shapes is what arrays take."""

import jax
import jax.numpy as jnp
import pytest
import toys

from eap_jax.block import Block, Places
from eap_jax.decoding import empty_caches
from eap_jax.parameters import separate_layers
from eap_jax.sharding import abstract_mesh, decoding_layout, make_mesh, place_parameters
from experiments.study import footprint
from experiments.study.footprint import Placed

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"].config


def on_one_device(tree) -> int:
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_estimates_count_what_a_block_returns():
    rows, length = 3, 10
    params = jax.tree.map(lambda leaf: leaf[0], toys.random_params(TOY)["blocks"])
    stream_BTD = jnp.zeros((rows, length, TOY.d_model))
    places = Places.of_texts(TOY, length)
    _, (writes, kept) = Block(TOY).apply({"params": params}, stream_BTD, places)
    assert footprint.activation_bytes(TOY, rows * length, 4) == sum(
        leaf.nbytes for leaf in jax.tree.leaves(kept)
    )
    assert footprint.write_bytes(TOY, rows * length, 4) == (
        TOY.num_layers * writes.nbytes + stream_BTD.nbytes
    )


@pytest.mark.parametrize("text", ["", "data:2", "model:2", "data:2,model:2"])
def test_weights_and_cache_are_those_of_one_device(text):
    mesh = make_mesh(text)
    params = place_parameters(toys.random_params(TOY), TOY, mesh)
    model = Placed(config=TOY, dtype="float32", mesh=abstract_mesh(text))
    assert footprint.weight_bytes(model) == on_one_device(params)
    half = Placed(config=TOY, dtype="bfloat16", mesh=mesh)
    assert footprint.weight_bytes(half) == on_one_device(params) // 2
    caches = empty_caches(separate_layers(params), TOY, 6, 16, decoding_layout(TOY, mesh))
    assert footprint.cache_bytes(model, 6, 16) == on_one_device(caches)


def test_a_device_holds_the_larger_part_of_rows_that_do_not_divide():
    model = Placed(config=TOY, dtype="float32", mesh=abstract_mesh("data:2"))
    assert [model.own_rows(rows) for rows in (1, 6, 7)] == [1, 3, 4]
    assert footprint.cache_bytes(model, 7, 16) == footprint.cache_bytes(model, 8, 16)


@pytest.mark.parametrize("text", ["", "model:2"])
def test_kept_activations_are_a_devices_share_of_heads_and_mlp_beside_whole_streams(text):
    """By hand: 36 numbers of the stream, twice on a model axis; 6 queries' heads and 2 each of keys
    and of values, 6 numbers a head; 44 of gate and of up projection. 5 rows of 8 tokens, 2 layers."""
    model = Placed(config=TOY, dtype="bfloat16", mesh=abstract_mesh(text))
    batch = footprint.Scored(rows=5, length=8, targets=3, most_logits=2**10)
    ways = 2 if text else 1
    numbers = ways * 36 + ((6 + 2 + 2) * 6 + 2 * 44) // ways
    assert footprint.attribution_needs(model, batch).activations == 2 * 5 * 8 * numbers * 2
