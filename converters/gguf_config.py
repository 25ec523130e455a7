"""The metadata of a GGUF file of the Llama family -> what config.json says of the same model.

llama.cpp calls Llama, Mistral, SmolLM and their kin `llama`; every other architecture is refused by
name. A key under `llama.` is honoured, or refused by name where it looks like a setting of the forward
pass that is not off (as `hf_keys` has it), or ignored with a warning.
"""

import math
import warnings
from typing import Any

import numpy as np

from converters.errors import CheckpointError, CheckpointWarning
from converters.gguf_file import GGUFFile, supported
from converters.hf_keys import acts, looks_acting

_SIZES = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
}
_HONOURED = {
    *_SIZES.values(), "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "context_length", "rope.dimension_count", "rope.freq_base",
    "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "vocab_size",
}  # fmt: skip
# Keys that are harmless at these values only.
_NEUTRAL = {
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scaling.finetuned": (False, True),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0, -1.0),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "tensor_data_layout": ("", "reference"),
    "use_parallel_residual": (False,),
}
# Metadata that holds tokens which end an answer.
_STOPS = ("eos_token_id", "eot_token_id", "eom_token_id")
# The two numbers of llama3 scaling that every known model shares; a file holds their effect only.
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192
ROPE_FACTORS = "rope_freqs.weight"


def config_of(file: GGUFFile) -> dict[str, Any]:
    """config.json of a file's model, token ids included.

    Raises:
      CheckpointError: another architecture, or a key is missing, broken or not honoured.
    """
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise _error(file, "general.architecture", "llama", repr(architecture))
    _check_keys(file)
    data: dict[str, Any] = {key: _whole(file, f"llama.{own}") for key, own in _SIZES.items()}
    heads, kv_heads = heads_of(file)
    head_dim = _head_dim(file, data["hidden_size"], heads)
    layers = {name.split(".")[1] for name in file.tensors if name.startswith("blk.")}
    if len(layers) != data["num_hidden_layers"]:
        found = f"tensors of {len(layers)} layers"
        raise _error(file, "llama.block_count", f"{data['num_hidden_layers']} layers", found)
    biases = {
        key: any(f".{part}" in name and name.endswith(".bias") for name in file.tensors)
        for key, part in (("attention_bias", "attn_"), ("mlp_bias", "ffn_"))
    }
    theta = _number(file, "llama.rope.freq_base", 10000.0)
    return data | biases | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": _vocabulary(file),
        "hidden_act": "silu",
        "rms_norm_eps": _number(file, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "rope_scaling": _scaling(file, theta, head_dim),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "max_position_embeddings": _whole(file, "llama.context_length", 4096),
    } | token_ids(file)  # fmt: skip


def heads_of(file: GGUFFile) -> tuple[int, int]:
    """Numbers of query heads and of key and value heads.

    Raises:
      CheckpointError: they are missing, or differ from layer to layer.
    """
    heads = _whole(file, "llama.attention.head_count")
    return heads, _whole(file, "llama.attention.head_count_kv", heads)


def token_ids(file: GGUFFile) -> dict[str, Any]:
    """`bos_token_id` and `eos_token_id`, the latter a list where several tokens end an answer.

    Raises:
      CheckpointError: an id is no number or beyond the vocabulary.
    """
    vocabulary = _vocabulary(file)
    found = {}
    for key in ("bos_token_id", *_STOPS):
        value = file.metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            continue
        if type(value) is not int or not 0 <= value < vocabulary:
            raise _error(
                file, f"tokenizer.ggml.{key}", f"a token id below {vocabulary}", repr(value)
            )
        found[key] = value
    stops = list(dict.fromkeys(found[key] for key in _STOPS if key in found))
    ids = {"bos_token_id": found["bos_token_id"]} if "bos_token_id" in found else {}
    return ids | ({"eos_token_id": stops if len(stops) > 1 else stops[0]} if stops else {})


def _error(file: GGUFFile, place: str, expected: str, found: str) -> CheckpointError:
    return CheckpointError(f"{file.path}: {place}: expected {expected}, found {found:.80}")


def _check_keys(file: GGUFFile) -> None:
    unknown = []
    for key, value in file.metadata.items():
        own = key.removeprefix("llama.")
        if own == key or own in _HONOURED:
            continue
        if own in _NEUTRAL:
            if value not in _NEUTRAL[own]:
                raise _error(
                    file, key, f"{_NEUTRAL[own][0]!r}, the only value that it honours", repr(value)
                )
        elif acts(own.replace(".", "_"), value):
            raise _error(file, key, "a key that this model honours, or its value off", repr(value))
        elif not looks_acting(own.replace(".", "_")):
            unknown.append(key)
    if unknown:
        warnings.warn(
            f"{file.path}: ignored keys that are not known: {', '.join(unknown)}",
            CheckpointWarning,
            stacklevel=2,
        )


