"""ModelConfig: bad values are refused by name, and every field changes the model."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import toys

from eap_jax.config import ModelConfig, RopeScaling
from eap_jax.parameters import parameter_shapes
from eap_jax.transformer import Transformer

SIZES = ("vocab_size", "num_layers", "d_model", "d_ff", "num_heads", "num_kv_heads", "head_dim")
BASE = toys.ZOO["multi-head"].config
LINEAR = RopeScaling(kind="linear", factor=2.0)
# One other valid value of every field. All leave the parameters' shapes alone or change them.
CHANGED = {
    "vocab_size": 62, "num_layers": 3, "d_model": 26, "d_ff": 41, "num_heads": 8,
    "num_kv_heads": 2, "head_dim": 8, "norm_eps": 0.1, "rope_theta": 500.0, "rope_scaling": LINEAR,
    "qkv_bias": True, "output_bias": True, "mlp_bias": True, "tied_embeddings": True,
    "layer_windows": (None, 3),
}  # fmt: skip
CHANGED_SCALING = {
    "kind": None, "factor": 3.0, "low_freq_factor": 0.2, "high_freq_factor": 9.0,
    "original_context": 500,
}  # fmt: skip


def logits(config, params):
    tokens_BT = toys.random_tokens(BASE, 1, 12)
    return np.asarray(Transformer(config).apply({"params": params}, tokens_BT).logits)


@functools.cache
def base_logits(scaling=None):
    config = dataclasses.replace(BASE, rope_scaling=scaling)
    return logits(config, toys.random_params(BASE))


def test_every_field_has_a_changed_value_below():
    assert set(CHANGED) == {field.name for field in dataclasses.fields(ModelConfig)}
    assert set(CHANGED_SCALING) == {field.name for field in dataclasses.fields(RopeScaling)}


@pytest.mark.parametrize("field", CHANGED)
def test_every_field_changes_the_output_or_the_parameters_it_needs(field):
    changed = dataclasses.replace(BASE, **{field: CHANGED[field]})
    old, new = parameter_shapes(BASE), parameter_shapes(changed)
    params = toys.random_params(BASE)
    if field in SIZES:
        assert new != old
        with pytest.raises(Exception, match="(?i)shape|size"):
            logits(changed, params)
        return
    # The same values for all shared parameters, so that only the field makes the difference.
    extra = toys.random_params(changed, seed=1)
    shared = {n: params.get(n, extra[n]) for n in extra if n != "blocks"}
    blocks = {n: params["blocks"].get(n, leaf) for n, leaf in extra["blocks"].items()}
    after = logits(changed, shared | {"blocks": blocks})
    assert toys.relative(after, base_logits()) > 1e-3


@pytest.mark.parametrize("field", CHANGED_SCALING)
def test_every_field_of_the_rope_scaling_changes_the_output(field):
    scaling = RopeScaling(
        kind="llama3", factor=8.0, low_freq_factor=0.05, high_freq_factor=4.0, original_context=64
    )
    if field == "kind":
        other = RopeScaling(kind="linear", factor=8.0)
    else:
        other = dataclasses.replace(scaling, **{field: CHANGED_SCALING[field]})
    assert toys.relative(base_logits(other), base_logits(scaling)) > 1e-3


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "8", None])
def test_a_size_that_is_no_positive_whole_number_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}: expected .*, found "):
        dataclasses.replace(BASE, **{field: value})


@pytest.mark.parametrize("field", ["norm_eps", "rope_theta"])
@pytest.mark.parametrize("value", [0, -1e-6, float("nan"), True, "1e-6", None])
def test_a_number_that_is_not_positive_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}: expected .*, found "):
        dataclasses.replace(BASE, **{field: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads: expected a divisor of num_heads 4, found 3"),
        ({"num_kv_heads": 8}, "num_kv_heads: expected a divisor of num_heads 4, found 8"),
        ({"head_dim": 5}, "head_dim: .*even.* found 5"),
        ({"layer_windows": (3,)}, "layer_windows: expected 2 entries, found 1"),
        ({"layer_windows": (3, 0)}, "layer_windows: expected positive sizes"),
        ({"layer_windows": (None, None)}, "layer_windows: no layer has a window"),
    ],
    ids=str,
)
def test_fields_that_contradict_each_other_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BASE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "yarn"}, "kind: expected linear or llama3, found 'yarn'"),
        ({"factor": 0.5}, "factor: expected at least 1, found 0.5"),
        ({"factor": float("nan")}, "factor: expected at least 1, found nan"),
        ({"kind": "linear"}, "linear takes a factor only"),
        ({"low_freq_factor": None}, "llama3 needs"),
        ({"original_context": None}, "llama3 needs"),
        ({"low_freq_factor": 4.0}, "low_freq_factor < high_freq_factor"),
        ({"low_freq_factor": 0.0}, "low_freq_factor < high_freq_factor"),
    ],
    ids=str,
)
def test_a_rope_scaling_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(toys.LLAMA3, **change)


def test_a_config_is_frozen_hashable_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.d_model = 5
    with pytest.raises(TypeError):
        ModelConfig(61, 2, 24, 40, 4, 4, 6, 1e-6, 1e4)
    assert len({BASE, dataclasses.replace(BASE), toys.MAIN}) == 2


@pytest.mark.parametrize("name", toys.ZOO)
def test_number_of_parameters_equals_transformers(torch, name):
    toy = toys.ZOO[name]
    model = toys.torch_model(toy, toys.random_params(toy.config))
    # A shared tensor is one parameter.
    assert toy.config.num_parameters == sum(leaf.numel() for leaf in model.parameters())


def test_a_config_works_as_a_static_argument_of_jit():
    double = jax.jit(lambda x, config: x * config.d_model, static_argnames="config")
    assert float(double(1.0, config=BASE)) == 24
