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
LONG = RopeScaling(
    kind="longrope", original_context=16, attention_factor=1.2, short_factor=(1.0, 2.0),
    long_factor=(3.0, 4.0),
)  # fmt: skip
# Fields that another one must stand beside.
BESIDE = {
    "local_rope_theta": {"layer_windows": (None, 8)},
    "local_rope_scaling": {"layer_windows": (None, 8), "local_rope_theta": 1e4},
}
# One other valid value of every field. All leave the parameters' shapes alone or change them.
CHANGED = {
    "vocab_size": 62, "num_layers": 3, "d_model": 26, "d_ff": 41, "num_heads": 8,
    "num_kv_heads": 2, "head_dim": 8, "norm_eps": 0.1, "rope_theta": 500.0, "rope_scaling": LINEAR,
    "qkv_bias": True, "output_bias": True, "mlp_bias": True, "tied_embeddings": True,
    "layer_windows": (None, 3), "norm_position": "both", "norm_gain_offset": 1.0,
    "qk_norm": "head", "activation": "gelu_tanh", "embedding_multiplier": 3.0,
    "residual_multiplier": 0.2, "logits_divisor": 2.0, "attention_scale": 2.0,
    "attention_softcap": 0.3, "logits_softcap": 2.0, "rotary_dim": 4,
    "layer_rotary": (True, False), "local_rope_theta": 500.0, "local_rope_scaling": LINEAR,
    "adapter_rank": 2,
}  # fmt: skip


def logits(config, params):
    tokens_BT = toys.random_tokens(BASE, 1, 12)
    return np.asarray(Transformer(config).apply({"params": params}, tokens_BT).logits)


@functools.cache
def base_logits():
    return logits(BASE, toys.random_params(BASE))


def test_every_field_has_a_changed_value_below():
    assert set(CHANGED) == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("field", CHANGED)
def test_every_field_changes_the_output_or_the_parameters_it_needs(field):
    base = dataclasses.replace(BASE, **BESIDE.get(field, {}))
    changed = dataclasses.replace(base, **{field: CHANGED[field]})
    old, new = parameter_shapes(base), parameter_shapes(changed)
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
    before = logits(base, params) if field in BESIDE else base_logits()
    assert toys.relative(after, before) > 1e-3


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "8", None])
def test_a_size_that_is_no_positive_whole_number_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}: expected .*, found "):
        dataclasses.replace(BASE, **{field: value})


@pytest.mark.parametrize("field", ["norm_eps", "rope_theta", "residual_multiplier"])
@pytest.mark.parametrize("value", [0, -1e-6, float("nan"), float("inf"), True, "1e-6", None])
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
        ({"layer_rotary": (True,)}, "layer_rotary: expected 2 entries, found 1"),
        ({"layer_rotary": (True, 0)}, "layer_rotary: expected booleans"),
        ({"layer_rotary": (True, True)}, "layer_rotary: all layers rotate"),
        ({"norm_position": "sandwich"}, "norm_position: expected one of 'pre', 'post', 'both'"),
        ({"norm_gain_offset": 0.5}, "norm_gain_offset: expected one of 0.0, 1.0, found 0.5"),
        ({"qk_norm": "all"}, "qk_norm: expected one of"),
        ({"activation": "relu"}, "activation: expected one of"),
        ({"attention_softcap": -1.0}, "attention_softcap: expected a positive number"),
        ({"rotary_dim": 3}, "rotary_dim: expected an even size below head_dim 6, found 3"),
        ({"rotary_dim": 6}, "rotary_dim: expected an even size below head_dim 6, found 6"),
        ({"adapter_rank": -1}, "adapter_rank: expected a whole number from 0, found -1"),
        ({"local_rope_theta": 1e4}, "local_rope_theta: no layer has a window"),
        ({"local_rope_scaling": LINEAR}, "local_rope_scaling: expected local_rope_theta"),
        ({"rope_scaling": LONG}, "rope_scaling: short_factor: expected 3 numbers"),
    ],
    ids=str,
)
def test_fields_that_contradict_each_other_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BASE, **change)


def test_only_a_text_beyond_the_original_context_changes_the_model():
    """longrope: one set of frequencies beyond it; linear scaling: never."""
    factors = {"short_factor": (1.0, 2.0, 3.0), "long_factor": (3.0, 4.0, 5.0)}
    config = dataclasses.replace(BASE, rope_scaling=dataclasses.replace(LONG, **factors))
    assert config.longest_text == 16
    assert config.for_length(16) == config
    assert config.for_length(17) == config.for_length(500) != config
    linear = dataclasses.replace(BASE, rope_scaling=LINEAR)
    assert linear.longest_text is None
    assert linear.for_length(10**6) == linear


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
