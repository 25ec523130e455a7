"""config.json of a Hugging Face checkpoint <-> ModelConfig.

Reads the spellings of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and 5
(`rope_parameters`, `dtype`, `layer_types`). The file is read as it is: transformers' config objects
rename and fill in keys, so that a forgotten key would pass unnoticed. Every key is either honoured,
known not to change the model's output, or refused by name.
"""

import json
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError
from converters.families import FAMILIES, Family
from converters.gguf_config import config_of
from converters.gguf_file import is_gguf, read_header
from converters.hf_fields import SIZES, read_fields, write_fields
from converters.hf_rope import read_rope, write_rope
from eap_jax.config import ModelConfig

ARCHITECTURES = tuple(FAMILIES)
DTYPES = ("float32", "float16", "bfloat16")

# Keys that every family reads.
_HONOURED = {
    *SIZES, "architectures", "num_key_value_heads", "head_dim", "rms_norm_eps",
    "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters",
    "partial_rotary_factor", "attention_bias", "mlp_bias", "qkv_bias", "sliding_window",
    "use_sliding_window", "max_window_layers", "layer_types", "torch_dtype", "dtype", "model_type",
}  # fmt: skip
# Token ids, training and bookkeeping: they do not change the output of a forward pass.
_HARMLESS = {
    "_name_or_path", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id",
    "unk_token_id", "decoder_start_token_id", "chunk_size_feed_forward", "id2label", "label2id",
    "initializer_range", "is_encoder_decoder", "max_position_embeddings",
    "output_attentions", "output_hidden_states", "return_dict", "transformers_version",
    "use_cache", "problem_type", "use_mrope", "_attn_implementation",
    "_attn_implementation_autoset", "tokenizer_class", "cache_implementation", "embd_pdrop",
    "resid_pdrop", "_sliding_window_pattern",
}  # fmt: skip
# Keys that are harmless at one value only.
_NEUTRAL = {
    "pretraining_tp": (1,),
    "rope_interleaved": (False,),
    "is_decoder": (False, True),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "quantization_config": (None,),
    "pruned_heads": ({}, None),
    "auto_map": (None,),
    "lm_head_bias": (False,),
    "attn_logit_softcapping": (None,),
    "use_bidirectional_attention": (False, None),
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      CheckpointError: no such file, not JSON, or not an object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except ValueError as error:  # not JSON, not UTF-8, or NaN
        raise CheckpointError(f"{path}: expected JSON, found {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def read_config(directory: str | Path) -> ModelConfig:
    """The model of a checkpoint's directory or GGUF file.

    Raises:
      CheckpointError: config.json is missing or broken, or holds a key or a value that the model
        cannot honour; the message names it.
    """
    if is_gguf(directory):
        return parse_config(config_of(read_header(directory)), str(directory))
    path = Path(directory) / "config.json"
    return parse_config(read_json(path), str(path))


def read_family(directory: str | Path) -> Family:
    """The family of a checkpoint's directory or GGUF file.

    Raises:
      CheckpointError: config.json is missing or broken, or names none of `ARCHITECTURES`.
    """
    if is_gguf(directory):
        return _family(config_of(read_header(directory)), str(directory))
    path = Path(directory) / "config.json"
    return _family(read_json(path), str(path))


def parse_config(data: dict[str, Any], place: str = "config.json") -> ModelConfig:
    """ModelConfig of a decoded config.json; `place` names it in errors."""
    family = _family(data, place)
    _check_keys(data, family, place)
    fields = read_fields(data, family, place)
    fields |= read_rope(
        data,
        family,
        head_dim=fields["head_dim"],
        windowed=fields["layer_windows"] is not None,
        place=place,
    )
    try:
        return ModelConfig(**fields)
    except ValueError as error:
        raise CheckpointError(f"{place}: {error}") from None


def _family(data: dict[str, Any], place: str) -> Family:
    architectures = data.get("architectures")
    one = isinstance(architectures, list) and len(architectures) == 1
    found = architectures[0] if one else architectures
    if not one or found not in FAMILIES:
        raise CheckpointError(
            f"{place}: architectures: expected one of {', '.join(ARCHITECTURES)}, found {found!r}"
        )
    return FAMILIES[found]


def to_hf_config(
    config: ModelConfig,
    *,
    architecture: str = "LlamaForCausalLM",
    dtype: str = "float32",
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """config.json of a model, in the spelling that transformers 4 and 5 both read.

    Args:
      config: the model.
      architecture: one of `ARCHITECTURES`.
      dtype: of the weights, one of `DTYPES`.
      extra: further keys, such as token ids.

    Raises:
      CheckpointError: the architecture cannot express the model.
    """
    family = FAMILIES[architecture]
    data: dict[str, Any] = {"architectures": [architecture], "model_type": family.model_type}
    data |= write_fields(config, family) | write_rope(config, family) | {"torch_dtype": dtype}
    data |= extra or {}
    if parse_config(data, "config.json") != config:
        raise CheckpointError(f"{architecture} cannot express the model {config}")
    return data


def _check_keys(data: dict[str, Any], family: Family, place: str) -> None:
    own = {number.key for number in family.numbers.values()} | {family.activation_key}
    if family.unrotated:
        own |= {"no_rope_layers", "no_rope_layer_interval"}
    if family.windows is not None:
        own.add(family.windows.period_key)
    if family.local_rope is not None:
        own.add(family.local_rope.key)
    if family.original_context is not None:
        own.add("original_max_position_embeddings")
    if family.activation_key != "hidden_act":
        own.add("hidden_act")  # not read where the other key is
    for key, value in data.items():
        if key in own:
            continue
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                raise CheckpointError(
                    f"{place}: {key}: expected {_NEUTRAL[key][0]!r}, the only value that this "
                    f"model honours, found {value!r}"
                )
        elif key not in _HONOURED | _HARMLESS:
            raise CheckpointError(f"{place}: unknown key {key!r} with value {value!r}")
    if data.get("model_type", family.model_type) != family.model_type:
        raise CheckpointError(
            f"{place}: model_type: expected {family.model_type} as in architectures, "
            f"found {data['model_type']!r}"
        )
    for key in ("torch_dtype", "dtype"):
        if data.get(key) not in (None, *DTYPES):
            raise CheckpointError(
                f"{place}: {key}: expected one of {', '.join(DTYPES)}, found {data[key]!r}"
            )


def _refuse_constant(text: str):
    raise ValueError(text)