def _whole(file: GGUFFile, key: str, default: int | None = None) -> int:
    value = file.metadata.get(key, default)
    # Some writers repeat one number for every layer.
    if isinstance(value, list) and value and value.count(value[0]) == len(value):
        value = value[0]
    if type(value) is not int or not 0 < value < 2**31:
        raise _error(file, key, "a positive whole number", "none" if value is None else repr(value))
    return value


def _number(file: GGUFFile, key: str, default: float | None = None) -> float:
    """A float; the file has 32 bits of it, whose shortest decimal is what the writer meant."""
    value = file.metadata.get(key, default)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise _error(file, key, "a positive number", "none" if value is None else repr(value))
    return float(str(np.float32(value)))


def _vocabulary(file: GGUFFile) -> int:
    if "llama.vocab_size" in file.metadata:
        return _whole(file, "llama.vocab_size")
    if "token_embd.weight" not in file.tensors:
        raise CheckpointError(f"{file.path}: 1 missing tensor: token_embd.weight")
    return file.tensors["token_embd.weight"].shape[0]


def _head_dim(file: GGUFFile, d_model: int, heads: int) -> int:
    rotated = file.metadata.get("llama.rope.dimension_count")
    key = "llama.attention.key_length"
    if key in file.metadata:
        size = _whole(file, key)
    elif rotated is not None:
        size = _whole(file, "llama.rope.dimension_count")
    elif d_model % heads:
        raise _error(file, key, "the size of a head", "none")
    else:
        size = d_model // heads
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if file.metadata.get(key, size) != size:
            found = repr(file.metadata[key])
            raise _error(file, key, f"{size}, the size of a head, all of it rotated", found)
    return size


def _scaling(file: GGUFFile, theta: float, head_dim: int) -> dict[str, Any] | None:
    """Linear scaling and YaRN are keys, and llama3's a tensor of what each angle is divided by."""
    name = "llama.rope.scaling"
    kind = file.metadata.get(f"{name}.type", "linear")
    factor = _number(file, f"{name}.factor", 1.0)
    factor *= _number(file, "llama.rope.scale_linear", 1.0)
    if kind not in ("none", "linear", "yarn"):
        raise _error(file, f"{name}.type", "none, linear or yarn", repr(kind))
    attention = _number(file, f"{name}.attn_factor", 1.0)
    if kind != "yarn" and attention != 1:
        raise _error(file, f"{name}.attn_factor", f"1 without yarn ({kind})", repr(attention))
    scaled = kind != "none" and factor != 1
    if ROPE_FACTORS in file.tensors:
        if scaled:
            found = f"factors beside {kind} {factor:g}"
            raise _error(file, ROPE_FACTORS, "one kind of scaling", found)
        return _llama3(file, theta, head_dim)
    if kind != "yarn":
        return {"rope_type": "linear", "factor": factor} if scaled else None
    context = _whole(file, "llama.context_length", 4096)
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": _whole(
            file, f"{name}.original_context_length", context
        ),
        "beta_fast": _number(file, f"{name}.yarn_beta_fast", 32.0),
        "beta_slow": _number(file, f"{name}.yarn_beta_slow", 1.0),
        # llama.cpp multiplies YaRN's own multiplier by the key.
        "attention_factor": attention * (1 + 0.1 * math.log(max(factor, 1.0))),
    }


def _llama3(file: GGUFFile, theta: float, head_dim: int) -> dict[str, Any]:
    tensor = file.tensors[ROPE_FACTORS]
    if tensor.shape != (head_dim // 2,) or not supported(tensor.kind):
        found = f"{tensor.kind} {tensor.shape}"
        raise _error(file, ROPE_FACTORS, f"{head_dim // 2} numbers", found)
    with file.open(ROPE_FACTORS) as handle:
        factors = file.rows(handle, ROPE_FACTORS, 0, 1)[0].astype(np.float64)
    original = _whole(file, "llama.rope.scaling.original_context_length", _ORIGINAL)
    # The largest is the factor itself, met at the long waves.
    factor = float(str(np.float32(factors.max())))
    turns = original * theta ** -(2 * np.arange(head_dim // 2) / head_dim) / (2 * math.pi)
    smooth = np.clip((turns - _LOW) / (_HIGH - _LOW), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if not np.allclose(factors, expected, rtol=1e-4):
        raise CheckpointError(
            f"{file.path}: {ROPE_FACTORS}: expected the factors of llama3 scaling by {factor:g} from "
            f"{original} tokens, found others, which this model does not honour"
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LOW,
        "high_freq_factor": _HIGH,
        "original_max_position_embeddings": original,
    }
