"""config.json of public models, as their authors or tools wrote them: of families that are read, and
of others. Shortened where a list is long."""

_LLAMA3 = {
    "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3",
}  # fmt: skip


def _sizes(vocab, width, hidden, layers, heads, kv_heads, **others):
    return {
        "vocab_size": vocab, "hidden_size": width, "intermediate_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "torch_dtype": "bfloat16", "use_cache": True,
        "initializer_range": 0.02,
    } | others  # fmt: skip


READ = {
    "Llama-3.3-70B": _sizes(
        128256, 8192, 28672, 80, 64, 8, architectures=["LlamaForCausalLM"], model_type="llama",
        attention_bias=False, attention_dropout=0.0, bos_token_id=128000, hidden_act="silu",
        eos_token_id=[128001, 128008, 128009], head_dim=128, max_position_embeddings=131072,
        mlp_bias=False, pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling=_LLAMA3,
        rope_theta=500000.0, tie_word_embeddings=False, transformers_version="4.47.0.dev0",
    ),
    "SmolLM2-1.7B": _sizes(
        49152, 2048, 8192, 24, 32, 32, architectures=["LlamaForCausalLM"], model_type="llama",
        is_llama_config=True, rope_interleaved=False, rope_scaling=None, rope_theta=130000,
        max_position_embeddings=8192, pretraining_tp=4, rms_norm_eps=1e-05,
        tie_word_embeddings=True, hidden_act="silu", pad_token_id=-1,
        **{"transformers.js_config": {"dtype": "q4"}},
    ),
    "vicuna-16k": _sizes(
        32000, 5120, 13824, 40, 40, 40, architectures=["LlamaForCausalLM"], model_type="llama",
        hidden_act="silu", max_position_embeddings=4096,
        rms_norm_eps=1e-05, rope_scaling={"factor": 4.0, "type": "linear"},
        _flash_attn_2_enabled=False,
    ),
    "Yi with dynamic": _sizes(
        64000, 4096, 11008, 32, 32, 4, model_type="llama", hidden_act="silu",
        max_position_embeddings=4096, rms_norm_eps=1e-05, rope_theta=5000000.0,
        rope_scaling={"type": "dynamic", "factor": 2.0},
    ),
    "Mistral-7B-v0.1, architectures null": _sizes(
        32000, 4096, 14336, 32, 32, 8, architectures=None, model_type="mistral",
        hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-05, rope_theta=10000.0,
        sliding_window=4096, tie_word_embeddings=False,
    ),
    "Qwen2.5-Math-1.5B": _sizes(
        151936, 1536, 8960, 28, 12, 2, architectures=["Qwen2ForCausalLM"], model_type="qwen2",
        bos_token_id=151643, eos_token_id=151643, hidden_act="silu", attention_dropout=0.0,
        max_position_embeddings=4096, max_window_layers=21, rms_norm_eps=1e-06, rope_theta=10000,
        sliding_window=4096, tie_word_embeddings=True, use_mrope=False, use_sliding_window=False,
        transformers_version="4.44.0",
    ),
    "Qwen2.5 with yarn": _sizes(
        152064, 3584, 18944, 28, 28, 4, architectures=["Qwen2ForCausalLM"], model_type="qwen2",
        hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-06, rope_theta=1e6,
        rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        use_sliding_window=False, sliding_window=131072, max_window_layers=28,
    ),
    "Qwen2 with theta inside": _sizes(
        151936, 896, 4864, 24, 14, 2, architectures=["Qwen2ForCausalLM"], model_type="qwen2",
        hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-06,
        rope_scaling={"rope_type": "linear", "factor": 2, "rope_theta": 1000000},
    ),
    "Qwen3-1.7B": _sizes(
        151936, 2048, 6144, 28, 16, 8, architectures=["Qwen3ForCausalLM"], model_type="qwen3",
        attention_bias=False, head_dim=128, hidden_act="silu", max_position_embeddings=40960,
        max_window_layers=28, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=1000000,
        sliding_window=None, tie_word_embeddings=True, use_sliding_window=False,
    ),
    "OLMo-2-1B": _sizes(
        100352, 2048, 8192, 16, 16, 16, architectures=["Olmo2ForCausalLM"], model_type="olmo2",
        attention_bias=False, hidden_act="silu", max_position_embeddings=4096,
        rms_norm_eps=1e-06, rope_scaling=None, rope_theta=500000, tie_word_embeddings=False,
    ),
    "OLMo-3, transformers 5": _sizes(
        100278, 4096, 11008, 8, 32, 32, architectures=["Olmo3ForCausalLM"], model_type="olmo3",
        hidden_act="silu", max_position_embeddings=65536, rms_norm_eps=1e-06,
        sliding_window=4096, layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 2,
        rope_parameters={
            "full_attention": {
                "rope_type": "yarn", "rope_theta": 500000, "factor": 8.0, "beta_fast": 32.0,
                "beta_slow": 1.0, "attention_factor": 1.2079441541679836,
                "original_max_position_embeddings": 8192,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 500000},
        },
    ),
    "SmolLM3, windows": _sizes(
        128256, 2048, 11008, 12, 16, 4, architectures=["SmolLM3ForCausalLM"],
        model_type="smollm3", attention_bias=False, hidden_act="silu", max_window_layers=28,
        max_position_embeddings=65536, mlp_bias=False, no_rope_layer_interval=4,
        rms_norm_eps=1e-06, rope_scaling=None, rope_theta=5000000.0, sliding_window=None,
        use_sliding_window=False, pretraining_tp=2,
    ),
    "granite-3.1-8b": _sizes(
        49155, 4096, 12800, 40, 32, 8, architectures=["GraniteForCausalLM"],
        model_type="granite", attention_bias=False, attention_dropout=0.1,
        attention_multiplier=0.0078125, embedding_multiplier=12.0, hidden_act="silu",
        logits_scaling=16.0, max_position_embeddings=131072, mlp_bias=False, rms_norm_eps=1e-05,
        residual_multiplier=0.22, rope_scaling=None, rope_theta=10000000.0,
        tie_word_embeddings=True,
    ),
    "Phi-3-mini-4k": _sizes(
        32064, 3072, 8192, 32, 32, 32, architectures=["Phi3ForCausalLM"], model_type="phi3",
        attention_bias=False, auto_map={"AutoConfig": "configuration_phi3.Phi3Config"},
        embd_pdrop=0.0, resid_pdrop=0.0, hidden_act="silu", max_position_embeddings=4096,
        original_max_position_embeddings=4096, rms_norm_eps=1e-05, rope_scaling=None,
        rope_theta=10000.0, sliding_window=2047, tie_word_embeddings=False,
    ),
    "Phi-3-mini-128k": _sizes(
        32064, 3072, 8192, 4, 32, 32, architectures=["Phi3ForCausalLM"], model_type="phi3",
        hidden_act="silu", max_position_embeddings=131072, rms_norm_eps=1e-05,
        original_max_position_embeddings=4096, rope_theta=10000.0, sliding_window=262144,
        rope_scaling={
            "type": "longrope",
            "short_factor": [1.05] * 24 + [1.3] * 24,
            "long_factor": [1.03 + 0.9 * i for i in range(48)],
        },
    ),
    "phi-4-mini": _sizes(
        200064, 3072, 8192, 4, 24, 8, architectures=["Phi3ForCausalLM"], model_type="phi3",
        full_attn_mod=1, interpolate_factor=1, lm_head_bias=False, mlp_bias=False,
        hidden_act="silu", max_position_embeddings=131072, rms_norm_eps=1e-05,
        original_max_position_embeddings=4096, partial_rotary_factor=0.75,
        rope_scaling={
            "type": "longrope", "short_factor": [1.0] * 48,
            "long_factor": [1 + 0.7 * i for i in range(48)],
        },
        tie_word_embeddings=True, sliding_window=262144,
    ),
    "gemma-2-27b": _sizes(
        256128, 4608, 36864, 46, 32, 16, architectures=["Gemma2ForCausalLM"],
        model_type="gemma2", attn_logit_softcapping=50.0, cache_implementation="hybrid",
        final_logit_softcapping=30.0, head_dim=128, hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh", max_position_embeddings=8192,
        query_pre_attn_scalar=144, rms_norm_eps=1e-06, rope_theta=10000.0, sliding_window=4096,
        sliding_window_size=4096, _attn_implementation="eager",
    ),
    "gemma-3-4b, its text part": _sizes(
        262208, 2560, 10240, 34, 8, 4, architectures=["Gemma3ForCausalLM"],
        model_type="gemma3_text", attn_logit_softcapping=None, final_logit_softcapping=None,
        head_dim=256, hidden_activation="gelu_pytorch_tanh", max_position_embeddings=131072,
        query_pre_attn_scalar=256, rms_norm_eps=1e-06, rope_local_base_freq=10000.0,
        rope_scaling={"factor": 8.0, "rope_type": "linear"}, rope_theta=1000000.0,
        sliding_window=1024, sliding_window_pattern=6,
    ),
}  # fmt: skip

