"""Every kind of rotary scaling, with every key, gives transformers' frequencies and factor."""

import numpy as np
import pytest
from transformers_settings import rotary, theirs_of

from converters.errors import CheckpointError
from converters.hf_config import parse_config
from eap_jax.rope import frequencies

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 61,
    "hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
PHI = LLAMA | {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "partial_rotary_factor": 0.75,
    "original_max_position_embeddings": 32,
}  # fmt: skip
SHORT, LONG = [1.0, 1.1, 1.3, 1.5, 2.0, 3.0], [2.0, 3.0, 5.0, 8.0, 13.0, 21.0]
EIGHT = {"short_factor": [*SHORT, 4, 5], "long_factor": [*LONG, 34, 55]}


def yarn(**keys):
    return {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32} | keys


SCALINGS = {
    "default": (LLAMA, {"rope_type": "default"}),
    "linear": (LLAMA, {"type": "linear", "factor": 4}),
    "llama3": (
        LLAMA,
        {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
         "original_max_position_embeddings": 64},
    ),
    "llama3, context of the model": (
        LLAMA,
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ),
    "llama3, context beside it": (
        LLAMA | {"original_max_position_embeddings": 32},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ),
    "dynamic": (LLAMA, {"rope_type": "dynamic", "factor": 2.5}),
    "dynamic, context repeated": (
        LLAMA,
        {"rope_type": "dynamic", "factor": 2.5, "original_max_position_embeddings": 256},
    ),
    "yarn": (LLAMA, yarn()),
    "yarn, context of the model": (LLAMA, {"rope_type": "yarn", "factor": 4.0}),
    "yarn, factor from lengths": (LLAMA, yarn(factor=None)),
    "yarn, bands": (LLAMA, yarn(beta_fast=16, beta_slow=2)),
    "yarn, zero bands": (LLAMA, yarn(beta_fast=0, beta_slow=0)),
    "yarn, not truncated": (LLAMA, yarn(truncate=False, beta_fast=4.0)),
    "yarn, attention factor": (LLAMA, yarn(attention_factor=1.4)),
    "yarn, mscale": (LLAMA, yarn(mscale=0.707, mscale_all_dim=1.0)),
    "yarn, one mscale": (LLAMA, yarn(mscale=0.707)),
    "yarn, zero mscale": (LLAMA, yarn(mscale=0.707, mscale_all_dim=0)),
    "yarn, mscale and attention factor": (
        LLAMA, yarn(mscale=0.7, mscale_all_dim=0.9, attention_factor=0.8),
    ),
    "yarn, factor 1": (LLAMA, yarn(factor=1.0)),
    "longrope": (LLAMA, EIGHT | {"rope_type": "longrope", "original_max_position_embeddings": 32}),
    "longrope, factor": (
        LLAMA,
        EIGHT | {"rope_type": "longrope", "original_max_position_embeddings": 32, "factor": 3.0},
    ),
    "longrope, attention factor": (
        LLAMA,
        EIGHT
        | {"rope_type": "longrope", "original_max_position_embeddings": 32, "attention_factor": 1.2},
    ),
    "longrope, Phi": (
        PHI, {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG},
    ),
    "longrope, Phi, not longer": (
        PHI | {"max_position_embeddings": 32},
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG},
    ),
    "longrope, Phi, shorter": (
        PHI | {"max_position_embeddings": 16},
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG},
    ),
    "longrope, factor below 1": (
        LLAMA,
        EIGHT | {"rope_type": "longrope", "original_max_position_embeddings": 32, "factor": 0.5},
    ),
    "default, Phi": (PHI, None),
}  # fmt: skip


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_and_factor_are_those_of_transformers(name, key, tmp_path):
    data, scaling = SCALINGS[name]
    theta = {"rope_theta": 5e4} if scaling is None or key == "rope_scaling" else {}
    inner = scaling if scaling is None or theta else scaling | {"rope_theta": 5e4}
    data = data | theta | {key: inner}
    config = parse_config(data)
    for length in (20, 300):
        expected, factor = rotary(theirs_of(data, tmp_path), "full_attention", length)
        own = config.for_length(length)
        ours = frequencies(own.rope_theta, own.rotary_dim or own.head_dim, own.rope_scaling)
        np.testing.assert_allclose(ours, expected.numpy(), rtol=2e-6)
        given = None if own.rope_scaling is None else own.rope_scaling.attention_factor
        assert (1.0 if given is None else given) == pytest.approx(factor, rel=1e-6)


