"""Keys of config.json <-> fields of ModelConfig, by family; the rotary keys are in hf_rope."""

from typing import Any

from converters.errors import CheckpointError
from converters.families import ACTIVATIONS, Family
from converters.hf_values import LARGEST_HEAD, LARGEST_SIZE, MOST_LAYERS, flag, number, shown, whole
from eap_jax.config import ModelConfig

SIZES = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "num_attention_heads": "num_heads",
}
_ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation_function")


def read_fields(data: dict[str, Any], family: Family, place: str) -> dict[str, Any]:
    """Fields of `ModelConfig` but for the rotary ones.

    Args:
      data: the whole of config.json.
      family: which it is of.
      place: what to call the file in a message.

    Raises:
      CheckpointError: a key that is needed is missing, has a value of another kind, or asks for what
        the family does not honour.
    """
    fields: dict[str, Any] = {}
    for key, name in SIZES.items():
        if key not in data:
            raise CheckpointError(f"{place}: expected the key {key}, found none")
        most = MOST_LAYERS if key == "num_hidden_layers" else LARGEST_SIZE
        fields[name] = whole(data, key, place, most=most)
    kv_heads = data.get("num_key_value_heads", family.kv_heads)
    if kv_heads is not None:
        kv_heads = whole({"num_key_value_heads": kv_heads}, "num_key_value_heads", place)
    epsilon = data.get("rms_norm_eps", family.norm_eps)
    if number(epsilon, f"{place}: rms_norm_eps") > 1:
        raise CheckpointError(f"{place}: rms_norm_eps: expected at most 1, found {shown(epsilon)}")
    bias = _bias(data, "attention_bias", family.attention_bias or family.qkv_bias, family, place)
    qkv_bias = family.qkv_bias or bias
    if flag(data, "qkv_bias", qkv_bias, place) != qkv_bias:
        raise CheckpointError(f"{place}: qkv_bias: {family.architecture} does not honour it")
    fields |= {
        "num_kv_heads": fields["num_heads"] if kv_heads is None else kv_heads,
        "head_dim": _head_dim(data, fields, family, place),
        "norm_eps": epsilon,
        "qkv_bias": qkv_bias,
        "output_bias": bias and family.attention_bias,
        "mlp_bias": _bias(data, "mlp_bias", family.mlp_bias, family, place),
        "tied_embeddings": flag(data, "tie_word_embeddings", family.tied, place),
        "activation": _activation(data, family, place),
        "layer_rotary": _rotated(data, fields["num_layers"], family, place),
    }
    fields["layer_windows"] = _windows(data, family, fields, place)
    for name, setting in family.numbers.items():
        value = data.get(setting.key, setting.default)
        if value is not None:
            fields[name] = setting.read(number(value, f"{place}: {setting.key}"))
    return fields | dict(family.fixed)


def write_fields(config: ModelConfig, family: Family) -> dict[str, Any]:
    """The keys of config.json that `read_fields` reads; what the family cannot say is left out."""
    data = {key: getattr(config, name) for key, name in SIZES.items()}
    data |= {
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        family.activation_key: next(
            name for name, ours in ACTIVATIONS.items() if ours == config.activation
        ),
    }
    if family.attention_bias:
        data["attention_bias"] = config.output_bias
    if family.mlp_bias:
        data["mlp_bias"] = config.mlp_bias
    for name, setting in family.numbers.items():
        value = getattr(config, name)
        if setting.write is not None:
            data[setting.key] = None if value is None else setting.write(value)
    if family.unrotated:
        rotated = config.layer_rotary or (True,) * config.num_layers
        data["no_rope_layers"] = [int(rotates) for rotates in rotated]
    if family.windows is not None:
        data |= _write_windows(config, family)
    return data


