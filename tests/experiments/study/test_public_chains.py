"""The public chains are registered under their repositories' names, with shapes that their own
config.json files give and limits that their contexts hold."""

import json

import pytest

from converters.hf_config import read_config
from experiments.study.pairs import CHAT, PAIRS, SHAPES
from experiments.study.public_chains import PUBLIC_CHAINS, comparisons

TULU, OLMO_2, OLMO_3 = (
    f"allenai/{name}" for name in ("Llama-3.1-Tulu-3-8B", "OLMo-2-1124-7B", "Olmo-3-7B-Think")
)
# Key, base, rl, method, longest answer.
REGISTERED = [
    ("tulu3_sft_dpo", f"{TULU}-SFT", f"{TULU}-DPO", "DPO", 2048),
    ("tulu3_dpo_rl", f"{TULU}-DPO", TULU, "PPO (RLVR)", 2048),
    ("tulu3_sft_rl", f"{TULU}-SFT", TULU, "DPO, then PPO (RLVR)", 2048),
    ("olmo2_sft_dpo", f"{OLMO_2}-SFT", f"{OLMO_2}-DPO", "DPO", 2048),
    ("olmo2_dpo_rl", f"{OLMO_2}-DPO", f"{OLMO_2}-Instruct", "RLVR", 2048),
    ("olmo2_sft_rl", f"{OLMO_2}-SFT", f"{OLMO_2}-Instruct", "DPO, then RLVR", 2048),
    ("olmo3_sft_dpo", f"{OLMO_3}-SFT", f"{OLMO_3}-DPO", "DPO", 32768),
    ("olmo3_dpo_rl", f"{OLMO_3}-DPO", OLMO_3, "GRPO (RLVR)", 32768),
    ("olmo3_sft_rl", f"{OLMO_3}-SFT", OLMO_3, "DPO, then GRPO (RLVR)", 32768),
    ("olmo3_rl_zero", "allenai/Olmo-3-1025-7B", "allenai/Olmo-3-7B-RL-Zero-Math", "GRPO (RLVR)",
     16384),
]  # fmt: skip
_COMMON = {
    "hidden_act": "silu", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
    "rope_theta": 500000, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
_OLMO_3 = _COMMON | {
    "architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", "intermediate_size": 11008,
    "max_position_embeddings": 65536, "num_key_value_heads": 32, "rms_norm_eps": 1e-06,
    "sliding_window": 4096, "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 8,
    "rope_scaling": {
        "rope_type": "yarn", "factor": 8.0, "beta_fast": 32, "beta_slow": 1,
        "attention_factor": 1.2079441541679836, "original_max_position_embeddings": 8192,
    },
    "vocab_size": 100278,
}  # fmt: skip
# What decides the shape in the config.json of each chain's checkpoints.
CONFIGS = {
    "tulu3": _COMMON | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "intermediate_size": 14336,
        "max_position_embeddings": 131072, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "vocab_size": 128264,
    },
    "olmo2": _COMMON | {
        "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "intermediate_size": 11008,
        "max_position_embeddings": 4096, "num_key_value_heads": 32, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "vocab_size": 100352,
    },
    "olmo3": _OLMO_3,
    "olmo3_rl_zero": _OLMO_3,
}  # fmt: skip


def test_every_comparison_of_a_chain_is_a_registered_pair():
    names = ("key", "base", "rl", "method", "max_new_tokens")
    found = [
        tuple(getattr(pair, name) for name in names)
        for pair in PAIRS.values()
        if pair.base.startswith("allenai/")
    ]
    assert found == REGISTERED


@pytest.mark.parametrize("key", PUBLIC_CHAINS)
def test_shapes_are_those_of_the_checkpoints_and_answers_end_within_the_context(key, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[key]))
    chain = PUBLIC_CHAINS[key]
    assert chain.config == read_config(tmp_path)
    own = [row[0] for row in REGISTERED if row[1] in chain.stages.values()]
    assert len(own) == len(comparisons(len(chain.stages)))
    assert {SHAPES[pair] for pair in own} == {chain.config}
    longest_prompt = 2048
    assert longest_prompt + chain.max_new_tokens <= CONFIGS[key]["max_position_embeddings"]


def test_models_are_asked_in_their_own_templates_and_rl_zeros_base_has_none():
    prompts = {key: PAIRS[key].prompt for key, *_ in REGISTERED}
    text = prompts.pop("olmo3_rl_zero")
    assert set(prompts.values()) == {CHAT}
    first, question, last = text.replace("{question}", "1 + 1?").split("\n\n")
    assert (question, last.split('"')[1]) == ("1 + 1?", "Answer:")
    assert first.startswith("Solve the following problem step by step.")


def test_each_checkpoint_is_compared_with_the_one_before_and_with_the_first():
    assert comparisons(2) == [(0, 1)]
    assert comparisons(3) == [(0, 1), (1, 2), (0, 2)]
    assert comparisons(4) == [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)]