def refusal(data, scaling):
    with pytest.raises(CheckpointError) as error:
        parse_config(data | {"rope_scaling": scaling}, "here")
    message = str(error.value)
    assert message.startswith("here: rope_scaling: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("data", "scaling", "words"),
    [
        (LLAMA, yarn(llama_4_scaling_beta=0.1), ["yarn", "'llama_4_scaling_beta'", "0.1"]),
        (LLAMA, {"type": "linear", "factor": 2.0, "beta_fast": 32}, ["linear", "'beta_fast'"]),
        (LLAMA, {"type": "default", "mrope_section": [16, 24]}, ["'mrope_section'"]),
        (LLAMA, {"factor": 8.0}, ["default", "'factor'", "8.0"]),
        (LLAMA, {"type": "su", **EIGHT}, ["longrope", "'su'"]),
        (LLAMA, {"type": "proportional"}, ["'proportional'"]),
        (LLAMA, {"type": "longrope", "short_factor": [1.0] * 8}, ["long_factor"]),
        (LLAMA, EIGHT | {"type": "longrope", "short_factor": [1.0] * 7}, ["short_factor", "8"]),
        (LLAMA, EIGHT | {"type": "longrope", "short_factor": 1.0}, ["short_factor", "a list"]),
        (LLAMA, EIGHT | {"type": "longrope", "long_factor": [1.0] * 7 + [0]}, ["long_factor"]),
        (LLAMA, {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64},
         ["original_max_position_embeddings 64", "max_position_embeddings 256", "contradict"]),
        (LLAMA | {"original_max_position_embeddings": 16}, yarn(),
         ["original_max_position_embeddings 32", "16", "contradict"]),
        (LLAMA, yarn(beta_fast=1.0, beta_slow=2.0), ["beta_fast", "beta_slow"]),
        (LLAMA, yarn(truncate=0), ["truncate", "true or false"]),
        (LLAMA, yarn(mscale=-1.0), ["mscale", "-1.0"]),
        (LLAMA, yarn(original_max_position_embeddings=10**30), ["original_max_position", "at most"]),
        (LLAMA | {"max_position_embeddings": None}, {"type": "dynamic", "factor": 2.0},
         ["max_position_embeddings"]),
        (LLAMA | {"max_position_embeddings": None}, yarn(factor=None), ["factor"]),
        (LLAMA, EIGHT | {"type": "longrope", "original_max_position_embeddings": 1}, ["at least 2"]),
        (PHI, {"type": "linear", "factor": 2.0}, ["longrope", "'linear'"]),
        (PHI | {"original_max_position_embeddings": None},
         {"type": "su", "short_factor": SHORT, "long_factor": LONG,
          "original_max_position_embeddings": 32},
         ["4096", "32", "contradict"]),
    ],
)  # fmt: skip
def test_what_transformers_does_not_compute_so_is_refused_by_name(data, scaling, words):
    message = refusal(data, scaling)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    "extra",
    [
        {"finetuned": True}, {"attn_factor": 1.0}, {"extrapolation_factor": 1}, {"beta": None},
        {"type": "yarn"}, {"type": None},
    ],
)  # fmt: skip
def test_keys_that_change_nothing_are_silent(extra):
    assert parse_config(LLAMA | {"rope_scaling": yarn(**extra)}) == parse_config(
        LLAMA | {"rope_scaling": yarn()}
    )


def test_the_first_name_of_longrope_is_known():
    scaling = {"short_factor": SHORT, "long_factor": LONG}
    found = {
        parse_config(PHI | {"rope_scaling": scaling | {"type": kind}})
        for kind in ("su", "longrope", "yarn")
    }
    assert len(found) == 1
    both = scaling | {"type": "su", "rope_type": "longrope"}
    assert parse_config(PHI | {"rope_scaling": both}) in found