def _head_dim(data, fields, family: Family, place: str) -> int:
    head_dim = data.get("head_dim", family.head_dim)
    if head_dim is not None:
        return whole({"head_dim": head_dim}, "head_dim", place, most=LARGEST_HEAD)
    if (
        family.head_dim is not None
    ):  # transformers refuses null there, and nothing says what it means
        raise CheckpointError(f"{place}: head_dim: expected a positive whole number, found None")
    d_model, num_heads = fields["d_model"], fields["num_heads"]
    if d_model % num_heads:
        raise CheckpointError(
            f"{place}: hidden_size {d_model} is no multiple of num_attention_heads {num_heads} "
            "and head_dim is not given"
        )
    return whole({"head_dim": d_model // num_heads}, "head_dim", place, most=LARGEST_HEAD)


def _bias(data, key: str, honoured: bool, family: Family, place: str) -> bool:
    value = flag(data, key, False, place)
    if value and not honoured:
        raise CheckpointError(f"{place}: {key}: {family.architecture} does not honour it")
    return value


def _activation(data, family: Family, place: str) -> str:
    """The activation under the family's key; another key for it may repeat it."""
    own = data.get(family.activation_key)
    names = {family.activation_key: family.activation if own is None else own}
    for key in _ACTIVATION_KEYS:
        if data.get(key) is not None:
            names[key] = data[key]
    for key, name in names.items():
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise CheckpointError(
                f"{place}: {key}: expected one of {', '.join(ACTIVATIONS)}, found {shown(name)}"
            )
        if ACTIVATIONS[name] != ACTIVATIONS[names[family.activation_key]]:
            raise CheckpointError(
                f"{place}: {family.activation_key} {names[family.activation_key]!r} and {key} "
                f"{name!r} contradict each other"
            )
    return ACTIVATIONS[names[family.activation_key]]


def _rotated(data, num_layers: int, family: Family, place: str) -> tuple[bool, ...] | None:
    """Which layers rotate, or None for all."""
    if not family.unrotated:
        return None
    layers = data.get("no_rope_layers")
    if layers is None:
        interval = whole({"no_rope_layer_interval": 4} | data, "no_rope_layer_interval", place)
        layers = [int((layer + 1) % interval != 0) for layer in range(num_layers)]
    known = isinstance(layers, list) and all(type(layer) is int for layer in layers)
    if not known or len(layers) < num_layers or set(layers) - {0, 1}:
        raise CheckpointError(
            f"{place}: no_rope_layers: expected {num_layers} entries, 1 (rotated) or 0, "
            f"found {shown(layers)}"
        )
    rotated = tuple(map(bool, layers[:num_layers]))
    return None if all(rotated) else rotated


def _windows(data, family: Family, fields, place: str) -> tuple[int | None, ...] | None:
    """Each layer's window as transformers decides it, or None if no layer has one."""
    rule, num_layers = family.windows, fields["num_layers"]
    kinds = _layer_types(data, num_layers, place)
    if rule is None:
        asked = flag(data, "use_sliding_window", True, place)
        if asked and data.get("sliding_window"):
            raise CheckpointError(
                f"{place}: sliding_window: {family.architecture} does not honour it, found "
                f"{shown(data['sliding_window'])}"
            )
        size, windowed = None, [False] * num_layers
    else:
        _check_switch(data, family, place)
        used = not rule.switched or flag(data, "use_sliding_window", False, place)
        size = _window_size(data, rule.default, place) if used else None
        windowed = [size is not None] * num_layers
        if rule.above:
            full = whole({"max_window_layers": 28} | data, "max_window_layers", place, least=0)
            windowed = [asked and layer >= full for layer, asked in enumerate(windowed)]
        if rule.period is not None:
            key = rule.period_key or ""
            period = whole({key: rule.period} | data, key, place)
            windowed = [asked and (i + 1) % period != 0 for i, asked in enumerate(windowed)]
        if rule.unrotated:
            rotated = fields["layer_rotary"] or (True,) * num_layers
            windowed = [asked and not r for asked, r in zip(windowed, rotated, strict=True)]
    if kinds is not None:
        asked = [kind == "sliding_attention" for kind in kinds]
        if any(asked) and size is None:
            raise CheckpointError(
                f"{place}: layer_types asks for a window, but none is set or in use"
            )
        if asked != windowed and (rule is None or not rule.typed):
            raise CheckpointError(f"{place}: layer_types: {family.architecture} does not honour it")
        windowed = asked
    return tuple(size if w else None for w in windowed) if any(windowed) else None


def _check_switch(data, family: Family, place: str) -> None:
    """Refuse a switch of windows that transformers does not look at in this family."""
    rule = family.windows
    if rule.switched:
        return
    used = flag(data, "use_sliding_window", True, place)
    if not used and data.get("sliding_window", rule.default) is not None:
        raise CheckpointError(
            f"{place}: use_sliding_window: {family.architecture} does not honour it; "
            "expected sliding_window null where no layer has a window"
        )
    if used and data.get("sliding_window") and data.get("max_window_layers"):
        raise CheckpointError(
            f"{place}: max_window_layers: {family.architecture} does not honour it, found "
            f"{shown(data['max_window_layers'])}"
        )


def _layer_types(data, num_layers: int, place: str) -> list[str] | None:
    kinds = data.get("layer_types")
    known = ("full_attention", "sliding_attention")
    counted = kinds is None or (isinstance(kinds, list) and len(kinds) == num_layers)
    if not counted or any(kind not in known for kind in kinds or ()):
        raise CheckpointError(
            f"{place}: layer_types: expected {num_layers} entries of {known}, found {shown(kinds)}"
        )
    return kinds


def _window_size(data, default: int | None, place: str) -> int | None:
    if data.get("sliding_window", default) is None:
        return None
    return whole({"sliding_window": default} | data, "sliding_window", place)


def _write_windows(config: ModelConfig, family: Family) -> dict[str, Any]:
    rule, windows = family.windows, config.layer_windows or (None,) * config.num_layers
    sizes = set(windows) - {None}
    data: dict[str, Any] = {"sliding_window": max(sizes, default=None)}
    if rule.switched:
        data["use_sliding_window"] = bool(sizes)
    if rule.above:
        data["max_window_layers"] = sum(window is None for window in windows)
    elif rule.typed:
        data["layer_types"] = [
            "full_attention" if window is None else "sliding_attention" for window in windows
        ]
    return data
