"""Rotary frequencies of every kind of scaling against transformers, hand arithmetic, and bad values."""

import dataclasses
import functools

import numpy as np
import pytest
import toys

from eap_jax.places import rotary_frequencies
from eap_jax.rope import RopeScaling, frequencies

YARN = RopeScaling(
    kind="yarn", factor=8.0, original_context=64, attention_factor=1.2, beta_fast=32.0,
    beta_slow=1.0, truncate=True,
)  # fmt: skip
LONG = RopeScaling(
    kind="longrope", original_context=64, attention_factor=1.2,
    short_factor=tuple(np.linspace(1, 2, 8).tolist()),
    long_factor=tuple(np.linspace(2, 9, 8).tolist()),
)  # fmt: skip
DYNAMIC = RopeScaling(kind="dynamic", factor=4.0, original_context=64)
LINEAR = RopeScaling(kind="linear", factor=4.0)
KINDS = {scaling.kind: scaling for scaling in (LINEAR, toys.LLAMA3, YARN, LONG, DYNAMIC)}
SIZE, THETA = 16, 1e4


def by_transformers(scaling: RopeScaling, length: int | None):
    """(frequencies, attention factor) for a text of `length` by transformers' own functions."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    names = {"kind": "rope_type", "original_context": "original_max_position_embeddings"}
    values = {
        names.get(key, key): value for key, value in vars(scaling).items() if value is not None
    }
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    if scaling.kind == "dynamic":
        del values["original_max_position_embeddings"]
    config = LlamaConfig(
        hidden_size=4 * SIZE, num_attention_heads=4, max_position_embeddings=64,
        rope_parameters=values | {"rope_theta": THETA},
    )  # fmt: skip
    found, factor = ROPE_INIT_FUNCTIONS[scaling.kind](config, "cpu", seq_len=length)
    return found.numpy(), factor


@pytest.mark.parametrize("length", [10, 64, 65, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_equals_transformers_at_every_length(torch, kind, length):
    scaling = KINDS[kind]
    expected, factor = by_transformers(scaling, length)
    found = frequencies(THETA, SIZE, scaling.for_length(length))
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    assert (scaling.attention_factor or 1.0) == factor


@pytest.mark.parametrize(
    "change",
    [
        {"truncate": False}, {"beta_fast": 2.0}, {"beta_slow": 2.0}, {"factor": 2.0},
        {"original_context": 4096}, {"beta_fast": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_every_field_of_yarn_acts_as_in_transformers(torch, change):
    scaling = dataclasses.replace(YARN, **change)
    expected, _ = by_transformers(scaling, None)
    found = frequencies(THETA, SIZE, scaling)
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    assert np.abs(found - frequencies(THETA, SIZE, YARN)).max() > 1e-6


@pytest.mark.parametrize("name", toys.ZOO)
def test_rotary_frequencies_equal_those_of_transformers_models(torch, name):
    toy = toys.ZOO[name]
    model = toys.torch_model(toy, toys.random_params(toy.config))
    expected = model.model.rotary_emb.inv_freq.numpy()
    np.testing.assert_allclose(rotary_frequencies(toy.config), expected, rtol=1e-6)


def test_llama3_scaling_keeps_high_divides_low_and_blends_middle_frequencies():
    """Hand arithmetic at H = 16: original context 64, factor 8, band of 1 to 4 rotations."""
    plain = 10000.0 ** -(np.arange(8) / 8)
    rotations = 64 * plain / (2 * np.pi)  # 10.2, 3.22, 1.02, 0.32, ...
    blend = (rotations[1:3] - 1) / 3
    middle = (1 - blend) * plain[1:3] / 8 + blend * plain[1:3]
    expected = [plain[0], *middle, *(plain[3:] / 8)]
    np.testing.assert_allclose(frequencies(THETA, SIZE, toys.LLAMA3), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("scaling", "change", "message"),
    [
        (toys.LLAMA3, {"kind": "ntk"}, "kind: expected one of linear, .*, found 'ntk'"),
        (toys.LLAMA3, {"factor": 0.5}, "factor: expected at least 1, found 0.5"),
        (toys.LLAMA3, {"factor": float("nan")}, "factor: expected a positive number, found nan"),
        (toys.LLAMA3, {"kind": "linear"}, r"linear: expected \['factor'\], found"),
        (toys.LLAMA3, {"low_freq_factor": None}, "llama3: expected .*'low_freq_factor'"),
        (toys.LLAMA3, {"low_freq_factor": 4.0}, "low_freq_factor < high_freq_factor"),
        (toys.LLAMA3, {"low_freq_factor": 0.0}, "low_freq_factor: expected a positive number"),
        (YARN, {"attention_factor": None}, "yarn: expected .*'attention_factor'"),
        (YARN, {"beta_fast": 0.5}, "beta_fast of at least beta_slow, found 0.5 and 1.0"),
        (LONG, {"short_factor": (1.0, -1.0)}, "short_factor: expected a positive number, found -1"),
        (LONG, {"factor": 2.0}, "longrope: expected"),
        (LINEAR, {"text_length": 9}, "do not depend on a text's length"),
    ],
    ids=str,
)
def test_a_rope_scaling_out_of_range_is_refused(scaling, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(scaling, **change)


@functools.cache
def changed_fields() -> set[str]:
    """Fields that some test above gives another value."""
    return {field for scaling in KINDS.values() for field, value in vars(scaling).items() if value}


def test_every_field_of_a_scaling_is_at_work_in_some_kind_here():
    assert changed_fields() | {"text_length"} == {f.name for f in dataclasses.fields(RopeScaling)}
