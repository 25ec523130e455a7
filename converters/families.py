"""The model families, as data: what each calls its tensors and settings, and what it computes.

A family says which fields of `ModelConfig` it fixes, which keys of config.json set the others and what
a missing key means, and how its tensors are named. Nothing else in the code knows a family by name.
Defaults are those of transformers' configuration classes: a file leaves out what equals them.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    """A number of config.json that sets a field of `ModelConfig`.

    Attributes:
      key: its key.
      default: its value where the key is missing; None: the field is None.
      read: from the key's value to the field's.
      write: back, or None where the key is written for another field.
    """

    key: str
    default: float | None
    read: Callable[[float], float] = float
    write: Callable[[float], float] | None = float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """Which layers have a window, where `layer_types` does not say so.

    Attributes:
      default: of `sliding_window` where the key is missing; None: no window.
      switched: `use_sliding_window` must be true (false where it is missing).
      above: layers from `max_window_layers` on (28 where it is missing).
      period: all layers but every so many; None: all.
      period_key: key of another period, or None.
      unrotated: layers without rotary embedding.
      typed: `layer_types` is honoured; else it must repeat what the other keys say.
    """

    default: int | None
    switched: bool = False
    above: bool = False
    period: int | None = None
    period_key: str | None = None
    unrotated: bool = False
    typed: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalRope:
    """Rotary frequencies of layers with a window, without the scaling of the others.

    Attributes:
      key: of their base, or None where config.json has no key for it.
      default: of the base.
    """

    key: str | None
    default: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture.

    Attributes:
      architecture: in `architectures`.
      model_type: beside it.
      fixed: fields of `ModelConfig` that are the same in all its models.
      numbers: fields of `ModelConfig` that a key sets.
      kv_heads: `num_key_value_heads` where the key is missing; None: as many as query heads.
      head_dim: where the key is missing; None: hidden_size / num_attention_heads.
      norm_eps, rope_theta, tied: of `rms_norm_eps`, `rope_theta` and `tie_word_embeddings` where the
        key is missing.
      activation_key: key of the MLP's activation.
      activation: where the key is missing.
      attention_bias: `attention_bias` is honoured, for q, k, v and o.
      qkv_bias: q, k and v have biases whatever the keys say but `qkv_bias` (Qwen2).
      mlp_bias: `mlp_bias` is honoured.
      windows: None: a window is not honoured.
      local_rope: None: all layers rotate alike.
      unrotated: `no_rope_layers` and `no_rope_layer_interval` are honoured.
      partial_rotary: `partial_rotary_factor` is honoured.
      original_context: `original_max_position_embeddings` beside the other keys is honoured before
        the one inside `rope_scaling`; its value where the key is missing.
      rope_names: other names of rope kinds that config.json may have.
      tensors: names of a block's tensors inside the layer, by names of `parameters.block_axes`.
      fused: tensors that hold several of ours, one below the other.
    """

    architecture: str
    model_type: str
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    numbers: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    kv_heads: int | None = None
    head_dim: int | None = None
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tied: bool = False
    activation_key: str = "hidden_act"
    activation: str = "silu"
    attention_bias: bool = False
    qkv_bias: bool = False
    mlp_bias: bool = False
    windows: Windows | None = None
    local_rope: LocalRope | None = None
    unrotated: bool = False
    partial_rotary: bool = False
    original_context: int | None = None
    rope_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tensors: Mapping[str, str]
    fused: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


