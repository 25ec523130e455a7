"""Training of low-rank factors instead of weights (LoRA, arXiv 2106.09685), in the format of peft.

    W' = W + alpha / rank * B A        A [rank, in] begins random, B [out, rank] begins at zero

of every matrix in the blocks; embedding, norms and head stay. The factors of a stacked parameter are
stacked too: A_LrI and B_LOr, with I and O its input and output numbers.
"""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from converters.adapter_config import CONFIG, read_adapter_config
from converters.families import LLAMA, key_of
from converters.hf_config import read_family
from converters.mapping import table
from converters.staging import staged
from eap_jax.config import ModelConfig
from eap_jax.parameters import PROJECTIONS
from experiments.errors import InputError

_WEIGHTS = "adapter_model.safetensors"


def check_names(base: Path) -> None:
    """Refuse a base whose matrices have other names than those that `save_adapter` writes.

    Raises:
      InputError: it does, as where one tensor holds several matrices.
    """
    family = read_family(base)
    for name in PROJECTIONS:
        found, expected = key_of(family, name)[0], key_of(LLAMA, name)[0]
        if found != expected:
            raise InputError(
                f"{base}: expected a model whose matrices are called as Llama's ({expected}), found "
                f"{found}; train all its weights with --rank=0"
            )


def initial_factors(params: dict, rank: int, key: jax.Array) -> dict:
    """Factors that change nothing yet: {name: {"a": [L, rank, I], "b": [L, O, rank]}}, float32.

    Args:
      params: the model's parameters, layers stacked.
      rank: of every product.
      key: of A's random numbers, uniform in +- sqrt(3 / I): their deviation is 1 / sqrt(I), so that A x
        is about as large as the normalised x. Those of peft lie in +- 1 / sqrt(I).
    """
    factors = {}
    for name, part in zip(PROJECTIONS, jax.random.split(key, len(PROJECTIONS)), strict=True):
        layers, *shape = params["blocks"][name].shape
        split = len(PROJECTIONS[name][0])
        outputs, inputs = math.prod(shape[:split]), math.prod(shape[split:])
        limit = math.sqrt(3 / inputs)
        a = jax.random.uniform(part, (layers, rank, inputs), jnp.float32, -limit, limit)
        factors[name] = {"a": a, "b": jnp.zeros((layers, outputs, rank), jnp.float32)}
    return factors


def merged(params: dict, factors: dict, alpha: float) -> dict:
    """The whole parameters with the factors' products added, in the weights' dtype."""
    blocks = dict(params["blocks"])
    for name, pair in factors.items():
        weight, rank = blocks[name], pair["a"].shape[1]
        change = alpha / rank * jnp.einsum("LOr,LrI->LOI", pair["b"], pair["a"])
        blocks[name] = weight + change.reshape(weight.shape).astype(weight.dtype)
    return params | {"blocks": blocks}


def beside(params: dict, factors: dict, alpha: float) -> dict:
    """The parameters of the model with `adapter_rank`: weights as they are, factors beside them."""
    blocks = dict(params["blocks"])
    for name, pair in factors.items():
        outputs = blocks[name].shape[1 : 1 + len(PROJECTIONS[name][0])]
        inputs = blocks[name].shape[1 + len(outputs) :]
        layers, rank, _ = pair["a"].shape
        blocks[f"{name}_a"] = pair["a"].reshape(layers, rank, *inputs)
        blocks[f"{name}_b"] = (alpha / rank * pair["b"]).reshape(layers, *outputs, rank)
    return params | {"blocks": blocks}


def save_adapter(
    directory: Path, config: ModelConfig, factors: dict, *, alpha: float, base: str, dtype: str
) -> None:
    """Write a PEFT folder.

    Args:
      directory: where; appears whole or not at all.
      config: the model's shape.
      factors: as `initial_factors`.
      alpha: see the module.
      base: name of the base in adapter_config.json.
      dtype: of the numbers in the file.
    """
    rank = factors["q"]["a"].shape[1]
    tensors = {}
    for name, (weight, letter, layer) in _places(config).items():
        matrix = np.asarray(factors[weight][letter][layer])
        tensors[name] = np.ascontiguousarray(matrix.astype(jnp.dtype(dtype)))
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [_module(key_of(LLAMA, name)[0]) for name in PROJECTIONS],
        "inference_mode": True,
    }
    with staged(directory) as folder:
        (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
        save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})


def read_factors(directory: Path, config: ModelConfig, rank: int, alpha: float) -> dict:
    """Factors of a folder that `save_adapter` wrote.

    Raises:
      InputError: the folder's adapter is of another kind: other modules, rank or alpha.
      CheckpointError: its settings are broken.
    """
    settings = read_adapter_config(directory)
    if (settings.rank, settings.alpha) != (rank, alpha):
        raise InputError(
            f"{directory / CONFIG}: expected r {rank} and lora_alpha {alpha:g} as the recipe has, "
            f"found {settings.rank} and {settings.alpha:g}"
        )
    tensors = load_file(directory / _WEIGHTS)
    layers: dict[str, dict[str, list]] = {name: {"a": [], "b": []} for name in PROJECTIONS}
    for name, (weight, letter, _) in _places(config).items():
        if name not in tensors:
            raise InputError(
                f"{directory / _WEIGHTS}: expected factors of every matrix in the blocks, found "
                f"no {name}; merge the adapter into its base first"
            )
        layers[weight][letter].append(np.asarray(tensors.pop(name)).astype(np.float32))
    if tensors:
        raise InputError(
            f"{directory / _WEIGHTS}: expected factors of the blocks' matrices alone, found "
            f"{sorted(tensors)[0]}; merge the adapter into its base first"
        )
    return {
        name: {letter: jnp.asarray(np.stack(found)) for letter, found in pair.items()}
        for name, pair in layers.items()
    }


def _places(config: ModelConfig) -> dict[str, tuple[str, str, int]]:
    """Weight, letter and layer of each tensor of a PEFT folder, layers rising."""
    return {
        f"base_model.model.{entry.hf_name.removesuffix('.weight')}.lora_{letter.upper()}.weight": (
            entry.name, letter, entry.layer,
        )
        for entry in table(config)
        if entry.name in PROJECTIONS
        for letter in "ab"
    }  # fmt: skip


def _module(key: str) -> str:
    """Name of the module in the key of its weight: `self_attn.q_proj.weight` -> `q_proj`."""
    return key.removesuffix(".weight").rpartition(".")[2]
