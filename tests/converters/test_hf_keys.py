"""Keys of config.json: what acts is honoured or refused, what is unknown warns, the rest is silent."""

import json

import pytest
import transformers
from real_configs import READ

from converters.errors import CheckpointError, CheckpointWarning
from converters.families import FAMILIES
from converters.hf_config import parse_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 61,
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_fancy", 3), ("rope_ratio", 2.0), ("use_mrope", True), ("rope_interleaved", True),
        ("rotary_pct", 0.5), ("rotary_dim", 4), ("alibi", True), ("logits_scaling", 8.0),
        ("rope_scaling_factor", 4.0), ("query_scale", 0.5), ("scale_emb", 12), ("logit_scale", 2),
        ("embedding_multiplier", 12.0), ("residual_multiplier", 0.22), ("mup_base", 256),
        ("attention_multiplier", 1.0), ("query_pre_attn_scalar", 256), ("o_proj_bias", True),
        ("lm_head_bias", True), ("use_qk_norm", True), ("layer_norm_eps", 1e-5),
        ("norm_type", "layer_norm"), ("sliding_window_pattern", 6), ("sliding_window_size", 9),
        ("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0), ("clip_qkv", 8.0),
        ("quantization_config", {"bits": 4}), ("quantization", "awq"), ("num_experts", 8),
        ("num_local_experts", 1), ("moe_layers", [1]), ("decoder_sparse_step", 1),
        ("attention_type", "local"), ("attention_chunk_size", 128), ("attn_output_gate", True),
        ("use_bidirectional_attention", True), ("is_causal", False), ("residual_in_fp64", True),
        ("mlp_activation", "relu"), ("projector_hidden_act", "gelu"), ("v_head_dim", 64),
        ("kv_lora_rank", 512), ("num_kv_shared_layers", 2), ("interpolate_factor", 2),
        ("full_attn_mod", 2), ("position_embedding_type", "absolute"), ("is_encoder_decoder", True),
        ("text_config", {"hidden_size": 3}), ("pruned_heads", {"0": [1]}),
    ],
)  # fmt: skip
def test_an_unknown_key_that_looks_like_a_setting_of_the_forward_pass_is_refused(key, value):
    with pytest.raises(CheckpointError) as error:
        parse_config(LLAMA | {key: value}, "here/config.json")
    message = str(error.value)
    assert message.startswith(f"here/config.json: {key}: LlamaForCausalLM")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_fancy", None), ("rope_fancy", False), ("use_mrope", False), ("rotary_pct", 1.0),
        ("alibi", False), ("logits_scaling", 1), ("rope_scaling_factor", 1.0),
        ("embedding_multiplier", 1.0), ("attention_multiplier", None), ("o_proj_bias", False),
        ("use_qk_norm", False), ("norm_type", "rms_norm"), ("attn_logit_softcapping", None),
        ("attn_logit_softcapping", 0.0), ("clip_qkv", None), ("quantization_config", None),
        ("num_experts", 0), ("num_experts", None), ("moe_layers", []), ("pruned_heads", {}),
        ("is_causal", True), ("use_bidirectional_attention", None), ("interpolate_factor", 1),
        ("full_attn_mod", 1), ("is_encoder_decoder", False), ("text_config", None),
        ("sliding_window_pattern", 0), ("scale_attn_weights", True), ("kv_lora_rank", None),
        ("position_embedding_type", "rope"), ("cross_attention_hidden_size", None),
    ],
)  # fmt: skip
def test_such_a_key_at_the_value_that_means_off_is_silent(key, value):
    assert parse_config(LLAMA | {key: value}) == parse_config(LLAMA)


@pytest.mark.parametrize(
    ("key", "value"),
    [("logits_scaling", False), ("num_experts", True), ("clip_qkv", 1), ("rotary_pct", True)],
)
def test_off_is_of_its_own_kind(key, value):
    off = {"logits_scaling"}  # false is off for every key
    if key in off:
        assert parse_config(LLAMA | {key: value}) == parse_config(LLAMA)
        return
    with pytest.raises(CheckpointError, match=key):
        parse_config(LLAMA | {key: value})


