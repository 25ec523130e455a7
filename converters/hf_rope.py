"""Rotary settings of config.json, in the spellings of transformers 4 and 5."""

from typing import Any

from converters.errors import CheckpointError
from eap_jax.config import RopeScaling

_ROPE_KEYS = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    },
}  # fmt: skip


def parse_rope(data: dict[str, Any], place: str) -> tuple[float, RopeScaling | None]:
    """Base of the angles and their scaling.

    Args:
      data: the whole of config.json.
      place: what to call it in a message.

    Raises:
      CheckpointError: a kind of scaling that is not honoured, or keys that contradict each other.
    """
    old, new = data.get("rope_scaling"), data.get("rope_parameters")
    for key, value in (("rope_scaling", old), ("rope_parameters", new)):
        if value is not None and not isinstance(value, dict):
            raise CheckpointError(f"{place}: {key}: expected an object or null, found {value!r}")
    theta = data.get("rope_theta")
    if new is not None:
        if theta is not None and new.get("rope_theta", theta) != theta:
            raise CheckpointError(
                f"{place}: rope_theta {theta} and rope_parameters.rope_theta {new['rope_theta']} "
                "contradict each other"
            )
        theta = new.get("rope_theta", theta)
    parsed_old = _scaling(old, place, "rope_scaling")
    parsed_new = _scaling(new, place, "rope_parameters")
    if old is not None and new is not None and parsed_old != parsed_new:
        raise CheckpointError(f"{place}: rope_scaling and rope_parameters contradict each other")
    return (10000.0 if theta is None else theta), parsed_new if old is None else parsed_old


def _scaling(data: dict[str, Any] | None, place: str, key: str) -> RopeScaling | None:
    if not data:
        return None
    data = dict(data)
    data.pop("rope_theta", None)
    kinds = [data.pop(name) for name in ("rope_type", "type") if name in data]
    if kinds[1:] and kinds[0] != kinds[1]:
        raise CheckpointError(
            f"{place}: {key}: rope_type {kinds[0]!r} and type {kinds[1]!r} differ"
        )
    if data.get("partial_rotary_factor") in (1, 1.0):
        data.pop("partial_rotary_factor")
    kind = kinds[0] if kinds else "default"
    if not isinstance(kind, str) or kind not in _ROPE_KEYS:
        raise CheckpointError(
            f"{place}: {key}: expected rope type default, linear or llama3, found {kind!r}"
        )
    if set(data) != _ROPE_KEYS[kind]:
        raise CheckpointError(
            f"{place}: {key}: rope type {kind} expects the keys {sorted(_ROPE_KEYS[kind])}, "
            f"found {sorted(data)}"
        )
    if kind == "default":
        return None
    for name, value in data.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise CheckpointError(
                f"{place}: {key}: {name}: expected a positive number, found {value!r}"
            )
    try:
        return RopeScaling(
            kind=kind,
            factor=data["factor"],
            low_freq_factor=data.get("low_freq_factor"),
            high_freq_factor=data.get("high_freq_factor"),
            original_context=data.get("original_max_position_embeddings"),
        )
    except ValueError as error:
        raise CheckpointError(f"{place}: {key}: {error}") from None
