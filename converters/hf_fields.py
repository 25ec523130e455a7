"""Keys of config.json <-> fields of ModelConfig, by family; the rotary keys are in hf_rope."""

from typing import Any

from converters.errors import CheckpointError
from converters.families import ACTIVATIONS, Family
from eap_jax.config import ModelConfig

SIZES = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "num_attention_heads": "num_heads",
}


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
        fields[name] = whole(data, key, place, least=1)
    kv_heads = data.get("num_key_value_heads", family.kv_heads)
    bias = _bias(data, "attention_bias", family.attention_bias, family, place)
    qkv_bias = flag(data, "qkv_bias", family.qkv_bias or bias, place)
    if qkv_bias != bias and not family.qkv_bias:
        raise CheckpointError(f"{place}: qkv_bias: {family.architecture} does not honour it")
    fields |= {
        "num_kv_heads": fields["num_heads"] if kv_heads is None else kv_heads,
        "head_dim": _head_dim(data, fields, family, place),
        "norm_eps": data.get("rms_norm_eps", family.norm_eps),
        "qkv_bias": qkv_bias,
        "output_bias": bias,
        "mlp_bias": _bias(data, "mlp_bias", family.mlp_bias, family, place),
        "tied_embeddings": flag(data, "tie_word_embeddings", family.tied, place),
        "activation": _activation(data, family, place),
        "layer_rotary": _rotated(data, fields["num_layers"], family, place),
    }
    fields["layer_windows"] = _windows(data, family, fields, place)
    for name, number in family.numbers.items():
        value = data.get(number.key, number.default)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise CheckpointError(
                    f"{place}: {number.key}: expected a positive number, found {value!r}"
                )
            fields[name] = number.read(value)
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
    for name, number in family.numbers.items():
        value = getattr(config, name)
        if number.write is not None:
            data[number.key] = None if value is None else number.write(value)
    if family.unrotated:
        rotated = config.layer_rotary or (True,) * config.num_layers
        data["no_rope_layers"] = [int(rotates) for rotates in rotated]
    if family.windows is not None:
        data |= _write_windows(config, family)
    return data


def flag(data: dict[str, Any], key: str, default: bool, place: str) -> bool:
    """A key that is true or false."""
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointError(f"{place}: {key}: expected true or false, found {value!r}")
    return value


def whole(data: dict[str, Any], key: str, place: str, *, least: int) -> int:
    """A key that is a whole number."""
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = "a positive whole number" if least else "a whole number, 0 or more"
        raise CheckpointError(f"{place}: {key}: expected {kind}, found {value!r}")
    return value


def _head_dim(data, fields, family: Family, place: str) -> int:
    head_dim = data.get("head_dim")
    if head_dim is None:
        head_dim = family.head_dim
    if head_dim is not None:
        return head_dim
    d_model, num_heads = fields["d_model"], fields["num_heads"]
    if d_model % num_heads:
        raise CheckpointError(
            f"{place}: hidden_size {d_model} is no multiple of num_attention_heads {num_heads} "
            "and head_dim is not given"
        )
    return d_model // num_heads


def _bias(data, key: str, honoured: bool, family: Family, place: str) -> bool:
    value = flag(data, key, False, place)
    if value and not honoured:
        raise CheckpointError(f"{place}: {key}: {family.architecture} does not honour it")
    return value


def _activation(data, family: Family, place: str) -> str:
    name = data.get(family.activation_key)
    name = family.activation if name is None else name
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"{place}: {family.activation_key}: expected one of {', '.join(ACTIVATIONS)}, "
            f"found {name!r}"
        )
    return ACTIVATIONS[name]


def _rotated(data, num_layers: int, family: Family, place: str) -> tuple[bool, ...] | None:
    """Which layers rotate, or None for all."""
    if not family.unrotated:
        return None
    layers = data.get("no_rope_layers")
    if layers is None:
        interval = whole(
            {"no_rope_layer_interval": 4} | data, "no_rope_layer_interval", place, least=1
        )
        layers = [int((layer + 1) % interval != 0) for layer in range(num_layers)]
    if not isinstance(layers, list) or len(layers) < num_layers or set(layers) - {0, 1}:
        raise CheckpointError(
            f"{place}: no_rope_layers: expected {num_layers} entries, 1 (rotated) or 0, "
            f"found {layers!r}"
        )
    rotated = tuple(map(bool, layers[:num_layers]))
    return None if all(rotated) else rotated


def _windows(data, family: Family, fields, place: str) -> tuple[int | None, ...] | None:
    """Each layer's window as transformers decides it, or None if no layer has one."""
    rule, num_layers = family.windows, fields["num_layers"]
    kinds = _layer_types(data, num_layers, place)
    if rule is None:
        for key in ("sliding_window", "use_sliding_window"):
            if data.get(key):
                raise CheckpointError(f"{place}: {key}: {family.architecture} does not honour it")
        size, windowed = None, [False] * num_layers
    else:
        used = not rule.switched or flag(data, "use_sliding_window", False, place)
        size = _window_size(data, rule.default, place) if used else None
        windowed = [size is not None] * num_layers
        if rule.above:
            full = whole({"max_window_layers": 28} | data, "max_window_layers", place, least=0)
            windowed = [asked and layer >= full for layer, asked in enumerate(windowed)]
        if rule.period is not None:
            key = rule.period_key or ""
            period = whole({key: rule.period} | data, key, place, least=1)
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


def _layer_types(data, num_layers: int, place: str) -> list[str] | None:
    kinds = data.get("layer_types")
    known = ("full_attention", "sliding_attention")
    counted = kinds is None or (isinstance(kinds, list) and len(kinds) == num_layers)
    if not counted or any(kind not in known for kind in kinds or ()):
        raise CheckpointError(
            f"{place}: layer_types: expected {num_layers} entries of {known}, found {kinds!r}"
        )
    return kinds


def _window_size(data, default: int | None, place: str) -> int | None:
    if data.get("sliding_window", default) is None:
        return None
    return whole({"sliding_window": default} | data, "sliding_window", place, least=1)


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
