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
from converters.gguf_config import config_of
from converters.gguf_file import is_gguf, read_header
from converters.hf_rope import parse_rope
from eap_jax.config import ModelConfig

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
DTYPES = ("float32", "float16", "bfloat16")

_SIZES = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "num_attention_heads": "num_heads",
}
_HONOURED = {
    *_SIZES, "architectures", "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps",
    "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "attention_bias",
    "mlp_bias", "qkv_bias", "sliding_window", "use_sliding_window", "max_window_layers",
    "layer_types", "torch_dtype", "dtype", "model_type",
}  # fmt: skip
# Token ids, training and bookkeeping: they do not change the output of a forward pass.
_HARMLESS = {
    "_name_or_path", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id",
    "unk_token_id", "decoder_start_token_id", "chunk_size_feed_forward", "id2label", "label2id",
    "initializer_range", "is_encoder_decoder", "max_position_embeddings",
    "output_attentions", "output_hidden_states", "return_dict", "transformers_version",
    "use_cache", "problem_type", "use_mrope", "_attn_implementation",
    "_attn_implementation_autoset", "tokenizer_class",
}  # fmt: skip
# Keys that are harmless at one value only.
_NEUTRAL = {
    "pretraining_tp": (1,),
    "partial_rotary_factor": (1, 1.0),
    "rope_interleaved": (False,),
    "is_decoder": (False, True),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "quantization_config": (None,),
    "pruned_heads": ({}, None),
    "auto_map": (None,),
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


def parse_config(data: dict[str, Any], place: str = "config.json") -> ModelConfig:
    """ModelConfig of a decoded config.json; `place` names it in errors."""
    architectures = data.get("architectures")
    if not isinstance(architectures, list) or len(architectures) != 1:
        raise CheckpointError(
            f"{place}: architectures: expected one of {', '.join(ARCHITECTURES)}, "
            f"found {architectures!r}"
        )
    architecture = architectures[0]
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{place}: architectures: expected one of {', '.join(ARCHITECTURES)}, "
            f"found {architecture!r}"
        )
    _check_keys(data, place)
    sizes = {}
    for key, name in _SIZES.items():
        if key not in data:
            raise CheckpointError(f"{place}: expected the key {key}, found none")
        sizes[name] = _whole(data, key, place, least=1)
    num_heads, d_model = sizes["num_heads"], sizes["d_model"]
    head_dim = data.get("head_dim")
    if head_dim is None:
        if d_model % num_heads:
            raise CheckpointError(
                f"{place}: hidden_size {d_model} is no multiple of num_attention_heads {num_heads} "
                "and head_dim is not given"
            )
        head_dim = d_model // num_heads
    attention_bias = _bias(data, "attention_bias", architecture, place)
    if architecture == "Qwen2ForCausalLM":
        qkv_bias = _flag(data, "qkv_bias", True, place)
    else:
        qkv_bias = attention_bias
        if _flag(data, "qkv_bias", attention_bias, place) != attention_bias:
            raise CheckpointError(f"{place}: qkv_bias: {architecture} does not honour it")
    rope_theta, rope_scaling = parse_rope(data, place)
    default_kv_heads = {"MistralForCausalLM": 8, "Qwen2ForCausalLM": 32}.get(architecture)
    kv_heads = data.get("num_key_value_heads", default_kv_heads)
    try:
        return ModelConfig(
            **sizes,
            num_kv_heads=num_heads if kv_heads is None else kv_heads,
            head_dim=head_dim,
            norm_eps=data.get("rms_norm_eps", 1e-6),
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            qkv_bias=qkv_bias,
            output_bias=attention_bias,
            mlp_bias=_bias(data, "mlp_bias", architecture, place),
            tied_embeddings=_flag(data, "tie_word_embeddings", False, place),
            layer_windows=_windows(data, architecture, sizes["num_layers"], place),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{place}: {error}") from None


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
    data: dict[str, Any] = {key: getattr(config, name) for key, name in _SIZES.items()}
    data |= {
        "architectures": [architecture],
        "model_type": architecture.removesuffix("ForCausalLM").lower(),
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": config.tied_embeddings,
        "max_position_embeddings": 4096,
        "torch_dtype": dtype,
    }
    scaling = config.rope_scaling
    if scaling is not None:
        data["rope_scaling"] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            data["rope_scaling"] |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_context,
            }
    if architecture == "LlamaForCausalLM":
        data |= {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
    else:
        windows = set(config.layer_windows or ()) - {None}
        data["sliding_window"] = max(windows) if windows else None
        if architecture == "Qwen2ForCausalLM":
            full = sum(w is None for w in config.layer_windows or ())
            data |= {"use_sliding_window": bool(windows), "max_window_layers": full}
    data |= extra or {}
    if parse_config(data, "config.json") != config:
        raise CheckpointError(f"{architecture} cannot express the model {config}")
    return data


def _check_keys(data: dict[str, Any], place: str) -> None:
    for key, value in data.items():
        if key in _NEUTRAL:
            if value not in _NEUTRAL[key]:
                raise CheckpointError(
                    f"{place}: {key}: expected {_NEUTRAL[key][0]!r}, the only value that this "
                    f"model honours, found {value!r}"
                )
        elif key not in _HONOURED | _HARMLESS:
            raise CheckpointError(f"{place}: unknown key {key!r} with value {value!r}")
    model_type = data["architectures"][0].removesuffix("ForCausalLM").lower()
    if data.get("model_type", model_type) != model_type:
        raise CheckpointError(
            f"{place}: model_type: expected {model_type} as in architectures, "
            f"found {data['model_type']!r}"
        )
    activation = data.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise CheckpointError(f"{place}: hidden_act: expected silu, found {activation!r}")
    for key in ("torch_dtype", "dtype"):
        if data.get(key) not in (None, *DTYPES):
            raise CheckpointError(
                f"{place}: {key}: expected one of {', '.join(DTYPES)}, found {data[key]!r}"
            )


def _flag(data: dict[str, Any], key: str, default: bool, place: str) -> bool:
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointError(f"{place}: {key}: expected true or false, found {value!r}")
    return value


def _whole(data: dict[str, Any], key: str, place: str, *, least: int) -> int:
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = "a positive whole number" if least else "a whole number, 0 or more"
        raise CheckpointError(f"{place}: {key}: expected {kind}, found {value!r}")
    return value


def _refuse_constant(text: str):
    raise ValueError(text)


def _bias(data: dict[str, Any], key: str, architecture: str, place: str) -> bool:
    """`attention_bias` (q, k, v and o) and `mlp_bias` are Llama's; the others lack the keys."""
    value = _flag(data, key, False, place)
    if value and architecture != "LlamaForCausalLM":
        raise CheckpointError(f"{place}: {key}: only LlamaForCausalLM honours it")
    return value


def _windows(data: dict[str, Any], architecture: str, num_layers: int, place: str):
    """Each layer's window as transformers decides it, or None if no layer has one."""
    if architecture == "LlamaForCausalLM":
        for key in ("sliding_window", "use_sliding_window"):
            if data.get(key):
                raise CheckpointError(f"{place}: {key}: LlamaForCausalLM does not honour it")
        windowed = [False] * num_layers
        size = None
    elif architecture == "MistralForCausalLM":
        size = _window_size(data, place)
        windowed = [size is not None] * num_layers
    else:
        used = _flag(data, "use_sliding_window", False, place)
        size = _window_size(data, place) if used else None
        full = _whole({"max_window_layers": 28} | data, "max_window_layers", place, least=0)
        windowed = [size is not None and layer >= full for layer in range(num_layers)]
    kinds = data.get("layer_types")
    if kinds is not None:
        known = ("full_attention", "sliding_attention")
        counted = isinstance(kinds, list) and len(kinds) == num_layers
        if not counted or any(kind not in known for kind in kinds):
            raise CheckpointError(
                f"{place}: layer_types: expected {num_layers} entries of {known}, found {kinds!r}"
            )
        asked = [kind == "sliding_attention" for kind in kinds]
        if any(asked) and size is None:
            raise CheckpointError(
                f"{place}: layer_types asks for a window, but none is set or in use"
            )
        if asked != windowed and architecture != "Qwen2ForCausalLM":
            raise CheckpointError(f"{place}: layer_types: {architecture} does not honour it")
        windowed = asked
    return tuple(size if w else None for w in windowed) if any(windowed) else None


def _window_size(data: dict[str, Any], place: str) -> int | None:
    if data.get("sliding_window", 4096) is None:
        return None
    return _whole({"sliding_window": 4096} | data, "sliding_window", place, least=1)
