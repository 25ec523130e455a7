"""Placement on simulated devices: the same scores and tokens, the arrays really split."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax import sharding
from eap_jax.attribution import attribute
from eap_jax.generation import Sampling, generate
from eap_jax.parameters import parameter_axes, parameter_shapes

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
        "data:²",
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
    with pytest.raises(ValueError, match="expected 8 devices, found 4"):
        sharding.make_mesh("data:4,model:2")


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


@pytest.mark.parametrize("text", ["data:2", "model:2", "data:2,model:2"])
@pytest.mark.parametrize("length", [12, 13, None], ids=["divided", "odd length", "no layout"])
@pytest.mark.parametrize("remat", [False, True])
def test_several_devices_give_the_scores_of_one(single, text, length, remat):
    params, batch, expected = single
    mesh = sharding.make_mesh(text)
    layout = None
    if length is not None:
        widened = jnp.pad(batch.tokens_BT, ((0, 0), (0, length - batch.tokens_BT.shape[1])))
        batch = batch.replace(tokens_BT=widened)
        layout = sharding.layout(mesh, length)
    found = attribute(
        sharding.place_parameters(params, TOY, mesh), sharding.place_batch(batch, mesh),
        config=TOY, layout=layout, remat=remat,
    )  # fmt: skip
    assert len(found.scores_BWR.sharding.device_set) == mesh.size
    assert toys.relative(found.scores_BWR, expected.scores_BWR) <= 1e-5
    assert toys.relative(found.loss_B, expected.loss_B) <= 1e-6


def temporary_bytes(config, text, rows, length, *, remat):
    """Of one device, by the compiler's own account, for a batch whose targets are all its places."""
    mesh = sharding.make_mesh(text)
    params = jax.tree.map(
        lambda where, shape: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where),
        sharding.parameter_shardings(config, mesh),
        parameter_shapes(config),
        is_leaf=lambda leaf: isinstance(leaf, jax.sharding.Sharding),
    )
    batch = sharding.place_batch(
        toys.batch_of(toys.random_texts(config, [(1, length)] * rows)), mesh
    )
    lowered = attribute.lower(
        params, batch, config=config, remat=remat, layout=sharding.layout(mesh, length)
    )
    return lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("remat", [False, True])
def test_the_model_axis_divides_temporary_memory(remat):
    config = dataclasses.replace(TOY, num_layers=12, num_kv_heads=TOY.num_heads, d_ff=256)
    whole = temporary_bytes(config, "", 2, 64, remat=remat)
    assert temporary_bytes(config, "model:2", 2, 64, remat=remat) <= 0.6 * whole


def test_one_device_needs_no_layout_and_writes_are_split_along_the_text():
    assert sharding.layout(sharding.make_mesh(""), 12) is None
    mesh = sharding.make_mesh("model:2")
    writes = jnp.zeros((2, 5, 12, 8))
    placed = jax.jit(sharding.layout(mesh, 12).apart)(writes)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 5, 6, 8)}
    whole = jax.jit(sharding.layout(mesh, 13).apart)(jnp.zeros((2, 5, 13, 8)))
    assert {shard.data.shape for shard in whole.addressable_shards} == {(2, 5, 13, 8)}


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


@pytest.mark.parametrize("mesh", ["data:2", "model:2", "data:2,model:2"])
def test_generation_on_a_mesh_gives_the_same_tokens(single, mesh):
    """Three rows become four on two devices of the data axis, and are refilled."""
    params, _, _ = single
    prompts = [[5, 9, 2], [7], [1, 2, 3, 4], [3, 3], [8, 6]]
    settings = {"sampling": Sampling(max_new_tokens=20), "limits": [20, 3, 7, 11, 9], "rows": 3}
    expected = generate(params, prompts, config=TOY, **settings)
    placed = sharding.place_parameters(params, TOY, sharding.make_mesh(mesh))
    assert generate(placed, prompts, config=TOY, **settings) == expected


def test_separate_layers_lie_as_stacked_ones_do_without_the_first_axis():
    mesh = sharding.make_mesh("model:2")
    stacked = sharding.parameter_shardings(TOY, mesh)
    apart = sharding.parameter_shardings(TOY, mesh, separate=True)
    assert len(apart["blocks"]) == TOY.num_layers
    for name, found in apart["blocks"][0].items():
        assert tuple(found.spec) == tuple(stacked["blocks"][name].spec)[1:]


def test_bfloat16_and_integer_leaves_keep_their_dtype_on_the_mesh(single):
    params, batch, _ = single
    mesh = sharding.make_mesh("model:2")
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    placed = sharding.place_parameters(low, TOY, mesh)
    assert {leaf.dtype for leaf in jax.tree.leaves(placed)} == {jnp.dtype(jnp.bfloat16)}
    assert sharding.place_batch(batch, mesh).tokens_BT.dtype == jnp.int32
