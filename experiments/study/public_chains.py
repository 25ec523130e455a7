"""Public post-training chains as data: SFT, DPO and RL checkpoints of one model, and RL from a base.

Repositories and methods are those of the model cards and training scripts (Tulu 3: arXiv 2411.15124;
OLMo 2: 2501.00656; Olmo 3: 2512.13961). RLVR is RL with verifiable rewards. Longest answers are
those that the RL stage was trained with; with a prompt of 2,048 tokens they fill OLMo 2's context.

Each model is asked in its own chat template. Olmo-3-7B-Think-SFT has another one than the two after
it; a run says how many prompts differ, and splits each change into the model's part and the text's.
The base of RL-Zero has no template, so both of its models read the text that the RL was trained on.
"""

import dataclasses
from collections.abc import Mapping

from eap_jax.config import ModelConfig
from eap_jax.rope import RopeScaling

_RL_ZERO_PROMPT = (
    "Solve the following problem step by step. The last line of your response should be the answer to "
    "the problem in form Answer: $Answer (without quotes) where $Answer is the answer to the problem."
    '\n\n{question}\n\nRemember to put your answer on its own line after "Answer:"'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublicChain:
    """Checkpoints of one model, each trained from the one before.

    Attributes:
      key: name on the command line.
      stages: Hub id of each checkpoint by the short name of its stage, in the order of training.
      methods: how each checkpoint but the first was made.
      config: shape of all of them.
      max_new_tokens: limit of a generated answer.
      prompt: text with the place `{question}`, or None for the tokenizers' chat templates.
    """

    key: str
    stages: Mapping[str, str]
    methods: tuple[str, ...]
    config: ModelConfig
    max_new_tokens: int
    prompt: str | None = None

    def pair_key(self, before: int, after: int) -> str:
        """Name of the pair of the checkpoints at two places."""
        names = list(self.stages)
        return self.key if len(names) == 2 else f"{self.key}_{names[before]}_{names[after]}"


def comparisons(count: int) -> list[tuple[int, int]]:
    """Which checkpoints of a chain of `count` are compared, as places of the one before and the one
    after: each with its predecessor, and from the third on also with the first."""
    return [
        pair
        for after in range(1, count)
        for pair in dict.fromkeys([(after - 1, after), (0, after)])
    ]


_LLAMA = ModelConfig(
    vocab_size=128264, num_layers=32, d_model=4096, d_ff=14336, num_heads=32, num_kv_heads=8,
    head_dim=128, norm_eps=1e-5, rope_theta=500000.0,
    rope_scaling=RopeScaling(
        kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
    ),
)  # fmt: skip
_OLMO_2 = ModelConfig(
    vocab_size=100352, num_layers=32, d_model=4096, d_ff=11008, num_heads=32, num_kv_heads=32,
    head_dim=128, norm_eps=1e-6, rope_theta=500000.0, norm_position="post", qk_norm="full",
)  # fmt: skip
_OLMO_3 = dataclasses.replace(
    _OLMO_2,
    vocab_size=100278,
    layer_windows=(4096, 4096, 4096, None) * 8,
    rope_scaling=RopeScaling(
        kind="yarn", factor=8.0, original_context=8192, attention_factor=1.2079441541679836,
        beta_fast=32.0, beta_slow=1.0, truncate=True,
    ),
    local_rope_theta=500000.0,
)  # fmt: skip

PUBLIC_CHAINS = {
    chain.key: chain
    for chain in (
        PublicChain(
            key="tulu3",
            stages={
                "sft": "allenai/Llama-3.1-Tulu-3-8B-SFT",
                "dpo": "allenai/Llama-3.1-Tulu-3-8B-DPO",
                "rl": "allenai/Llama-3.1-Tulu-3-8B",
            },
            methods=("DPO", "PPO (RLVR)"),
            config=_LLAMA,
            max_new_tokens=2048,
        ),
        PublicChain(
            key="olmo2",
            stages={
                "sft": "allenai/OLMo-2-1124-7B-SFT",
                "dpo": "allenai/OLMo-2-1124-7B-DPO",
                "rl": "allenai/OLMo-2-1124-7B-Instruct",
            },
            methods=("DPO", "RLVR"),
            config=_OLMO_2,
            max_new_tokens=2048,
        ),
        PublicChain(
            key="olmo3",
            stages={
                "sft": "allenai/Olmo-3-7B-Think-SFT",
                "dpo": "allenai/Olmo-3-7B-Think-DPO",
                "rl": "allenai/Olmo-3-7B-Think",
            },
            methods=("DPO", "GRPO (RLVR)"),
            config=_OLMO_3,
            max_new_tokens=32768,
        ),
        PublicChain(
            key="olmo3_rl_zero",
            stages={
                "base": "allenai/Olmo-3-1025-7B",
                "rl": "allenai/Olmo-3-7B-RL-Zero-Math",
            },
            methods=("GRPO (RLVR)",),
            config=_OLMO_3,
            max_new_tokens=16384,
            prompt=_RL_ZERO_PROMPT,
        ),
    )
}
