"""Tiny models and batches for the tests, and the same models in transformers + torch.

Nothing here uses `converters` or `experiments`: checkpoint names, configurations and the selection
of samples are written down a second time from their definitions, so that they can be oracles.
"""

import dataclasses
import functools
import json
import random
from pathlib import Path
from typing import Literal

import numpy as np

from eap_jax.config import ModelConfig, RopeScaling
from eap_jax.objective import Batch
from eap_jax.parameters import parameter_shapes

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SERIES = ("deepseek", "mistral", "qwen")
SIDES = ("base", "rl")
ALPHAS = (0.1, 0.3, 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    """A tiny model and the transformers class that implements it."""

    config: ModelConfig
    family: Literal["llama", "mistral", "qwen2"]


def toy_of(family: str, **fields) -> Toy:
    defaults = {
        "vocab_size": 61, "num_layers": 2, "d_model": 24, "d_ff": 40, "num_heads": 4,
        "num_kv_heads": 4, "head_dim": 6, "norm_eps": 1e-6, "rope_theta": 10000.0,
    }  # fmt: skip
    return Toy(config=ModelConfig(**(defaults | fields)), family=family)


LLAMA3 = RopeScaling(
    kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64
)
ZOO = {
    "multi-head": toy_of("llama"),
    "grouped, q/k/v biases, theta 1e6": toy_of(
        "qwen2", d_model=36, num_heads=6, num_kv_heads=2, qkv_bias=True, rope_theta=1e6, d_ff=44
    ),
    "multi-query, head_dim 10, all biases": toy_of(
        "llama", num_kv_heads=1, head_dim=10, qkv_bias=True, output_bias=True, mlp_bias=True
    ),
    "window 7, tied head": toy_of(
        "mistral", num_kv_heads=2, layer_windows=(7, 7), tied_embeddings=True, norm_eps=1e-5
    ),
    "window 5 above the first layer": toy_of(
        "qwen2", num_layers=3, num_kv_heads=2, qkv_bias=True, layer_windows=(None, 5, 5)
    ),
    "llama3 scaling": toy_of("llama", head_dim=16, num_kv_heads=2, rope_scaling=LLAMA3),
    "linear scaling": toy_of("llama", rope_scaling=RopeScaling(kind="linear", factor=4.0)),
}
# Covers what differs inside attribution: grouped queries, biases, a window in some layers only.
MAIN = ZOO["window 5 above the first layer"].config


def random_params(config: ModelConfig, seed: int = 0) -> dict:
    """Float32 parameters of order one effect: no norm gain is 1, no bias is 0."""
    rng = np.random.default_rng(seed)

    def draw(name, shape):
        if name.endswith("norm"):
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        if name == "embed" or name.endswith("bias"):
            return rng.normal(0, 1 if name == "embed" else 0.3, shape).astype(np.float32)
        return rng.normal(0, config.d_model**-0.5, shape).astype(np.float32)

    shapes = parameter_shapes(config)
    blocks = {name: draw(name, shape) for name, shape in shapes["blocks"].items()}
    ends = {name: draw(name, shape) for name, shape in shapes.items() if name != "blocks"}
    return ends | {"blocks": blocks}


def random_tokens(config: ModelConfig, rows: int, length: int, seed: int = 0) -> np.ndarray:
    """[rows, length] int32 token ids."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, config.vocab_size, (rows, length)).astype(np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """A prompt and the answer tokens that carry loss."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def random_texts(
    config: ModelConfig, lengths=((3, 5), (7, 2), (1, 9)), seed: int = 0
) -> list[Text]:
    """One text for each (prompt length, answer length)."""
    rng = np.random.default_rng(seed)

    def draw(n):
        return tuple(rng.integers(0, config.vocab_size, n).tolist())

    return [Text(prompt=draw(p), answer=draw(a)) for p, a in lengths]


def batch_of(texts, *, length=None, targets=None, garbage=None) -> Batch:
    """Texts padded to `length` tokens and `targets` targets.

    garbage: a generator that fills the padding of tokens, positions and targets; None fills 0.
    """
    length = length or max(len(t.prompt) + len(t.answer) - 1 for t in texts)
    targets = targets or max(len(t.answer) for t in texts)
    rows = len(texts)

    def fill(width, high):
        if garbage is None:
            return np.zeros((rows, width), np.int32)
        return garbage.integers(0, high, (rows, width)).astype(np.int32)

    batch = Batch(
        tokens_BT=fill(length, 50),
        positions_BJ=fill(targets, length),
        targets_BJ=fill(targets, 50),
        weights_BJ=np.zeros((rows, targets), np.float32),
    )
    for row, text in enumerate(texts):
        tokens, counted = text.prompt + text.answer[:-1], len(text.answer)
        batch.tokens_BT[row, : len(tokens)] = tokens
        batch.positions_BJ[row, :counted] = len(text.prompt) - 1 + np.arange(counted)
        batch.targets_BJ[row, :counted] = text.answer
        batch.weights_BJ[row, :counted] = 1 / counted
    return batch


