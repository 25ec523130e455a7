"""Rotary settings of config.json <-> fields of ModelConfig, in the spellings of transformers 4 and 5.

The old spelling has `rope_theta`, `rope_scaling` and `partial_rotary_factor` beside each other, the
new one all of them inside `rope_parameters`, and where layers differ one such object for each of
`full_attention` and `sliding_attention`. A setting is honoured wherever it stands; two places that
say different things are refused. hf_rope_kinds reads the numbers of one kind of scaling.
"""

from typing import Any

from converters.errors import CheckpointError
from converters.families import Family
from converters.hf_rope_kinds import CONTEXT, read_scaling
from converters.hf_values import number, shown
from eap_jax.config import ModelConfig, RopeScaling

_LAYERS = ("full_attention", "sliding_attention")
_PART = "partial_rotary_factor"


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
    places = _objects(data, family, place)
    local = places.pop(f"rope_parameters.{_LAYERS[1]}", {})
    own = {"": data} | {f"{key}.": values for key, values in places.items()}
    theta = _agreed({f"{key}rope_theta": at.get("rope_theta") for key, at in own.items()}, place)
    theta = family.rope_theta if theta is None else theta
    parts = own | {f"rope_parameters.{_LAYERS[1]}.": local}
    part = _agreed({f"{key}{_PART}": at.get(_PART) for key, at in parts.items()}, place)
    scalings = {
        key: read_scaling(values, data, family, f"{place}: {key}", per_layer="." in key)
        for key, values in places.items()
        if set(values) - {"rope_theta", _PART}
    }
    if len(set(scalings.values())) > 1:
        raise CheckpointError(f"{place}: {' and '.join(scalings)} contradict each other")
    fields = {
        "rope_theta": theta,
        "rope_scaling": next(iter(scalings.values()), None),
        "rotary_dim": _rotary_dim(part, head_dim, family, place),
    }
    if family.local_rope is not None and windowed:
        fields |= _local(fields, local, data, family, place)
    for name in ("rope_theta", "local_rope_theta"):
        if not fields.get(name, 2) > 1:
            raise CheckpointError(
                f"{place}: rope_theta: expected more than 1, found {fields[name]}"
            )
    size = fields["rotary_dim"] or head_dim
    scalings = [fields["rope_scaling"], fields.get("local_rope_scaling")]
    if size == 2 and any(each is not None and each.kind == "dynamic" for each in scalings):
        raise CheckpointError(
            f"{place}: rope type dynamic expects more than 2 rotated numbers a head"
        )
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
                data[CONTEXT] = each.original_context
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


def _objects(data, family: Family, place: str) -> dict[str, dict[str, Any]]:
    """Every object of rotary settings by its place, without keys that are null."""
    found = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = data.get(key)
        if value is not None and not isinstance(value, dict):
            raise CheckpointError(
                f"{place}: {key}: expected an object or null, found {shown(value)}"
            )
        found[key] = {name: one for name, one in (value or {}).items() if one is not None}
    new = found["rope_parameters"]
    layers = {layer: new.pop(layer) for layer in _LAYERS if layer in new}
    if set(_LAYERS) & set(found["rope_scaling"]):
        raise CheckpointError(f"{place}: rope_scaling: expected one object for all layers")
    if layers and family.local_rope is None:
        raise CheckpointError(
            f"{place}: rope_parameters: {family.architecture} has the same for all layers"
        )
    for layer, value in layers.items():
        key = f"rope_parameters.{layer}"
        if not isinstance(value, dict):
            raise CheckpointError(
                f"{place}: {key}: expected an object or null, found {shown(value)}"
            )
        found[key] = {name: one for name, one in value.items() if one is not None}
    if family.local_rope is not None and new:
        _check_flat(found.pop("rope_parameters"), data, found, family, place)
    return found


def _check_flat(new, data, found, family: Family, place: str) -> None:
    """Where layers differ, transformers looks at no setting that stands for all of them at once."""
    full = found.get(f"rope_parameters.{_LAYERS[0]}", {})
    read = full.get("rope_theta", data.get("rope_theta", family.rope_theta))
    rest = set(new) - {"rope_theta", "rope_type", "type"}
    kinds = {new[name] for name in ("rope_type", "type") if isinstance(new.get(name), str)}
    if rest or kinds - {"default"} or new.get("rope_theta", read) != read:
        raise CheckpointError(
            f"{place}: rope_parameters: {family.architecture} expects an object for each of "
            f"{', '.join(_LAYERS)}, found {shown(new)}"
        )


def _local(fields, local, data, family: Family, place: str) -> dict[str, Any]:
    """Fields of layers with a window; none where they rotate as the others do."""
    rule = family.local_rope
    key = f"rope_parameters.{_LAYERS[1]}"
    thetas = {f"{key}.rope_theta": local.get("rope_theta")}
    if rule.key is not None:
        thetas[rule.key] = data.get(rule.key)
    theta = _agreed(thetas, place)
    theta = rule.default if theta is None else theta
    scaling = read_scaling(local, data, family, f"{place}: {key}", per_layer=True)
    if (theta, scaling) == (fields["rope_theta"], fields["rope_scaling"]):
        return {}
    return {"local_rope_theta": theta, "local_rope_scaling": scaling}


def _agreed(values: dict[str, Any], place: str) -> float | None:
    """The one number under several keys, or None."""
    given = {key: value for key, value in values.items() if value is not None}
    for key, value in given.items():
        number(value, f"{place}: {key}")
    if len(set(given.values())) > 1:
        shown_all = " and ".join(f"{key} {value}" for key, value in given.items())
        raise CheckpointError(f"{place}: {shown_all} contradict each other")
    return next(iter(given.values()), None)


def _rotary_dim(part: float | None, head_dim: int, family: Family, place: str) -> int | None:
    if part in (None, 1):
        return None
    if not family.partial_rotary:
        raise CheckpointError(
            f"{place}: {_PART}: expected 1, the only value that this model honours, found {part!r}"
        )
    return int(min(head_dim * part, 2 * head_dim))


def _write_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    names = {"kind": "rope_type", "original_context": CONTEXT}
    data = {}
    for name, value in vars(scaling).items():
        if value is None or (name == "original_context" and scaling.kind == "dynamic"):
            continue
        data[names.get(name, name)] = list(value) if isinstance(value, tuple) else value
    return data