def test_unknown_keys_warn_once_with_all_names_and_are_ignored():
    strange = {"internal_version": "7b", "colour": {"a": [1]}, "n\nm": 1}
    with pytest.warns(CheckpointWarning) as caught:
        found = parse_config(LLAMA | strange, "here/config.json")
    assert found == parse_config(LLAMA)
    (message,) = [str(one.message) for one in caught]
    assert message == (
        "here/config.json: ignored keys that are not known: 'internal_version', 'colour', 'n\\nm'"
    )


@pytest.mark.parametrize("tp", [1, 2, 8, None])
def test_the_tensor_parallelism_of_training_changes_nothing(tp):
    assert parse_config(LLAMA | {"pretraining_tp": tp}) == parse_config(LLAMA)


def test_every_generation_default_of_transformers_is_silent():
    defaults = transformers.GenerationConfig(temperature=0.6, top_k=5, do_sample=True).to_dict()
    named = {key: defaults[key] for key in defaults if key not in ("eos_token_id", "bos_token_id")}
    old = {"diversity_penalty", "top_h", "num_beams", "temperature", "length_penalty"}
    assert old <= set(named)
    known = json.loads(json.dumps(named))
    # What steers speculation and caches has never been written into a config.json.
    rare = ("assistant", "lookup", "lookbehind", "cache_", "compile", "continuous", "ngram", "dola",
            "watermark", "healing", "prefill", "mtp", "max_cache", "speculation")  # fmt: skip
    known = {key: value for key, value in known.items() if not any(one in key for one in rare)}
    assert parse_config(LLAMA | known) == parse_config(LLAMA)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eos_token_id", 2**63), ("eos_token_id", 10**30), ("bos_token_id", "<s>"),
        ("pad_token_id", -2), ("eos_token_id", [2, 2.5]), ("eos_token_id", True),
        ("eos_token_id", [[2]]), ("bos_token_id", 1.0),
    ],
)  # fmt: skip
def test_a_token_id_that_is_none_is_refused(key, value):
    with pytest.raises(CheckpointError, match=f"{key}: expected token ids"):
        parse_config(LLAMA | {key: value})


@pytest.mark.parametrize("value", [None, 0, -1, 128009, [2, 3], []])
def test_token_ids_are_known_in_every_form(value):
    assert parse_config(LLAMA | {"pad_token_id": value}) == parse_config(LLAMA)


def test_a_second_name_of_the_windows_size_must_repeat_it():
    gemma = READ["gemma-2-27b"]
    assert parse_config(gemma | {"sliding_window_pattern": 2}) == parse_config(gemma)
    for changes in ({"sliding_window_size": 512}, {"sliding_window_pattern": 3}):
        with pytest.raises(CheckpointError, match=next(iter(changes))):
            parse_config(gemma | changes)


def test_a_second_name_of_the_activation_must_say_the_same():
    assert parse_config(LLAMA | {"hidden_activation": "swish"}) == parse_config(LLAMA)
    with pytest.raises(CheckpointError, match="hidden_act 'silu' and hidden_activation 'gelu'"):
        parse_config(LLAMA | {"hidden_activation": "gelu"})


def test_windows_switched_off_where_the_family_has_none_or_ignores_the_switch():
    assert parse_config(LLAMA | {"sliding_window": 9, "use_sliding_window": False}) == parse_config(
        LLAMA
    )
    mistral = READ["Mistral-7B-v0.1, architectures null"]
    for changes in ({"use_sliding_window": False}, {"max_window_layers": 28}):
        with pytest.raises(CheckpointError, match=f"{next(iter(changes))}: MistralForCausalLM"):
            parse_config(mistral | changes)


def test_every_family_is_silent_about_its_own_keys():
    assert {one["model_type"] for one in READ.values()} == {
        family.model_type for family in FAMILIES.values()
    }
    for data in READ.values():
        parse_config(data)  # a warning is an error
