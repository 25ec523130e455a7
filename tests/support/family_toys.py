"""A tiny random model of each family, made from the family's own transformers class.

Settings are those of real models, smaller: soft caps and multipliers at work, windows and long
contexts below the texts' length, several kinds of layers, biases where the family has them.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

_SIZES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
_YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}
_LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.0, 4.0],
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyToy:
    """A transformers class, and settings beside `_SIZES`."""

    name: str
    settings: dict


def _toy(name: str, **settings) -> FamilyToy:
    return FamilyToy(name=name, settings=settings)


FAMILY_TOYS = {
    "qwen3": _toy("Qwen3", head_dim=12, attention_bias=True),
    "qwen3, windows": _toy(
        "Qwen3", head_dim=12, use_sliding_window=True, sliding_window=5, max_window_layers=1,
        rope_parameters=_YARN | {"rope_theta": 1e6, "truncate": False},
    ),
    "olmo2": _toy("Olmo2", rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
    "olmo3": _toy(
        "Olmo3", sliding_window=5, layer_types=_TYPES,
        rope_parameters={
            "full_attention": _YARN | {"rope_theta": 5e5, "attention_factor": 1.2},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
        },
    ),
    "smollm3": _toy(
        "SmolLM3", no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=5,
        attention_bias=True, mlp_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 5e6},
    ),
    "granite": _toy(
        "Granite", embedding_multiplier=12.0, residual_multiplier=0.22, logits_scaling=8.0,
        attention_multiplier=0.25, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e7},
    ),
    "phi3": _toy(
        "Phi3", sliding_window=7, num_key_value_heads=4,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    ),
    "phi4": _toy(
        "Phi3", original_max_position_embeddings=16, tie_word_embeddings=True,
        rope_parameters=_LONG | {"rope_theta": 1e4, "partial_rotary_factor": 0.75},
    ),
    "gemma2": _toy(
        "Gemma2", head_dim=12, query_pre_attn_scalar=24, sliding_window=5,
        attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
    ),
    "gemma3": _toy(
        "Gemma3", head_dim=12, query_pre_attn_scalar=24, sliding_window=5, layer_types=_TYPES,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "llama, dynamic": _toy(
        "Llama", max_position_embeddings=16,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    ),
}  # fmt: skip


@functools.cache
def torch_family(name: str):
    """The model of a toy, float32, eager attention: no gain is 1, no bias is 0."""
    import torch
    import transformers

    toy = FAMILY_TOYS[name]
    config_name = {"Gemma3": "Gemma3TextConfig"}.get(toy.name, f"{toy.name}Config")
    config = getattr(transformers, config_name)(
        **(_SIZES | toy.settings), attn_implementation="eager", dtype="float32"
    )
    model = getattr(transformers, f"{toy.name}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(0)
    for key, leaf in model.named_parameters():
        leaf.requires_grad_(False)
        if "norm" in key:
            offset = 1.0 if toy.name.startswith("Gemma") else 0.0
            leaf.uniform_(0.5 - offset, 1.5 - offset, generator=generator)
        else:
            deviation = config.hidden_size**-0.5
            if key.endswith("bias"):
                deviation = 0.3
            elif key.endswith("embed_tokens.weight"):  # the input is of order one in all
                deviation = 1 / getattr(config, "embedding_multiplier", 1.0)
            leaf.normal_(0, deviation, generator=generator)
    return model


def family_folder(name: str, folder: Path) -> Path:
    """The toy's checkpoint as transformers writes it."""
    torch_family(name).save_pretrained(folder)
    return folder


def family_tokens(name: str, length: int, seed: int = 0) -> list[int]:
    """A random text."""
    return np.random.default_rng(seed).integers(0, 61, length).tolist()
