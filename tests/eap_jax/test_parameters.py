"""Names and shapes of parameters against transformers' models and hand arithmetic."""

import dataclasses
import math

import jax
import pytest
import toys

from eap_jax import parameters

every_toy = pytest.mark.parametrize("name", toys.ZOO)


@every_toy
def test_shapes_hold_as_many_numbers_as_transformers_model(torch, name):
    toy = toys.ZOO[name]
    model = toys.torch_model(toy, toys.random_params(toy.config))
    assert toy.config.num_parameters == sum(weight.numel() for weight in model.parameters())


@every_toy
def test_axes_shapes_and_sizes_speak_of_the_same_tree(name):
    config = toys.ZOO[name].config
    axes = parameters.parameter_axes(config)
    is_shape = {"is_leaf": lambda leaf: isinstance(leaf, tuple)}
    shapes = parameters.parameter_shapes(config)
    assert jax.tree.structure(axes) == jax.tree.structure(shapes, **is_shape)
    assert shapes["embed"] == (61, config.d_model)
    kv = (config.num_layers, config.num_kv_heads, config.head_dim, config.d_model)
    assert shapes["blocks"]["k"] == kv
    assert shapes["blocks"]["down"] == (config.num_layers, config.d_model, config.d_ff)
    assert ("head" in shapes) != config.tied_embeddings
    assert parameters.head_name(config) in shapes


def test_each_kind_of_bias_adds_its_own_names():
    plain = toys.toy_of("llama").config
    found = {
        field: set(parameters.block_axes(toys.toy_of("llama", **{field: True}).config))
        - set(parameters.block_axes(plain))
        for field in ("qkv_bias", "output_bias", "mlp_bias")
    }
    assert found == {
        "qkv_bias": {"q_bias", "k_bias", "v_bias"},
        "output_bias": {"o_bias"},
        "mlp_bias": {"gate_bias", "up_bias", "down_bias"},
    }


@every_toy
def test_factors_lie_beside_every_matrix_and_are_counted(name):
    """y = W x + b (a x): a reads what W reads, b writes what W writes."""
    plain = toys.ZOO[name].config
    config = dataclasses.replace(plain, adapter_rank=3)
    shapes = parameters.parameter_shapes(config)["blocks"]
    added = set(shapes) - set(parameters.parameter_shapes(plain)["blocks"])
    matrices = ("q", "k", "v", "o", "gate", "up", "down")
    assert added == {f"{matrix}_{factor}" for matrix in matrices for factor in "ab"}
    for matrix in matrices:
        layers, rank, *into = shapes[f"{matrix}_a"]
        assert (layers, rank) == (config.num_layers, 3)
        *out, rank = shapes[f"{matrix}_b"][1:]
        assert (*out, *into) == shapes[matrix][1:]
        assert rank == 3
    count = sum(math.prod(shapes[name]) for name in added)
    assert config.num_parameters == plain.num_parameters + count