_MOE = {"num_local_experts": 8, "num_experts_per_tok": 2}
# Name: (config.json, words of the reason).
REFUSED = {
    "Mixtral-8x22B": (
        _sizes(32000, 6144, 16384, 56, 48, 8, architectures=["MixtralForCausalLM"],
               model_type="mixtral", rms_norm_eps=1e-05, **_MOE),
        "experts",
    ),
    "Qwen2-57B-A14B": (
        _sizes(151936, 3584, 18944, 28, 28, 4, architectures=["Qwen2MoeForCausalLM"],
               model_type="qwen2_moe", num_experts=64, shared_expert_intermediate_size=20480),
        "experts",
    ),
    "DeepSeek-V3": (
        _sizes(129280, 7168, 18432, 61, 128, 128, architectures=["DeepseekV3ForCausalLM"],
               model_type="deepseek_v3", n_routed_experts=256, kv_lora_rank=512,
               quantization_config={"quant_method": "fp8"}),
        "latent attention",
    ),
    "granite-3.0-1b-a400m": (
        _sizes(49155, 1024, 512, 24, 16, 8, architectures=["GraniteMoeForCausalLM"],
               model_type="granitemoe", num_local_experts=32),
        "experts",
    ),
    "a mixture of an unknown kind": (
        _sizes(1000, 64, 64, 2, 4, 4, architectures=["NewMoeForCausalLM"], model_type="new_moe",
               moe_intermediate_size=32),
        "experts (moe_intermediate_size)",
    ),
    "falcon-7b": (
        {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "alibi": False,
         "bias": False, "hidden_size": 4544, "multi_query": True, "parallel_attn": True,
         "layer_norm_epsilon": 1e-05, "num_hidden_layers": 32, "vocab_size": 65024},
        "parallel",
    ),
    "pythia-70m": (
        {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "rotary_pct": 0.25,
         "hidden_act": "gelu", "hidden_size": 512, "layer_norm_eps": 1e-05,
         "use_parallel_residual": True, "rotary_emb_base": 10000},
        "parallel",
    ),
    "stablelm-2-1_6b": (
        _sizes(100352, 2048, 5632, 24, 32, 32, architectures=["StableLmForCausalLM"],
               model_type="stablelm", layer_norm_eps=1e-05, partial_rotary_factor=0.25),
        "LayerNorm",
    ),
    "command-r": (
        _sizes(256000, 8192, 22528, 40, 64, 64, architectures=["CohereForCausalLM"],
               model_type="cohere", logit_scale=0.0625, layer_norm_eps=1e-05),
        "parallel",
    ),
    "gpt2, no architectures": ({"model_type": "gpt2", "n_ctx": 1024, "n_embd": 768}, "absolute"),
    "an unknown model with LayerNorm": (
        _sizes(1000, 64, 64, 2, 4, 4, architectures=["NewForCausalLM"], layer_norm_eps=1e-5),
        "LayerNorm (layer_norm_eps)",
    ),
    "gemma-3-4b": (
        {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
         "text_config": {"hidden_size": 2560, "model_type": "gemma3_text"},
         "vision_config": {"hidden_size": 1152}},
        "multimodal",
    ),
    "a Llama that ranks": (
        _sizes(32000, 4096, 11008, 32, 32, 32, model_type="llama",
               architectures=["LlamaForSequenceClassification"]),
        "another head",
    ),
    "EXAONE-4.0-1.2B": (
        _sizes(102400, 2048, 4096, 30, 32, 8, architectures=["Exaone4ForCausalLM"],
               model_type="exaone4", sliding_window=None),
        "norms behind its branches",
    ),
    "T5": ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, "encoder"),
    "mamba-130m": (
        {"architectures": ["MambaForCausalLM"], "model_type": "mamba", "state_size": 16},
        "not all attention",
    ),
    "no name at all": (_sizes(32000, 4096, 11008, 32, 32, 32), "no architecture is named"),
    "two architectures": (
        _sizes(32000, 4096, 11008, 32, 32, 32, model_type="llama",
               architectures=["LlamaForCausalLM", "MistralForCausalLM"]),
        "MistralForCausalLM",
    ),
}  # fmt: skip
