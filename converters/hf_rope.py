"""Rotary settings of config.json <-> fields of ModelConfig, in the spellings of transformers 4 and 5.

The old spelling has `rope_theta`, `rope_scaling` and `partial_rotary_factor` beside each other, the
new one all of them inside `rope_parameters`, and where layers differ one such object for each of
`full_attention` and `sliding_attention`.
"""

import math
from typing import Any

from converters.errors import CheckpointError
from converters.families import Family
from eap_jax.config import ModelConfig, RopeScaling

# Keys of each kind: those that must be there, and those that may be.
_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor"}, set()),
    "yarn": (
        {"factor"},
        {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
    ),
    "longrope": ({"short_factor", "long_factor"}, {"factor", "attention_factor"}),
    "dynamic": ({"factor"}, set()),
}  # fmt: skip
_WITH_CONTEXT = ("llama3", "yarn", "longrope")
_CONTEXT = "original_max_position_embeddings"
_LAYERS = ("full_attention", "sliding_attention")


def read_rope(
    data: dict[str, Any], family: Family, *, head_dim: int, windowed: bool, place: str
) -> dict[str, Any]:
    """The rotary fields of `ModelConfig`.

    Args:
      data: the whole of config.json.
      family: which it is of.
      head_dim: size of a head.
      windowed: whether any layer has a window.
      place: what to call the file in a message.

    Raises:
      CheckpointError: a kind of scaling that is not honoured, a number out of range, or keys that
        contradict each other.
    """
    objects = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = data.get(key)
        if value is not None and not isinstance(value, dict):
            raise CheckpointError(f"{place}: {key}: expected an object or null, found {value!r}")
        objects[key] = dict(value or {})
    new, local = objects["rope_parameters"], {}
    if set(new) & set(_LAYERS):
        if family.local_rope is None:
            raise CheckpointError(
                f"{place}: rope_parameters: {family.architecture} has the same for all layers"
            )
        new, local = (dict(new.get(layer) or {}) for layer in _LAYERS)
    thetas = {
        "rope_theta": data.get("rope_theta"),
        "rope_parameters.rope_theta": new.pop("rope_theta", None),
        "rope_scaling.rope_theta": objects["rope_scaling"].pop("rope_theta", None),
    }
    theta = _agreed(thetas, place)
    parts = {
        "partial_rotary_factor": data.get("partial_rotary_factor"),
        "rope_parameters.partial_rotary_factor": new.pop("partial_rotary_factor", None),
        "rope_scaling.partial_rotary_factor": objects["rope_scaling"].pop(
            "partial_rotary_factor", None
        ),
    }
    scalings = [
        _scaling(values, data, family, place, key)
        for key, values in (("rope_scaling", objects["rope_scaling"]), ("rope_parameters", new))
        if values
    ]
    if scalings[1:] and scalings[0] != scalings[1]:
        raise CheckpointError(f"{place}: rope_scaling and rope_parameters contradict each other")
    fields = {
        "rope_theta": family.rope_theta if theta is None else theta,
        "rope_scaling": scalings[0] if scalings else None,
        "rotary_dim": _rotary_dim(_agreed(parts, place), head_dim, family, place),
    }
    if family.local_rope is not None and windowed:
        fields |= _local(fields, local, data, family, place)
    return fields


def write_rope(config: ModelConfig, family: Family) -> dict[str, Any]:
    """The keys of config.json that `read_rope` reads, in the old spelling where it can say them."""
    scaling = config.rope_scaling
    data: dict[str, Any] = {"rope_theta": config.rope_theta, "max_position_embeddings": 4096}
    if config.rotary_dim is not None:
        data["partial_rotary_factor"] = config.rotary_dim / config.head_dim
    data["rope_scaling"] = None if scaling is None else _write_scaling(scaling)
    for each in (scaling, config.local_rope_scaling):
        if each is not None and each.original_context is not None:
            if each.kind == "dynamic":
                data["max_position_embeddings"] = each.original_context
            elif family.original_context is not None:
                data[_CONTEXT] = each.original_context
    if family.local_rope is not None and config.layer_windows is not None:
        del data["rope_theta"]
        local_theta, local_scaling = config.local_rope_theta, config.local_rope_scaling
        if local_theta is None:
            local_theta, local_scaling = config.rope_theta, scaling
        data["rope_parameters"] = {
            layer: {"rope_theta": theta} | (_write_scaling(of_layer) or {"rope_type": "default"})
            for layer, theta, of_layer in zip(
                _LAYERS, (config.rope_theta, local_theta), (scaling, local_scaling), strict=True
            )
        }
        del data["rope_scaling"]
    return data


def _local(fields, local, data, family: Family, place: str) -> dict[str, Any]:
    """Fields of layers with a window; none where they rotate as the others do."""
    rule = family.local_rope
    thetas = {"rope_parameters.sliding_attention.rope_theta": local.pop("rope_theta", None)}
    if rule.key is not None:
        thetas[rule.key] = data.get(rule.key)
    theta = _agreed(thetas, place)
    theta = rule.default if theta is None else theta
    scaling = None
    if local:
        scaling = _scaling(local, data, family, place, "rope_parameters.sliding_attention")
    if (theta, scaling) == (fields["rope_theta"], fields["rope_scaling"]):
        return {}
    return {"local_rope_theta": theta, "local_rope_scaling": scaling}


