"""Public models' config.json: read field by field as transformers reads them, and written back."""

import json

import numpy as np
import pytest
from real_configs import READ
from transformers_settings import fields_of, rotary, theirs_of

from converters.families import FAMILIES
from converters.hf_config import parse_config, to_hf_config
from eap_jax.rope import frequencies

LENGTHS = (64, 4100)


def read(name):
    return parse_config(READ[name])


def assert_same_model(config, theirs):
    found = fields_of(theirs)
    assert {field: getattr(config, field) for field in found} == found
    for layer_type in ("full_attention", "sliding_attention"):
        local = layer_type == "sliding_attention" and config.local_rope_theta is not None
        if layer_type == "sliding_attention" and config.layer_windows is None:
            continue
        for length in LENGTHS:
            own = config.for_length(length)
            theta = own.local_rope_theta if local else own.rope_theta
            scaling = own.local_rope_scaling if local else own.rope_scaling
            expected, factor = rotary(theirs, layer_type, length)
            ours = frequencies(theta, own.rotary_dim or own.head_dim, scaling)
            np.testing.assert_allclose(ours, expected.numpy(), rtol=2e-6)
            given = None if scaling is None else scaling.attention_factor
            assert (1.0 if given is None else given) == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("name", READ)
def test_a_public_models_settings_are_those_of_transformers(name, tmp_path):
    assert_same_model(read(name), theirs_of(READ[name], tmp_path))


@pytest.mark.parametrize("name", READ)
def test_what_transformers_makes_of_a_public_config_gives_the_same_model(name, tmp_path):
    dump = theirs_of(READ[name], tmp_path).to_dict()
    assert parse_config(json.loads(json.dumps(dump))) == read(name)  # and without a warning


@pytest.mark.parametrize("name", READ)
def test_a_public_model_is_written_so_that_both_read_it(name, tmp_path):
    config = read(name)
    model_type = READ[name]["model_type"]
    (architecture,) = (key for key, one in FAMILIES.items() if one.model_type == model_type)
    data = json.loads(json.dumps(to_hf_config(config, architecture=architecture)))
    assert parse_config(data) == config
    assert_same_model(config, theirs_of(data, tmp_path))


def test_every_family_has_a_public_model_here():
    assert {one["model_type"] for one in READ.values()} == {
        family.model_type for family in FAMILIES.values()
    }


# Classes of transformers 5 that refuse null there; Mistral's says all the same what it means.
_REFUSE_NULL = ("mistral", "gemma2", "gemma3_text")


@pytest.mark.parametrize("name", READ)
def test_key_and_value_heads_that_are_null_are_as_many_as_query_heads(name, tmp_path):
    """Null is not the same as left out, which gives the family's default."""
    data = READ[name] | {"num_key_value_heads": None}
    if data["model_type"] not in _REFUSE_NULL:
        theirs = theirs_of(data, tmp_path)
        assert theirs.num_key_value_heads == theirs.num_attention_heads
    assert parse_config(data).num_kv_heads == data["num_attention_heads"]
