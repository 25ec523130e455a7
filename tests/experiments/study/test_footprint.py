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
