"""Metadata of GGUF files: what it says of the model is honoured, or refused by the key's name."""

import dataclasses
import math

import gguf_model
import numpy as np
import pytest
import toys

from converters.errors import CheckpointError, CheckpointWarning
from converters.gguf_config import config_of, token_ids
from converters.gguf_header import read_header
from converters.hf_config import read_config
from eap_jax.config import RopeScaling


def written(tmp_path, **options):
    path = tmp_path / "model.gguf"
    gguf_model.write(path, **options)
    return path


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_config(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_a_config_is_that_of_the_model_written(tmp_path):
    assert read_config(written(tmp_path)) == gguf_model.TOY.config


def test_what_may_be_missing_has_llama_cpps_defaults(tmp_path):
    keys = ("attention.key_length", "attention.value_length", "rope.dimension_count",
            "rope.freq_base", "vocab_size")  # fmt: skip
    without = tuple(f"llama.{key}" for key in keys)
    assert read_config(written(tmp_path, without=without)) == gguf_model.TOY.config


def test_numbers_are_the_shortest_decimals_of_their_32_bits(tmp_path):
    config = read_config(written(tmp_path, metadata={"llama.rope.freq_base": 100000.5}))
    assert (config.norm_eps, config.rope_theta) == (1e-5, 100000.5)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"general.architecture": "gemma3"}, "general.architecture: expected llama, found 'gemma3'"),
        ({"llama.expert_count": 8}, "llama.expert_count: expected 0"),
        ({"llama.attention.sliding_window": 4096}, "sliding_window: expected 0"),
        (
            {"llama.rope.scaling.type": "longrope"},
            "scaling.type: expected none, linear or yarn, found 'longrope'",
        ),
        ({"llama.rope.scaling.attn_factor": 2.0}, "attn_factor: expected 1 without yarn"),
        ({"llama.rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor: expected 1.0, the only value"),
        ({"llama.rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log_multiplier: expected 0.0"),
        ({"llama.attention.sinks": True}, "llama.attention.sinks: expected a key that this model"),
        ({"llama.embedding_scale": 12.0}, "llama.embedding_scale: expected a key that this model"),
        ({"llama.rope.dimension_count": 32}, "rope.dimension_count: expected 64, the size of a head"),
        ({"llama.attention.value_length": 32}, "attention.value_length: expected 64"),
        ({"llama.logit_scale": 2.0}, "llama.logit_scale: expected a key that this model honours"),
        ({"llama.block_count": 3}, "llama.block_count: expected 3 layers, found tensors of 2 layers"),
        ({"llama.block_count": 2**31}, "llama.block_count: expected a positive whole number"),
        ({"llama.block_count": 2.0}, "llama.block_count: expected a positive whole number"),
        ({"llama.embedding_length": 0}, "embedding_length: expected a positive whole number"),
        ({"llama.rope.freq_base": float("nan")}, "rope.freq_base: expected a positive number"),
        ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "epsilon: expected a positive number"),
        ({"tokenizer.ggml.eos_token_id": 40}, "eos_token_id: expected a token id below 40, found 40"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_refused_by_its_key(metadata, said, tmp_path):
    assert said in refusal(written(tmp_path, metadata=metadata))


@pytest.mark.parametrize(
    "key",
    ["block_count", "embedding_length", "feed_forward_length", "attention.head_count",
     "attention.layer_norm_rms_epsilon"],
)  # fmt: skip
def test_what_must_be_there_is_asked_for(key, tmp_path):
    message = refusal(written(tmp_path, without=(f"llama.{key}",)))
    assert f"llama.{key}: expected a positive" in message
    assert message.endswith("found none")


def test_every_token_that_ends_an_answer_is_known(tmp_path):
    metadata = {"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 2}
    file = read_header(written(tmp_path, metadata=metadata))
    assert token_ids(file) == {"bos_token_id": 1, "eos_token_id": [2, 5]}
    assert config_of(file)["eos_token_id"] == [2, 5]


def test_an_unknown_key_is_a_warning_and_one_that_is_off_is_silent(tmp_path):
    off = {"llama.logit_scale": 1.0, "llama.attention.clamp_kqv": 0.0, "llama.expert_shared": False}
    path = written(tmp_path, metadata=off)
    assert read_config(path) == gguf_model.TOY.config
    path = written(tmp_path, metadata=off | {"llama.colour": "blue", "llama.made_by.us": 3})
    said = r"model\.gguf: ignored keys that are not known: llama\.colour, llama\.made_by\.us$"
    with pytest.warns(CheckpointWarning, match=said):
        assert read_config(path) == gguf_model.TOY.config


YARN = {
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 8.0,
    "llama.rope.scaling.original_context_length": 16,
    "llama.rope.scaling.finetuned": True,
}


@pytest.mark.parametrize(
    ("metadata", "changes"),
    [
        ({}, {}),
        (
            {
                "llama.rope.scaling.yarn_beta_fast": 24.0,
                "llama.rope.scaling.yarn_beta_slow": 2.0,
                "llama.rope.scaling.yarn_ext_factor": 1.0,
            },
            {"beta_fast": 24.0, "beta_slow": 2.0},
        ),
    ],
)
def test_yarn_is_honoured_as_transformers_computes_it(metadata, changes, torch, tmp_path):
    scaling = RopeScaling(
        kind="yarn", factor=8.0, original_context=16,
        attention_factor=1 + 0.1 * math.log(8), beta_fast=32.0, beta_slow=1.0, truncate=True,
    )  # fmt: skip
    scaling = dataclasses.replace(scaling, **changes)
    base = gguf_model.TOY
    toy = dataclasses.replace(base, config=dataclasses.replace(base.config, rope_scaling=scaling))
    path = tmp_path / "model.gguf"
    expected = gguf_model.write(path, base, metadata=YARN | metadata)
    gguf_model.assert_logits(path, toy, expected, torch)


def test_yarns_multiplier_is_multiplied_by_its_key(tmp_path):
    """As llama.cpp does, whatever the stretch."""
    path = written(tmp_path, metadata=YARN | {"llama.rope.scaling.attn_factor": 0.5})
    scaling = read_config(path).rope_scaling
    assert scaling.attention_factor == pytest.approx(0.5 * (1 + 0.1 * math.log(8)))


def test_linear_scaling_is_honoured_in_both_spellings(tmp_path):
    wanted = dataclasses.replace(
        gguf_model.TOY.config, rope_scaling=RopeScaling(kind="linear", factor=4.0)
    )
    for metadata in (
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scale_linear": 4.0},
    ):
        assert read_config(written(tmp_path, metadata=metadata)) == wanted


def test_llama3_scaling_is_read_from_the_factors_that_the_file_holds(torch, tmp_path):
    """The file has what every angle is divided by: transformers' own angles are the oracle."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = dataclasses.replace(toys.LLAMA3, original_context=8192)
    base = gguf_model.TOY
    toy = dataclasses.replace(base, config=dataclasses.replace(base.config, rope_scaling=scaling))
    plain = toys.torch_model(base, toys.random_params(base.config)).config
    scaled = toys.torch_model(toy, toys.random_params(toy.config)).config
    angles = base.config.rope_theta ** -(np.arange(0, 64, 2) / 64)
    found, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, "cpu")
    assert plain.rope_parameters["rope_type"] == "default"
    factors = (angles / found.numpy()).astype(np.float32)
    assert len(set(factors)) > 3
    path = tmp_path / "model.gguf"
    expected = gguf_model.write(path, toy, tensors={"rope_freqs.weight": factors})
    gguf_model.assert_logits(path, toy, expected, torch)
    factors[5] *= 1.5
    gguf_model.write(path, toy, tensors={"rope_freqs.weight": factors})
    assert "rope_freqs.weight: expected the factors of llama3 scaling by 8" in refusal(path)