def relative(found, expected) -> float:
    """Frobenius norm of the difference over that of `expected`, in float64."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def torch_model(toy: Toy, params: dict):
    """The same model as a transformers + torch module, float32, eager attention."""
    import torch
    import transformers

    config = toy.config
    names = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling := config.rope_scaling:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            rope |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_context,
            }
        if scaling.kind == "yarn":  # its multiplier is left to transformers
            rope |= {
                "original_max_position_embeddings": scaling.original_context,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
            }
    fields = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope,
        "tie_word_embeddings": config.tied_embeddings,
        "max_position_embeddings": 4096,
        "attn_implementation": "eager",
    }
    if toy.family == "llama":
        assert config.qkv_bias == config.output_bias
        fields |= {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
    elif toy.family == "mistral":
        fields["sliding_window"] = (config.layer_windows or (None,))[0]
    elif config.layer_windows:
        assert config.qkv_bias
        full = sum(window is None for window in config.layer_windows)
        fields |= {
            "use_sliding_window": True,
            "sliding_window": config.layer_windows[-1],
            "max_window_layers": full,
        }
    name = names[toy.family]
    hf_config = getattr(transformers, f"{name}Config")(**fields)
    model = getattr(transformers, f"{name}ForCausalLM")(hf_config).eval()
    state = {
        name: torch.from_numpy(np.ascontiguousarray(leaf))
        for name, leaf in hf_state(config, params).items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) == ({"lm_head.weight"} if config.tied_embeddings else set())
    return model


_BLOCK_NAMES = {
    "attention_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "o_bias": "self_attn.o_proj.bias",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "gate_bias": "mlp.gate_proj.bias",
    "up_bias": "mlp.up_proj.bias",
    "down_bias": "mlp.down_proj.bias",
}
_END_NAMES = {
    "embed": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
}


def hf_state(config: ModelConfig, params: dict) -> dict[str, np.ndarray]:
    """Tensors of a Hugging Face checkpoint by name: every matrix is [out features, in features]."""
    state = {_END_NAMES[name]: leaf for name, leaf in params.items() if name != "blocks"}
    for name, leaf in params["blocks"].items():
        for layer, tensor in enumerate(leaf):
            if name in "qkv":
                tensor = tensor.reshape(-1, config.d_model)
            elif name == "o":
                tensor = tensor.reshape(config.d_model, -1)
            elif name[:2] in ("q_", "k_", "v_"):
                tensor = tensor.reshape(-1)
            state[f"model.layers.{layer}.{_BLOCK_NAMES[name]}"] = tensor
    return state


@functools.cache
def golden_checkpoint(series: str, side: str) -> tuple[ModelConfig, dict]:
    """One of the golden toy checkpoints, read without `converters`."""
    from safetensors.numpy import load_file

    folder = GOLDEN / "checkpoints" / f"toy_{series}_{side}"
    hf = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    window = hf.get("sliding_window")
    config = ModelConfig(
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        d_model=hf["hidden_size"],
        d_ff=hf["intermediate_size"],
        num_heads=hf["num_attention_heads"],
        num_kv_heads=hf["num_key_value_heads"],
        head_dim=hf["hidden_size"] // hf["num_attention_heads"],
        norm_eps=hf["rms_norm_eps"],
        rope_theta=hf["rope_theta"],
        qkv_bias=series == "qwen",
        layer_windows=(window,) * hf["num_hidden_layers"] if window else None,
    )
    shapes = parameter_shapes(config)
    blocks = {
        name: np.stack(
            [
                tensors.pop(f"model.layers.{n}.{_BLOCK_NAMES[name]}")
                for n in range(config.num_layers)
            ]
        ).reshape(shape)
        for name, shape in shapes["blocks"].items()
    }
    params = {name: tensors.pop(_END_NAMES[name]) for name in shapes if name != "blocks"}
    assert not tensors
    return config, params | {"blocks": blocks}


@functools.cache
def golden_texts(series: str, side: str, alpha: float) -> tuple[Text, ...]:
    """The samples that the published program scored, in its order (REFERENCE: selection)."""
    path = GOLDEN / "responses" / series / "math" / "all_correct.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    base = [len(row["base_answer_tokens"]) for row in rows]
    rl = [len(row["rl_answer_tokens"]) for row in rows]
    mean_length = min(sum(base) / len(rows), sum(rl) / len(rows))
    cut = max(int(alpha * mean_length), 1)
    shortest, longest = int(0.5 * mean_length), int(1.5 * mean_length)
    kept = []
    for row, base_length, rl_length in zip(rows, base, rl, strict=True):
        average = (base_length + rl_length) / 2
        same_prompt = len(row["base_prompt_tokens"]) == len(row["rl_prompt_tokens"])
        alike = abs(base_length - rl_length) / average <= 0.5
        if same_prompt and shortest <= average <= longest and alike:
            kept.append(row)
    if len(kept) > 100:
        kept = random.Random(42).sample(kept, 100)
    return tuple(
        Text(
            prompt=tuple(row[f"{side}_prompt_tokens"]),
            answer=tuple(row[f"{side}_answer_tokens"][:cut]),
        )
        for row in kept
    )


def golden_scores(series: str, side: str, alpha: float, precision: str = "float32") -> np.ndarray:
    """`all_scores` [n, W, R] of the published program."""
    path = GOLDEN / "results" / precision / f"results_{series}_math_{side}_cut{alpha}.npz"
    with np.load(path) as arrays:
        return arrays["all_scores"]
