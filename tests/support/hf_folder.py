"""Hugging Face checkpoint folders written by hand: config.json, safetensors files, an index.

An oracle for `converters`: nothing here uses it.
"""

import json
import struct
from pathlib import Path

import numpy as np
import toys
from safetensors.numpy import save_file

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}


def config_json(toy: toys.Toy) -> dict:
    """config.json of a toy in the spelling of transformers 4."""
    config, family = toy.config, toy.family
    data = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": config.tied_embeddings,
        "max_position_embeddings": 512,
        "torch_dtype": "float32",
        "use_cache": True,
    }
    if scaling := config.rope_scaling:
        data["rope_scaling"] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            data["rope_scaling"] |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_context,
            }
    if family == "llama":
        data |= {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
    elif family == "mistral":
        data["sliding_window"] = (config.layer_windows or (None,))[0]
    elif config.layer_windows:
        data |= {
            "use_sliding_window": True,
            "sliding_window": config.layer_windows[-1],
            "max_window_layers": sum(window is None for window in config.layer_windows),
        }
    return data


def write_config(folder: Path, data: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(data))


def write_weights(folder: Path, state: dict[str, np.ndarray], *, shards: int = 1) -> None:
    """model.safetensors, or `shards` files and their index, the tensors dealt out in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: np.ascontiguousarray(tensor) for name, tensor in state.items()}
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return
    names = sorted(state)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        held = names[number::shards]
        save_file({name: state[name] for name in held}, folder / file)
        weight_map |= dict.fromkeys(held, file)
    write_index(folder, weight_map)


def write_index(folder: Path, weight_map, name: str = "model.safetensors.index.json") -> None:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_raw(path: Path, header: dict | str, data: bytes) -> None:
    """A safetensors file from its definition: header length (8 bytes), JSON header, data."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_raw(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """(dtype code, shape, bytes) of each tensor of a safetensors file, from its definition."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        found[name] = entry["dtype"], tuple(entry["shape"]), content[first:last]
    return found


def write_toy(
    folder: Path, toy: toys.Toy, params: dict, *, dtype=np.float32, shards: int = 1, **changes
) -> dict[str, np.ndarray]:
    """A whole checkpoint of a toy; `changes` go to config.json. Returns its tensors."""
    state = {n: leaf.astype(dtype) for n, leaf in toys.hf_state(toy.config, params).items()}
    write_config(folder, config_json(toy) | changes)
    write_weights(folder, state, shards=shards)
    return state
