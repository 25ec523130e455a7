"""What transformers makes of a config.json: fields of `ModelConfig` and rotary frequencies.

An oracle for `converters`: nothing here uses it, and no model is built.
"""

import importlib
import json
from pathlib import Path

import torch
import transformers

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def theirs_of(data: dict, folder: Path):
    """Their config object of a config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(data))
    return transformers.AutoConfig.from_pretrained(folder)


def fields_of(theirs) -> dict:
    """All fields of `ModelConfig` but for theta and scaling; see `rotary`."""
    kind, layers = theirs.model_type, theirs.num_hidden_layers
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    gemma = kind.startswith("gemma")
    part = int(head_dim * theirs.rope_parameters.get("partial_rotary_factor", 1.0))
    rotated = [bool(one) for one in getattr(theirs, "no_rope_layers", [1] * layers)[:layers]]
    bias = bool(getattr(theirs, "attention_bias", False))
    windows = windows_of(theirs)
    return {
        "vocab_size": theirs.vocab_size,
        "num_layers": layers,
        "d_model": theirs.hidden_size,
        "d_ff": theirs.intermediate_size,
        "num_heads": theirs.num_attention_heads,
        "num_kv_heads": theirs.num_key_value_heads,
        "head_dim": head_dim,
        "norm_eps": theirs.rms_norm_eps,
        "qkv_bias": bias or kind == "qwen2",
        "output_bias": bias,
        "mlp_bias": bool(getattr(theirs, "mlp_bias", False)),
        "tied_embeddings": theirs.tie_word_embeddings,
        "layer_windows": tuple(windows) if any(windows) else None,
        "norm_position": {"olmo2": "post", "olmo3": "post"}.get(kind, "both" if gemma else "pre"),
        "norm_gain_offset": 1.0 if gemma else 0.0,
        "qk_norm": {
            "olmo2": "full", "olmo3": "full", "qwen3": "head", "gemma3_text": "head",
        }.get(kind),
        "activation": _ACTIVATIONS[theirs.hidden_activation if gemma else theirs.hidden_act],
        "embedding_multiplier": (
            theirs.hidden_size**0.5 if gemma else getattr(theirs, "embedding_multiplier", 1.0)
        ),
        "residual_multiplier": getattr(theirs, "residual_multiplier", 1.0),
        "logits_divisor": getattr(theirs, "logits_scaling", 1.0),
        "attention_scale": (
            theirs.query_pre_attn_scalar**-0.5
            if gemma
            else getattr(theirs, "attention_multiplier", None)
        ),
        "attention_softcap": theirs.attn_logit_softcapping if gemma else None,
        "logits_softcap": theirs.final_logit_softcapping if gemma else None,
        "rotary_dim": None if part == head_dim else part,
        "layer_rotary": None if all(rotated) else tuple(rotated),
    }  # fmt: skip


def windows_of(theirs) -> list[int | None]:
    """Each layer's window."""
    layers = theirs.num_hidden_layers
    if theirs.model_type in ("mistral", "phi3"):
        return [theirs.sliding_window] * layers
    kinds = getattr(theirs, "layer_types", None) or ["full_attention"] * layers
    return [theirs.sliding_window if kind == "sliding_attention" else None for kind in kinds]


def rotary(theirs, layer_type: str, length: int) -> tuple[torch.Tensor, float]:
    """Their frequencies and the factor of cos and sin, for a text of `length` tokens."""
    kind = {"gemma3_text": "gemma3"}.get(theirs.model_type, theirs.model_type)
    name = {
        "gemma3_text": "Gemma3", "smollm3": "SmolLM3",
    }.get(theirs.model_type, theirs.model_type.capitalize())  # fmt: skip
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    embedding = getattr(module, f"{name}RotaryEmbedding")(theirs)
    layered = hasattr(embedding, "full_attention_inv_freq")
    arguments = (layer_type,) if layered else ()
    cosines, sines = embedding(torch.zeros(1), torch.arange(length)[None], *arguments)
    prefix = f"{layer_type}_" if layered else ""
    del sines
    # At position 0 every cosine is 1 times the factor.
    return getattr(embedding, f"{prefix}inv_freq"), float(cosines[0, 0, 0])
