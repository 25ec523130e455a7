"""Values of config.json: no number beyond float32, no message longer than a line."""

import math

import numpy as np
import pytest
from real_configs import READ

from converters.errors import CheckpointError
from converters.hf_config import parse_config
from converters.hf_values import LARGEST_NUMBER, SMALLEST_NUMBER, number, shown

_BAD = (math.inf, -math.inf, math.nan, 10**400, 1e300, 1e-300, 0, -1.0, True, "1e4", [1.0], {})


def test_the_limits_are_those_of_float32():
    limits = np.finfo(np.float32)
    assert 0.99 * limits.max < LARGEST_NUMBER < limits.max
    assert limits.tiny < SMALLEST_NUMBER < 1.1 * limits.tiny


@pytest.mark.parametrize("value", _BAD, ids=str)
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Llama-3.3-70B", "rope_theta"),
        ("Llama-3.3-70B", "rms_norm_eps"),
        ("granite-3.1-8b", "logits_scaling"),
        ("granite-3.1-8b", "attention_multiplier"),
        ("gemma-2-27b", "attn_logit_softcapping"),
        ("gemma-2-27b", "query_pre_attn_scalar"),
        ("gemma-3-4b, its text part", "rope_local_base_freq"),
        ("phi-4-mini", "partial_rotary_factor"),
    ],
)
def test_a_number_that_is_none_is_refused_in_one_short_line(name, key, value):
    with pytest.raises(CheckpointError) as error:
        parse_config(READ[name] | {key: value}, "here")
    message = str(error.value)
    assert message.startswith(f"here: {key}: ")
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize("value", [*_BAD, None], ids=str)
@pytest.mark.parametrize("key", ["factor", "low_freq_factor", "original_max_position_embeddings"])
def test_a_number_of_the_scaling_is_checked_like_the_others(key, value):
    data = READ["Llama-3.3-70B"]
    if key.startswith("original") and value is None:
        return  # max_position_embeddings stands in
    with pytest.raises(CheckpointError, match=key):
        parse_config(data | {"rope_scaling": data["rope_scaling"] | {key: value}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("head_dim", 2**20), ("head_dim", 10**30), ("num_key_value_heads", "8"),
        ("num_key_value_heads", 8.0), ("num_attention_heads", 0), ("sliding_window", 10**30),
        ("intermediate_size", -5), ("no_rope_layers", [[1]]), ("no_rope_layers", [2] * 12),
        ("no_rope_layers", "1" * 12), ("no_rope_layer_interval", 0), ("layer_types", [[]] * 12),
        ("layer_types", {"a": 1}), ("hidden_act", ["silu"]), ("rope_scaling", [1]),
        ("use_sliding_window", 1), ("rms_norm_eps", 2),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_named(key, value):
    data = READ["SmolLM3, windows"] | {"use_sliding_window": True, "no_rope_layers": None}
    parse_config(data)
    with pytest.raises(CheckpointError, match=f"^here: {key}: "):
        parse_config(data | {key: value}, "here")


def test_a_value_is_shown_in_one_short_line():
    deep = []
    for _ in range(900):
        deep = [deep]
    for value in (
        list(range(10**5)),
        {str(i): i for i in range(999)},
        "x\n" * 9999,
        10**9999,
        deep,
    ):
        assert len(shown(value)) < 200
        assert "\n" not in shown(value)
    assert (shown(3), shown("gelu"), shown(None), shown({"bits": 4})) == (
        "3", "'gelu'", "None", "{'bits': 4}",
    )  # fmt: skip


def test_a_number_is_refused_by_the_range_that_it_should_be_in():
    for least, said in ((0, "a number, 0 or more,"), (SMALLEST_NUMBER, "a positive number")):
        assert number(least, "here", least=least) == least
        for value in (-1.0, False):
            with pytest.raises(CheckpointError, match=f"^here: expected {said} that float32 holds"):
                number(value, "here", least=least)
