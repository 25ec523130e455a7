"""What models of other families have that this model has not: why one is refused.

Reasons are data: by `model_type` where no key says it, else by a key that only such a model has.
"""

from typing import Any

_MOE = "its MLPs are mixtures of experts"
_LAYER_NORM = "it normalises with LayerNorm"
_ABSOLUTE = "its positions are absolute embeddings, and it normalises with LayerNorm"
_PARALLEL = "attention and MLP read the same stream in parallel"
_LATENT = "its keys and values are compressed (latent attention)"
_PAIRS = "it rotates neighbouring numbers of a head"
_RECURRENT = "its layers are not all attention"
_ELSEWHERE = "its code is not part of transformers"
_ENCODER = "it has an encoder, or sees the text in both directions"
_MULTIMODAL = (
    "it is a multimodal model; its text part is read only where it is saved as a model of its own "
    "and its family is one of these"
)

# What a test holds against each family's code.
BY_MODEL_TYPE = {
    "mixtral": _MOE, "qwen2_moe": _MOE, "qwen3_moe": _MOE, "olmoe": _MOE, "phimoe": _MOE,
    "granitemoe": _MOE, "granitemoeshared": _MOE, "dbrx": _MOE, "jetmoe": _MOE, "gpt_oss": _MOE,
    "flex_olmo": _MOE, "minimax": _MOE, "glm4_moe": _MOE, "dots1": _MOE, "ernie4_5_moe": _MOE,
    "deepseek_v2": f"{_MOE}, and {_LATENT}", "deepseek_v3": f"{_MOE}, and {_LATENT}",
    "minicpm3": _LATENT,
    "gpt2": _ABSOLUTE, "opt": _ABSOLUTE, "gpt_bigcode": _ABSOLUTE, "gpt_neo": _ABSOLUTE,
    "biogpt": _ABSOLUTE, "openai-gpt": _ABSOLUTE, "xglm": _ABSOLUTE,
    "bloom": f"{_LAYER_NORM} and has ALiBi", "mpt": f"{_LAYER_NORM} and has ALiBi",
    "falcon": f"{_PARALLEL}, and {_LAYER_NORM}", "gpt_neox": f"{_PARALLEL}, and {_LAYER_NORM}",
    "gptj": f"{_PARALLEL}, and {_LAYER_NORM}", "phi": f"{_PARALLEL}, and {_LAYER_NORM}",
    "codegen": f"{_PARALLEL}, and {_LAYER_NORM}",
    "cohere": f"{_PARALLEL}, and {_LAYER_NORM}", "cohere2": f"{_PARALLEL}, and {_LAYER_NORM}",
    "stablelm": _LAYER_NORM, "starcoder2": _LAYER_NORM, "olmo": f"{_LAYER_NORM} without a gain",
    "nemotron": _LAYER_NORM, "persimmon": _LAYER_NORM,
    "exaone4": "it has norms behind its branches and norms of q and k within heads, as no family here",
    "exaone": _ELSEWHERE, "phi3small": _ELSEWHERE,
    "ministral3": "its queries are scaled with their position",
    "ministral": "which of its layers have a window, layer_types says, and it is not built in",
    "llama4_text": f"{_MOE}, and its layers attend in chunks",
    "llama4": f"{_MOE}, and {_MULTIMODAL}",
    "gemma": "Gemma 1 is not built in", "gemma3n": _MULTIMODAL,
    "gemma3n_text": "its residual stream has several copies",
    "qwen": _ELSEWHERE, "chatglm": _ELSEWHERE, "internlm2": _ELSEWHERE, "baichuan": _ELSEWHERE,
    "minicpm": _ELSEWHERE,
    "glm": _PAIRS, "glm4": _PAIRS,
    "mamba": _RECURRENT, "mamba2": _RECURRENT, "falcon_mamba": _RECURRENT, "jamba": _RECURRENT,
    "bamba": _RECURRENT, "zamba": _RECURRENT, "zamba2": _RECURRENT, "rwkv": _RECURRENT,
    "recurrent_gemma": _RECURRENT, "nemotron_h": _RECURRENT, "falcon_h1": _RECURRENT,
    "qwen3_next": f"{_MOE}, and {_RECURRENT}", "granitemoehybrid": f"{_MOE}, and {_RECURRENT}",
    "t5": _ENCODER, "bart": _ENCODER, "bert": _ENCODER, "roberta": _ENCODER, "mt5": _ENCODER,
}  # fmt: skip
_BY_KEY = (
    (("text_config", "vision_config", "audio_config", "thinker_config"), _MULTIMODAL),
    (
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size",
         "num_experts_per_tok"),
        _MOE,
    ),
    (("kv_lora_rank",), _LATENT),
    (("use_parallel_residual", "parallel_attn", "parallel_residual"), _PARALLEL),
    (("ssm_cfg", "state_size", "mamba_d_state", "linear_num_key_heads"), _RECURRENT),
    (("n_positions", "n_ctx"), _ABSOLUTE),
    (("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"), _LAYER_NORM),
)  # fmt: skip


def why_not(data: dict[str, Any], architecture: str | None, known: set[str]) -> str:
    """Why a model is not read, as half a sentence; code that came with it is never run.

    Args:
      data: the whole of config.json.
      architecture: that it names, or None.
      known: model types of the families that are read.
    """
    reason = _reason(data, architecture, known)
    own = "auto_map" in data
    return f"{reason}; the code that came with it (auto_map) is never run" if own else reason


def _reason(data: dict[str, Any], architecture: str | None, known: set[str]) -> str:
    model_type = data.get("model_type")
    if any(data.get(key) for key in _BY_KEY[0][0]):
        return _MULTIMODAL
    if isinstance(model_type, str):
        if model_type in BY_MODEL_TYPE:
            return BY_MODEL_TYPE[model_type]
        if model_type in known and "auto_map" not in data:
            return f"a {model_type} model with another head than a language model's"
    if data.get("is_encoder_decoder") is True:
        return _ENCODER
    for keys, reason in _BY_KEY:
        found = [key for key in keys if data.get(key)]
        if found:
            return f"{reason} ({found[0]})"
    return "its architecture is not known" if architecture else "no architecture is named"
