"""Which keys of config.json act on the forward pass, and which do not.

    read        a family's own keys and those that every family reads: checked where they are read
    harmless    token ids, training, generation, bookkeeping: silent, whatever their value
    acting      any other key whose name looks like a setting of the forward pass (`_ACTING`): refused
                by name unless its value says that the setting is off
    unknown     the rest: ignored, with a warning

Off is null, false, 0, "" or an empty list or object; for a factor null, false or 1; for some keys what
`_NEUTRAL` says.
"""

import re
from typing import Any

from converters.errors import CheckpointError
from converters.families import Family
from converters.hf_values import shown

# Keys that every family reads.
_READ = {
    "vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "architectures", "model_type", "num_key_value_heads", "head_dim", "rms_norm_eps",
    "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor",
    "attention_bias", "mlp_bias", "qkv_bias", "sliding_window", "use_sliding_window",
    "max_window_layers", "layer_types", "torch_dtype", "dtype", "max_position_embeddings",
    "original_max_position_embeddings", "hidden_act", "hidden_activation", "activation_function",
}  # fmt: skip
_HARMLESS = {
    # what transformers writes about itself and the file
    "_name_or_path", "_commit_hash", "_diffusers_version", "transformers_version", "auto_map",
    "tokenizer_class", "task_specific_params", "problem_type", "finetuning_task", "id2label",
    "label2id", "num_labels", "prefix", "return_dict", "torchscript", "use_bfloat16",
    "tf_legacy_loss", "output_attentions", "output_hidden_states", "output_router_logits",
    "chunk_size_feed_forward", "is_decoder", "_sliding_window_pattern",
    "ignore_keys_at_rope_validation", "transformers.js_config", "is_llama_config",
    "unsloth_fixed", "unsloth_version", "custom_generate", "base_model_tp_plan",
    # training
    "initializer_range", "initializer_factor", "init_std", "router_aux_loss_coef",
    "gradient_checkpointing", "activation_checkpointing", "pretraining_tp",
    # how it is computed, not what
    "use_cache", "cache_implementation", "attention_softmax_in_fp32", "attn_implementation",
    "scale_attention_softmax_in_fp32", "use_flash_attn", "use_flash_attention",
    # generation
    "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "do_sample", "num_beams", "num_beam_groups", "num_return_sequences", "max_length",
    "min_length", "max_new_tokens", "min_new_tokens", "max_time", "early_stopping",
    "length_penalty", "repetition_penalty", "diversity_penalty", "encoder_repetition_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
    "bad_words_ids", "force_words_ids", "suppress_tokens", "begin_suppress_tokens", "stop_strings",
    "output_scores", "output_logits", "return_dict_in_generate", "remove_invalid_values",
    "renormalize_logits", "sequence_bias", "guidance_scale", "penalty_alpha", "constraints",
    "forced_decoder_ids", "generation_config", "_from_model_config", "low_memory",
}  # fmt: skip
_HARMLESS_NAMES = re.compile(
    r"dropout|pdrop|drop_path|_token_ids?$|^_attn_impl|^_flash_attn|^use_fused_"
)
# Values at which a key that looks like an acting one is off, beside null.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_multiplier": (), "attention_scale": (), "attn_scale": (), "softmax_scale": (),
    "query_pre_attn_scalar": (), "rotary_dim": (),
    "scale_attn_weights": (True,), "is_causal": (True,), "causal": (True,),
    "use_causal_mask": (True,), "full_attn_mod": (1,), "mlp_type": ("default",),
    "norm_type": ("rms_norm", "rmsnorm", "RMSNorm"), "rope_type": ("default",),
    "position_embedding_type": ("rope", "rotary"), "position_embeddings": ("rope", "rotary"),
}  # fmt: skip
_OFF = (False, 0, 0.0, "", [], {})
_FACTOR = re.compile(
    r"multiplier|factor|scal(e|es|ing|ar)(_|$)|_ratio$|_pct$|_percentage$|_fraction$|^mup_"
)
_ACTING = re.compile(
    r"rope|rotary|alibi|position_embedding|scal(e|es|ing|ar)(_|$)|factor|multiplier|^mup_|bias"
    r"|norm|window|softcap|logit_cap|clip|quanti[sz]|expert|moe|router|sparse|layer_types"
    r"|(^|_)act(ivation)?(_|$)|attention|attn|residual|causal|_head_dim$|lora_rank|kv_shared"
    r"|mlp_type|^tie_|encoder|pruned_heads|(text|vision|audio)_config"
)
# A token id that no array index can be; -1 stands for none in old files.
_IDS = range(-1, 2**31)


def unknown_keys(data: dict[str, Any], family: Family, place: str) -> list[str]:
    """Keys that nothing here knows and that do not look like settings of the forward pass.

    Args:
      data: the whole of config.json.
      family: which it is of.
      place: what to call the file in a message.

    Raises:
      CheckpointError: a key acts on the forward pass in a way that the family does not honour, or a
        token id is none.
    """
    read = _READ | _own(family)
    unknown = []
    for key, value in data.items():
        if re.search("_token_ids?$", key):
            _check_ids(key, value, place)
        if key in read | _HARMLESS or _HARMLESS_NAMES.search(key):
            continue
        if not looks_acting(key):
            unknown.append(key)
        elif acts(key, value) and not _repeats(key, value, data, family):
            raise CheckpointError(
                f"{place}: {key}: {family.architecture} does not honour it; expected it off or left "
                f"out, found {shown(value)}"
            )
    return unknown


def _own(family: Family) -> set[str | None]:
    keys = {number.key for number in family.numbers.values()} | {family.activation_key}
    if family.unrotated:
        keys |= {"no_rope_layers", "no_rope_layer_interval"}
    if family.windows is not None:
        keys.add(family.windows.period_key)
    if family.local_rope is not None:
        keys.add(family.local_rope.key)
    return keys


def looks_acting(key: str) -> bool:
    """Whether a key's name is that of a setting of the forward pass."""
    return bool(_ACTING.search(key)) or key in _NEUTRAL


def acts(key: str, value: Any) -> bool:
    """Whether a key is a setting of the forward pass that is not off."""
    return looks_acting(key) and not _off(key, value)


def _off(key: str, value: Any) -> bool:
    neutral = _NEUTRAL.get(key)
    if neutral is None:
        neutral = (False, 1, 1.0) if _FACTOR.search(key) else _OFF
    return value is None or any(type(value) is type(one) and value == one for one in neutral)


def _repeats(key: str, value: Any, data: dict[str, Any], family: Family) -> bool:
    """Whether a key says once more what is read elsewhere."""
    if key == "sliding_window_size":
        return value == data.get("sliding_window") and not isinstance(value, bool)
    if key == "sliding_window_pattern":
        period = None if family.windows is None else family.windows.period
        return type(value) is int and value == period
    return False


def _check_ids(key: str, value: Any, place: str) -> None:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for each in ids:
        if type(each) is not int or each not in _IDS:
            raise CheckpointError(
                f"{place}: {key}: expected token ids below 2^31, or null, found {shown(each)}"
            )