def _agreed(values: dict[str, Any], place: str) -> float | None:
    """The one number under several keys, or None."""
    given = {key: value for key, value in values.items() if value is not None}
    for key, value in given.items():
        _check_positive(value, f"{place}: {key}")
    if len(set(given.values())) > 1:
        shown = " and ".join(f"{key} {value}" for key, value in given.items())
        raise CheckpointError(f"{place}: {shown} contradict each other")
    return next(iter(given.values()), None)


def _rotary_dim(part: float | None, head_dim: int, family: Family, place: str) -> int | None:
    if part in (None, 1):
        return None
    if not family.partial_rotary:
        raise CheckpointError(
            f"{place}: partial_rotary_factor: expected 1, the only value that this model "
            f"honours, found {part!r}"
        )
    return int(head_dim * part)


def _scaling(
    values: dict[str, Any], data: dict[str, Any], family: Family, place: str, key: str
) -> RopeScaling | None:
    values = dict(values)
    kinds = [values.pop(name) for name in ("rope_type", "type") if name in values]
    if kinds[1:] and kinds[0] != kinds[1]:
        raise CheckpointError(
            f"{place}: {key}: rope_type {kinds[0]!r} and type {kinds[1]!r} differ"
        )
    kind = kinds[0] if kinds else "default"
    kind = family.rope_names.get(kind, kind) if isinstance(kind, str) else kind
    if not isinstance(kind, str) or kind not in _KEYS:
        raise CheckpointError(
            f"{place}: {key}: expected rope type {', '.join(_KEYS)}, found {kind!r}"
        )
    context = values.pop(_CONTEXT, None)
    if context is not None and kind not in _WITH_CONTEXT:
        raise CheckpointError(f"{place}: {key}: rope type {kind} does not honour {_CONTEXT}")
    values = {name: value for name, value in values.items() if value is not None}
    needed, possible = _KEYS[kind]
    if not needed <= set(values) <= needed | possible:
        raise CheckpointError(
            f"{place}: {key}: rope type {kind} expects the keys {sorted(needed)}, "
            f"found {sorted(values)}"
        )
    if kind == "default":
        return None
    for name, value in values.items():
        if name == "truncate":
            if not isinstance(value, bool):
                raise CheckpointError(
                    f"{place}: {key}: truncate: expected true or false, found {value!r}"
                )
            continue
        for number in value if isinstance(value, list) else [value]:
            _check_positive(number, f"{place}: {key}: {name}")
    most = data.get("max_position_embeddings")
    if family.original_context is not None:
        context = data.get(_CONTEXT) or family.original_context
    context = context or most
    if kind in (*_WITH_CONTEXT, "dynamic"):
        if kind == "dynamic":
            context = most
        if context is None:
            raise CheckpointError(f"{place}: {key}: expected {_CONTEXT} beside rope type {kind}")
        _check_positive(context, f"{place}: {key}: {_CONTEXT}")
    try:
        return _of_kind(kind, values, context, most)
    except ValueError as error:
        raise CheckpointError(f"{place}: {key}: {error}") from None


def _of_kind(kind: str, values, context, most) -> RopeScaling:
    factor = values.get("factor")
    if kind == "linear":
        return RopeScaling(kind=kind, factor=factor)
    if kind == "dynamic":
        return RopeScaling(kind=kind, factor=factor, original_context=context)
    if kind == "llama3":
        return RopeScaling(
            kind=kind, factor=factor, original_context=context,
            low_freq_factor=values["low_freq_factor"], high_freq_factor=values["high_freq_factor"],
        )  # fmt: skip
    multiplier = values.get("attention_factor")
    if kind == "longrope":
        stretch = (most or context) / context if factor is None else factor
        if multiplier is None:
            multiplier = 1.0
            if stretch > 1:
                multiplier = math.sqrt(1 + math.log(stretch) / math.log(context))
        return RopeScaling(
            kind=kind, original_context=context, attention_factor=multiplier,
            short_factor=tuple(values["short_factor"]), long_factor=tuple(values["long_factor"]),
        )  # fmt: skip
    if multiplier is None:
        scales = values.get("mscale"), values.get("mscale_all_dim")
        if None in scales:
            multiplier = _mscale(factor, 1.0)
        else:
            multiplier = _mscale(factor, scales[0]) / _mscale(factor, scales[1])
    return RopeScaling(
        kind=kind, factor=factor, original_context=context, attention_factor=multiplier,
        beta_fast=values.get("beta_fast", 32.0), beta_slow=values.get("beta_slow", 1.0),
        truncate=values.get("truncate", True),
    )  # fmt: skip


def _mscale(factor: float, scale: float) -> float:
    """Multiplier of attention for a stretch (YaRN, Peng et al. 2023, eq. 22)."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _check_positive(value, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise CheckpointError(f"{name}: expected a positive number, found {value!r}")


def _write_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    names = {"kind": "rope_type", "original_context": _CONTEXT}
    data = {}
    for name, value in vars(scaling).items():
        if value is None or (name == "original_context" and scaling.kind == "dynamic"):
            continue
        data[names.get(name, name)] = list(value) if isinstance(value, tuple) else value
    return data