# Names of activations in config.json.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
}
END_TENSORS = {
    "embed": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
}
_PROJECTIONS = {
    **{name: f"self_attn.{name}_proj.weight" for name in "qkvo"},
    **{f"{name}_bias": f"self_attn.{name}_proj.bias" for name in "qkvo"},
    **{name: f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
    **{f"{name}_bias": f"mlp.{name}_proj.bias" for name in ("gate", "up", "down")},
    **{f"{name}_norm": f"self_attn.{name}_norm.weight" for name in "qk"},
}
_PRE = _PROJECTIONS | {
    "attention_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
}
_POST = _PROJECTIONS | {
    "attention_post_norm": "post_attention_layernorm.weight",
    "mlp_post_norm": "post_feedforward_layernorm.weight",
}
_BOTH = _POST | {
    "attention_norm": "input_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
}
_GEMMA = {
    "attention_scale": Number(
        key="query_pre_attn_scalar", default=256,
        read=lambda scalar: scalar**-0.5, write=lambda scale: round(scale**-2),
    ),
    "embedding_multiplier": Number(
        key="hidden_size", default=None, read=math.sqrt, write=None
    ),
}  # fmt: skip
_GEMMA_FIELDS = {
    "kv_heads": 4, "head_dim": 256, "tied": True, "attention_bias": True,
    "activation_key": "hidden_activation", "activation": "gelu_pytorch_tanh", "tensors": _BOTH,
}  # fmt: skip
_OLMO_FIXED = {"norm_position": "post", "qk_norm": "full"}
_QWEN_WINDOWS = Windows(default=4096, switched=True, above=True)

LLAMA = Family(
    architecture="LlamaForCausalLM", model_type="llama",
    attention_bias=True, mlp_bias=True, tensors=_PRE,
)  # fmt: skip
FAMILIES: dict[str, Family] = {
    family.architecture: family
    for family in (
        LLAMA,
        Family(
            architecture="MistralForCausalLM", model_type="mistral", kv_heads=8,
            windows=Windows(default=4096, typed=False), tensors=_PRE,
        ),
        Family(
            architecture="Qwen2ForCausalLM", model_type="qwen2", kv_heads=32, qkv_bias=True,
            windows=_QWEN_WINDOWS, tensors=_PRE,
        ),
        Family(
            architecture="Qwen3ForCausalLM", model_type="qwen3", kv_heads=32, head_dim=128,
            fixed={"qk_norm": "head"}, attention_bias=True, windows=_QWEN_WINDOWS, tensors=_PRE,
        ),
        Family(
            architecture="Olmo2ForCausalLM", model_type="olmo2", fixed=_OLMO_FIXED,
            norm_eps=1e-5, attention_bias=True, tensors=_POST,
        ),
        Family(
            architecture="Olmo3ForCausalLM", model_type="olmo3", fixed=_OLMO_FIXED,
            norm_eps=1e-5, rope_theta=500000.0, attention_bias=True,
            windows=Windows(default=4096, period=4),
            local_rope=LocalRope(key=None, default=500000.0), tensors=_POST,
        ),
        Family(
            architecture="SmolLM3ForCausalLM", model_type="smollm3", kv_heads=4,
            rope_theta=2000000.0, tied=True, attention_bias=True, mlp_bias=True,
            windows=Windows(default=None, switched=True, unrotated=True),
            unrotated=True, tensors=_PRE,
        ),
        Family(
            architecture="GraniteForCausalLM", model_type="granite",
            numbers={
                "embedding_multiplier": Number(key="embedding_multiplier", default=1.0),
                "residual_multiplier": Number(key="residual_multiplier", default=1.0),
                "logits_divisor": Number(key="logits_scaling", default=1.0),
                "attention_scale": Number(key="attention_multiplier", default=1.0),
            },
            attention_bias=True, mlp_bias=True, tensors=_PRE,
        ),
        Family(
            architecture="Phi3ForCausalLM", model_type="phi3", norm_eps=1e-5,
            windows=Windows(default=None, typed=False), partial_rotary=True,
            original_context=4096, rope_names={"su": "longrope", "yarn": "longrope"}, tensors=_PRE,
            fused={
                "self_attn.qkv_proj.weight": ("q", "k", "v"),
                "mlp.gate_up_proj.weight": ("gate", "up"),
            },
        ),
        Family(
            architecture="Gemma2ForCausalLM", model_type="gemma2",
            fixed={"norm_position": "both", "norm_gain_offset": 1.0},
            numbers=_GEMMA | {
                "attention_softcap": Number(key="attn_logit_softcapping", default=50.0),
                "logits_softcap": Number(key="final_logit_softcapping", default=30.0),
            },
            windows=Windows(default=4096, period=2), **_GEMMA_FIELDS,
        ),
        Family(
            architecture="Gemma3ForCausalLM", model_type="gemma3_text",
            fixed={"norm_position": "both", "norm_gain_offset": 1.0, "qk_norm": "head"},
            numbers=_GEMMA | {
                "logits_softcap": Number(key="final_logit_softcapping", default=None),
            },
            rope_theta=1000000.0,
            windows=Windows(default=4096, period=6, period_key="sliding_window_pattern"),
            local_rope=LocalRope(key="rope_local_base_freq", default=10000.0), **_GEMMA_FIELDS,
        ),
    )
}  # fmt: skip


def key_of(family: Family, name: str) -> tuple[str, tuple[str, ...]]:
    """Which tensor of a block holds one of our parameters, and all that it holds, in order.

    Args:
      family: of the checkpoint.
      name: of `parameters.block_axes`.
    """
    for tensor, parts in family.fused.items():
        if name in parts:
            return tensor, parts
    return family.tensors[name], (name,)
