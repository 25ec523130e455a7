"""Placement on two simulated devices: the same scores and tokens, the arrays really split."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax import sharding
from eap_jax.attribution import attribute
from eap_jax.generation import Sampling, generate
from eap_jax.parameters import parameter_axes

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"].config


@pytest.mark.parametrize(
    ("text", "data", "model"),
    [
        ("", 1, 1),
        ("data:2", 2, 1),
        ("model:2", 1, 2),
        ("model:4,data:3", 3, 4),
        ("data:1,model:1", 1, 1),
    ],
)
def test_a_mesh_flag_names_the_sizes_of_both_axes(text, data, model):
    assert sharding.parse_mesh(text) == {"data": data, "model": model}
    assert tuple(sharding.parse_mesh(text)) == sharding.MESH_AXES


@pytest.mark.parametrize(
    "text",
    [
        "data",
        "data:",
        "data:0",
        "data:-1",
        "data:x",
        "data:1.5",
        "rows:2",
        "data:2,data:2",
        "2",
        "data:2 model:2",
    ],
)
def test_a_malformed_mesh_flag_is_refused_in_full(text):
    with pytest.raises(ValueError, match="mesh: expected data:N,model:M") as error:
        sharding.parse_mesh(text)
    assert repr(text) in str(error.value)


def test_a_mesh_larger_than_the_machine_is_refused():
    with pytest.raises(ValueError, match="expected 4 devices, found 2"):
        sharding.make_mesh("data:2,model:2")


def test_a_mesh_takes_the_devices_it_is_given():
    second = jax.devices()[1]
    assert sharding.make_mesh("", devices=[second]).devices.tolist() == [[second]]
    assert sharding.make_mesh("model:2").shape == {"data": 1, "model": 2}


def test_heads_mlp_width_and_vocabulary_are_split_and_nothing_else():
    """By name of parameter: which of its axes is halved on two devices."""
    config = toys.toy_of(
        "llama", vocab_size=60, qkv_bias=True, output_bias=True, mlp_bias=True
    ).config
    placed = sharding.place_parameters(
        toys.random_params(config), config, sharding.make_mesh("model:2")
    )
    halved = {
        "embed": 0, "head": 0, "final_norm": None, "attention_norm": None, "mlp_norm": None,
        "q": 1, "k": 1, "v": 1, "o": 2, "gate": 1, "up": 1, "down": 2, "q_bias": 1, "k_bias": 1,
        "v_bias": 1, "o_bias": None, "gate_bias": 1, "up_bias": 1, "down_bias": None,
    }  # fmt: skip
    leaves = placed["blocks"] | {name: leaf for name, leaf in placed.items() if name != "blocks"}
    assert set(leaves) == set(halved)
    for name, leaf in leaves.items():
        expected = list(leaf.shape)
        if halved[name] is not None:
            expected[halved[name]] //= 2
        shards = [shard.data.shape for shard in leaf.addressable_shards]
        assert shards == [tuple(expected)] * 2, name


def test_an_axis_that_the_mesh_does_not_divide_stays_whole():
    """One key/value head and a vocabulary of 61 on two devices."""
    config = toys.ZOO["multi-query, head_dim 10, all biases"].config
    shardings = sharding.parameter_shardings(config, sharding.make_mesh("model:2"))
    assert jax.tree.structure(shardings) == jax.tree.structure(parameter_axes(config))
    assert shardings["embed"].is_fully_replicated
    assert shardings["blocks"]["k"].is_fully_replicated
    assert not shardings["blocks"]["q"].is_fully_replicated


@pytest.fixture(scope="module")
def single():
    """Parameters, four texts and their scores on one device."""
    params = toys.random_params(TOY)
    batch = toys.batch_of(toys.random_texts(TOY, ((3, 5), (7, 2), (1, 9), (4, 4))))
    return params, batch, attribute(params, batch, config=TOY)


@pytest.mark.parametrize("text", ["data:2", "model:2"])
def test_two_devices_give_the_scores_of_one(single, text):
    params, batch, expected = single
    mesh = sharding.make_mesh(text)
    found = attribute(
        sharding.place_parameters(params, TOY, mesh), sharding.place_batch(batch, mesh), config=TOY
    )
    assert len(found.scores_BWR.sharding.device_set) == 2
    assert toys.relative(found.scores_BWR, expected.scores_BWR) <= 1e-5
    assert toys.relative(found.loss_B, expected.loss_B) <= 1e-6


def test_a_placed_batch_has_half_its_rows_on_each_device(single):
    _, batch, _ = single
    placed = sharding.place_batch(batch, sharding.make_mesh("data:2"))
    for leaf, original in zip(jax.tree.leaves(placed), jax.tree.leaves(batch), strict=True):
        shards = sorted(leaf.addressable_shards, key=lambda shard: shard.device.id)
        np.testing.assert_array_equal(shards[0].data, original[:2])
        np.testing.assert_array_equal(shards[1].data, original[2:])


def test_a_batch_that_the_data_axis_does_not_divide_is_refused(single):
    batch = jax.tree.map(lambda leaf: leaf[:3], single[1])
    with pytest.raises(ValueError, match="expected a multiple of 2 rows, found 3"):
        sharding.place_batch(batch, sharding.make_mesh("data:2"))


def test_tensor_parallel_weights_generate_the_same_tokens(single):
    params, _, _ = single
    prompts = [[5, 9, 2], [7]]
    sampling = Sampling(max_new_tokens=20)
    expected = generate(params, prompts, config=TOY, sampling=sampling)
    mesh = sharding.make_mesh("model:2")
    placed = sharding.place_parameters(params, TOY, mesh)
    assert generate(placed, prompts, config=TOY, sampling=sampling) == expected


def test_bfloat16_and_integer_leaves_keep_their_dtype_on_the_mesh(single):
    params, batch, _ = single
    mesh = sharding.make_mesh("model:2")
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    placed = sharding.place_parameters(low, TOY, mesh)
    assert {leaf.dtype for leaf in jax.tree.leaves(placed)} == {jnp.dtype(jnp.bfloat16)}
    assert sharding.place_batch(batch, mesh).tokens_BT.dtype == jnp.int32
