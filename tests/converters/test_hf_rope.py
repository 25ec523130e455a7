"""Rotary settings: honoured wherever they stand, refused where two places contradict each other."""

import pytest
from real_configs import READ
from transformers_settings import rotary, theirs_of

from converters.errors import CheckpointError
from converters.families import FAMILIES
from converters.hf_config import parse_config
from converters.hf_rope import write_rope

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 61,
    "hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
GEMMA = {key: one for key, one in READ["gemma-3-4b, its text part"].items() if "rope" not in key}
OLMO = {key: one for key, one in READ["OLMo-3, transformers 5"].items() if key != "rope_parameters"}
LINEAR = {"rope_type": "linear", "factor": 8.0}
DEFAULT = {"rope_type": "default"}


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 500000},
        {"rope_scaling": {"rope_theta": 5e5}},
        {"rope_scaling": {"rope_theta": 5e5, "type": "default"}},
        {"rope_parameters": {"rope_theta": 5e5}},
        {"rope_theta": 500000, "rope_scaling": {"rope_theta": 5e5}},
        {"rope_theta": None, "rope_scaling": {"rope_theta": 5e5, "rope_type": None}},
        {"rope_scaling": {"rope_theta": 5e5}, "rope_parameters": {"rope_theta": 500000}},
        {"rope_scaling": {"type": "default", "rope_type": "default"}, "rope_theta": 5e5},
    ],
    ids=str,
)
def test_theta_is_honoured_wherever_it_stands(keys, tmp_path):
    config = parse_config(LLAMA | keys)
    assert (config.rope_theta, config.rope_scaling) == (5e5, None)
    if keys.get("rope_theta", 0) is not None:
        expected, _ = rotary(theirs_of(LLAMA | keys, tmp_path), "full_attention", 8)
        assert float(expected[1]) == pytest.approx(5e5 ** (-1 / 8))


def test_theta_beside_a_stretch_is_not_dropped(tmp_path):
    data = LLAMA | {"rope_scaling": {"rope_theta": 5e5, "type": "linear", "factor": 2.0}}
    assert theirs_of(data, tmp_path).rope_parameters["rope_theta"] == 5e5
    assert parse_config(data).rope_theta == 5e5


@pytest.mark.parametrize(
    ("data", "keys", "words"),
    [
        (LLAMA, {"rope_theta": 1e4, "rope_scaling": {"rope_theta": 5e5}},
         ["rope_theta 10000.0", "rope_scaling.rope_theta 500000.0", "contradict"]),
        (LLAMA, {"rope_scaling": {"rope_theta": 1e4}, "rope_parameters": {"rope_theta": 5e5}},
         ["rope_scaling.rope_theta 10000.0", "rope_parameters.rope_theta 500000.0"]),
        (LLAMA, {"rope_scaling": LINEAR, "rope_parameters": DEFAULT},
         ["rope_scaling and rope_parameters", "contradict"]),
        (LLAMA, {"rope_scaling": {"rope_type": "linear", "type": "default", "factor": 2}},
         ["rope_type 'linear'", "type 'default'"]),
        (LLAMA, {"rope_scaling": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor", "0.5"]),
        (READ["phi-4-mini"], {"rope_parameters": {"partial_rotary_factor": 0.5}},
         ["partial_rotary_factor 0.75", "rope_parameters.partial_rotary_factor 0.5"]),
        (LLAMA, {"rope_parameters": {"full_attention": DEFAULT}}, ["LlamaForCausalLM", "same"]),
        (LLAMA, {"rope_scaling": {"full_attention": DEFAULT}}, ["one object for all"]),
        (LLAMA, {"rope_theta": 1}, ["rope_theta", "more than 1"]),
        (LLAMA, {"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, ["dynamic", "2"]),
        (LLAMA, {"rope_scaling": "linear"}, ["rope_scaling", "an object"]),
        (GEMMA, {"rope_parameters": LINEAR}, ["Gemma3ForCausalLM", "sliding_attention"]),
        (GEMMA, {"rope_parameters": {"rope_theta": 5e5}}, ["sliding_attention", "500000.0"]),
        (GEMMA, {"rope_parameters": {"full_attention": [1]}}, ["full_attention", "an object"]),
        (GEMMA, {"rope_theta": 1e4, "rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
         ["rope_theta 10000.0", "rope_parameters.full_attention.rope_theta 1000000.0"]),
        (GEMMA, {"rope_local_base_freq": 1e3,
                 "rope_parameters": {"sliding_attention": {"rope_theta": 1e4}}},
         ["rope_local_base_freq 1000.0", "rope_parameters.sliding_attention.rope_theta 10000.0"]),
        (GEMMA, {"rope_scaling": LINEAR, "rope_parameters": {"full_attention": DEFAULT}},
         ["rope_scaling and rope_parameters.full_attention", "contradict"]),
        (OLMO, {"rope_parameters": {"full_attention": {
            "rope_type": "yarn", "factor": 2.0, "truncate": False}}},
         ["rope_parameters.full_attention", "truncate"]),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_by_naming_both_places(data, keys, words):
    with pytest.raises(CheckpointError) as error:
        parse_config(data | keys, "here")
    message = str(error.value)
    assert message.startswith("here: ")
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (GEMMA, {}),
        (GEMMA, {"rope_theta": 5e5, "rope_local_base_freq": 2e4}),
        (GEMMA, {"rope_scaling": LINEAR | {"rope_theta": 5e5}}),
        (GEMMA, {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": None}}),
        (GEMMA, {"rope_parameters": {
            "full_attention": LINEAR | {"rope_theta": 2e6},
            "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 3e4}}}),
        (GEMMA, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        (OLMO, {}),
        (OLMO, {"rope_theta": 1e6}),
        (OLMO, {"rope_scaling": {"rope_type": "yarn", "factor": 8.0,
                                 "original_max_position_embeddings": 8192}}),
    ],
)  # fmt: skip
def test_layers_with_a_window_rotate_as_transformers_rotates_them(data, keys, tmp_path):
    config, theirs = parse_config(data | keys), theirs_of(data | keys, tmp_path)
    full, local = (
        theirs.rope_parameters[layer] for layer in ("full_attention", "sliding_attention")
    )
    assert config.rope_theta == full["rope_theta"]
    kind = config.rope_scaling.kind if config.rope_scaling else "default"
    assert kind == full["rope_type"]
    if config.local_rope_theta is None:
        found = (config.rope_theta, config.rope_scaling)
    else:
        found = (config.local_rope_theta, config.local_rope_scaling)
    assert found[0] == local["rope_theta"]
    assert (found[1].kind if found[1] else "default") == local["rope_type"]
    assert (found[1].factor if found[1] else None) == local.get("factor")


@pytest.mark.parametrize("name", READ)
def test_what_is_written_is_read_as_the_same(name):
    config = parse_config(READ[name])
    (family,) = [one for one in FAMILIES.values() if one.model_type == READ[name]["model_type"]]
    plain = {
        key: one for key, one in READ[name].items() if "rope" not in key.replace("no_rope", "")
    }
    plain = {key: one for key, one in plain.items() if key != "partial_rotary_factor"}
    assert parse_config(plain | write_rope(config, family)) == config
