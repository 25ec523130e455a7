"""A PEFT LoRA folder and its settings.

adapter_config.json is that of the peft library (peft/tuners/lora/config.py). A setting that acts on the
weights is honoured or refused by name; those of training (dropout, initialisation) are not looked at.
"""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError
from converters.json_file import read_json

CONFIG = "adapter_config.json"
# Settings of other methods that are written into the same file; off where they are empty.
_OTHER_METHODS = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA with a bias of its own",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "megatron_config": "Megatron layers",
    "target_parameters": "LoRA of bare parameters",
    "trainable_token_indices": "trainable tokens",
}
# Initialisations that leave the base's weights as they are; others (PiSSA, OLoRA, CorDA, LoftQ,
# LoRA-GA) subtract from them, and the folder does not hold what.
_KEEPS_BASE = (True, False, None, "gaussian", "eva", "orthogonal", "mica")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Settings of a LoRA adapter.

    Attributes:
      path: of its adapter_config.json.
      rank, alpha: r and lora_alpha.
      ranks, alphas: rank_pattern and alpha_pattern: exceptions by a regular expression of module names.
      rank_stabilised: the scale is alpha / sqrt(r).
      targets, excluded: target_modules and exclude_modules.
      layers, layers_pattern: layers_to_transform and layers_pattern.
      saved: modules_to_save.
      bias: none, all or lora_only.
      keeps_ties: ensure_weight_tying.
    """

    path: Path
    rank: int
    alpha: float
    ranks: dict[str, int]
    alphas: dict[str, float]
    rank_stabilised: bool
    targets: str | list[str]
    excluded: str | list[str]
    layers: list[int] | None
    layers_pattern: list[str]
    saved: list[str]
    bias: str
    keeps_ties: bool

    def rank_of(self, module: str) -> int:
        """Rank of a module's two matrices."""
        return _by_pattern(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What the product of a module's two matrices is multiplied with."""
        rank, alpha = self.rank_of(module), _by_pattern(self.alphas, module, self.alpha)
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank

    def is_target(self, module: str) -> bool:
        """Whether the settings give a module an adapter; peft ignores the tensors of any other."""
        whole = any(re.match(rf"(^|.*\.){saved}($|\..*)", module) for saved in self.saved)
        if whole or _named(self.excluded, module):
            return False
        if self.targets == "all-linear":
            # All but the output head.
            return module.rpartition(".")[2] not in ("lm_head", "embed_tokens")
        if isinstance(self.targets, str):
            return bool(re.fullmatch(self.targets, module))
        if not _named(self.targets, module):
            return False
        if self.layers is None or module in self.targets:
            return True
        patterns = self.layers_pattern or [r"[^.]*"]
        places = (re.match(rf"(?:^|.*?\.){p}\.(\d+)\.", module) for p in patterns)
        return any(place is not None and int(place[1]) in self.layers for place in places)

    def is_saved(self, module: str) -> bool:
        """Whether the adapter replaces a module whole; as peft, by how its name ends (`norm` is
        `input_layernorm` too)."""
        return any(module.endswith(saved) for saved in self.saved)


def is_adapter(path: str | Path) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return (Path(path) / CONFIG).is_file()


def is_beside_base(path: str | Path) -> bool:
    """Whether an adapter lies in the folder of its base, where transformers applies it to that one."""
    return is_adapter(path) and (Path(path) / "config.json").is_file()


def read_adapter_config(folder: str | Path) -> AdapterConfig:
    """Settings of an adapter's folder.

    Raises:
      CheckpointError: the file is broken, or is of another kind than LoRA.
    """
    path = Path(folder) / CONFIG
    data = read_json(path)
    kind = data.get("peft_type")
    if kind != "LORA":
        raise _error(path, "peft_type", "LORA", f"{kind!r}; merge it into its base with peft first")
    for key, method in _OTHER_METHODS.items():
        if data.get(key):
            raise _error(path, key, "none", f"{method}; merge it into its base with peft first")
    start = data.get("init_lora_weights", True)
    if start not in _KEEPS_BASE:
        raise _error(
            path, "init_lora_weights", "one that keeps the base's weights",
            f"{start!r}, which changes them; merge it with peft, or save it there with "
            "path_initial_model_for_weight_conversion",
        )  # fmt: skip
    if (bias := data.get("bias", "none")) not in ("none", "all", "lora_only"):
        raise _error(path, "bias", "none, all or lora_only", repr(bias))
    layers = data.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers
    if not (layers is None or (isinstance(layers, list) and all(type(n) is int for n in layers))):
        raise _error(path, "layers_to_transform", "numbers of layers", repr(layers))
    pattern = data.get("layers_pattern") or []
    config = AdapterConfig(
        path=path,
        rank=_number(path, "r", data.get("r", 8), whole=True),
        alpha=_number(path, "lora_alpha", data.get("lora_alpha", 8)),
        ranks=_pattern(path, data, "rank_pattern", whole=True),
        alphas=_pattern(path, data, "alpha_pattern"),
        rank_stabilised=data.get("use_rslora") is True,
        targets=_names(path, data, "target_modules"),
        excluded=_names(path, data, "exclude_modules"),
        layers=layers or None,
        layers_pattern=[pattern] if isinstance(pattern, str) else pattern,
        saved=_names(path, data, "modules_to_save", text=False),
        bias=bias,
        keeps_ties=data.get("ensure_weight_tying") is True,
    )
    if not config.targets and not config.saved:
        raise _error(path, "target_modules", "names of modules", "none")
    return config


def _by_pattern(patterns: dict[str, Any], module: str, default):
    """The value of the first pattern that a module's name ends with, as peft's get_pattern_key."""
    found = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, default)


def _named(names: str | list[str], module: str) -> bool:
    if isinstance(names, str):
        return bool(names) and bool(re.fullmatch(names, module))
    return any(module == name or module.endswith(f".{name}") for name in names)


def _names(path: Path, data: dict, key: str, *, text: bool = True) -> str | list[str]:
    value = data.get(key) or []
    if isinstance(value, str) and text:
        try:
            re.compile(value)
        except re.error as error:
            raise _error(path, key, "a regular expression", f"{value!r}: {error}") from None
        return value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _error(path, key, "a list of names", repr(value))
    return value


def _pattern(path: Path, data: dict, key: str, *, whole: bool = False) -> dict[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise _error(path, key, "numbers by module name", repr(value))
    for name in value:
        try:
            re.compile(name)
        except re.error as error:
            raise _error(path, key, "regular expressions", f"{name!r}: {error}") from None
    return {name: _number(path, key, number, whole=whole) for name, number in value.items()}


def _number(path: Path, key: str, value: Any, *, whole: bool = False):
    right = type(value) is int if whole else type(value) in (int, float) and math.isfinite(value)
    if not right or (whole and value < 1):
        raise _error(path, key, "a positive whole number" if whole else "a number", repr(value))
    return value


def _error(path: Path, key: str, expected: str, found: str) -> CheckpointError:
    return CheckpointError(f"{path}: {key}: expected {expected}, found {found:.200}")
