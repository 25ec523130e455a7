"""The kinds of rotary scaling in config.json -> RopeScaling, each key as transformers honours it."""

import math
from typing import Any

from converters.errors import CheckpointError
from converters.families import Family
from converters.hf_values import number, shown, whole
from eap_jax.config import RopeScaling

# Keys of each kind: those that must be there, and those that may be.
_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor"}, set()),
    "yarn": (
        set(),
        {
            "factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
            "truncate",
        },
    ),
    "longrope": ({"short_factor", "long_factor"}, {"factor", "attention_factor"}),
    "dynamic": ({"factor"}, set()),
}  # fmt: skip
_WITH_CONTEXT = ("llama3", "yarn", "longrope")
CONTEXT = "original_max_position_embeddings"
_MOST = "max_position_embeddings"
# Keys beside those of a kind that change nothing: at any value, and at one value.
_HARMLESS = {"rope_theta", "partial_rotary_factor", "rope_type", "type", "finetuned"}
_NEUTRAL = {
    "factor": 1, "attention_factor": 1, "attn_factor": 1, "extrapolation_factor": 1,
    "mscale": 1, "mscale_all_dim": 1, "truncate": True,
}  # fmt: skip
# Zero means the default, as transformers has it.
_MAY_BE_ZERO = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")


def kind_of(values: dict[str, Any], family: Family, name: str) -> str:
    """The kind that an object of settings names; without a name `default`.

    Raises:
      CheckpointError: its two names contradict each other, or the family does not have the kind.
    """
    named = {key: values[key] for key in ("rope_type", "type") if key in values}
    kinds = {}
    for key, kind in named.items():
        kinds[key] = family.rope_names.get(kind, kind) if isinstance(kind, str) else kind
    known = family.rope_kinds or tuple(_KEYS)
    for kind in kinds.values():
        if not isinstance(kind, str) or kind not in known:
            raise CheckpointError(
                f"{name}: expected rope type {', '.join(known)}, found {shown(kind)}"
            )
    if len(set(kinds.values())) > 1:
        both = " and ".join(f"{key} {kind!r}" for key, kind in named.items())
        raise CheckpointError(f"{name}: {both} differ")
    return next(iter(kinds.values()), "default")


def read_scaling(
    values: dict[str, Any], data: dict[str, Any], family: Family, name: str, *, per_layer: bool
) -> RopeScaling | None:
    """The scaling that one object of settings asks for, or None.

    Args:
      values: the object, without keys that are null.
      data: the whole of config.json.
      family: which it is of.
      name: file and place, for messages.
      per_layer: whether the object is for one kind of layers only.

    Raises:
      CheckpointError: as `read_rope`.
    """
    kind = kind_of(values, family, name)
    needed, possible = _KEYS[kind]
    own = {key: values[key] for key in values if key in needed | possible}
    for key in set(values) - needed - possible - _HARMLESS - {CONTEXT}:
        neutral = _NEUTRAL.get(key)
        is_neutral = neutral is not None and type(values[key]) in (type(neutral), float)
        if values[key] is not False and not (is_neutral and values[key] == neutral):
            raise CheckpointError(
                f"{name}: rope type {kind} expects the keys {sorted(needed | possible)}, found "
                f"{key!r} with value {shown(values[key])}"
            )
    if not needed <= set(own):
        raise CheckpointError(
            f"{name}: rope type {kind} expects the keys {sorted(needed)}, found {sorted(own)}"
        )
    _check_values(own, name)
    if per_layer and own.get("truncate") is False:
        raise CheckpointError(f"{name}: truncate: false is not honoured for one kind of layers")
    context = _context(kind, values, data, family, name, per_layer=per_layer)
    try:
        return _of_kind(kind, own, context, data, name)
    except ValueError as error:
        found = str(error)
        raise CheckpointError(found if found.startswith(name) else f"{name}: {found}") from None


def _check_values(values: dict[str, Any], name: str) -> None:
    for key, value in values.items():
        if key == "truncate":
            if not isinstance(value, bool):
                raise CheckpointError(
                    f"{name}: truncate: expected true or false, found {shown(value)}"
                )
        elif key in ("short_factor", "long_factor"):
            if not isinstance(value, list):
                raise CheckpointError(f"{name}: {key}: expected a list, found {shown(value)}")
            for one in value:
                number(one, f"{name}: {key}")
        elif key in _MAY_BE_ZERO and value == 0:
            number(value, f"{name}: {key}", least=0)
        else:
            number(value, f"{name}: {key}")


def _context(kind: str, values, data, family: Family, name: str, *, per_layer: bool) -> int | None:
    """The length that a kind's frequencies are counted in; None for kinds without one."""
    if kind not in (*_WITH_CONTEXT, "dynamic"):
        return None
    most = whole(data, _MOST, name) if data.get(_MOST) is not None else None
    inner = whole(values, CONTEXT, name) if CONTEXT in values else None
    outer, said = None, CONTEXT
    if data.get(CONTEXT) is not None:
        outer = whole(data, CONTEXT, name)
    elif family.original_context is not None:
        outer, said = family.original_context, f"{CONTEXT} (left out beside it)"
    if kind == "dynamic":
        outer, said = most, _MOST
    if inner is not None and outer is not None and inner != outer:
        raise CheckpointError(f"{name}: {CONTEXT} {inner} and {said} {outer} contradict each other")
    found = most if outer is None or per_layer else outer
    found = inner if inner is not None and kind != "dynamic" else found
    if kind == "longrope" and found == 1:
        raise CheckpointError(f"{name}: {CONTEXT}: expected at least 2, found 1")
    if found is None:
        raise CheckpointError(f"{name}: expected {CONTEXT} or {_MOST} for rope type {kind}")
    return found


def _of_kind(kind: str, values, context: int | None, data, name: str) -> RopeScaling | None:
    factor = values.get("factor")
    if kind == "default":
        return None
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
    if factor is None and (kind == "yarn" or multiplier is None):
        if data.get(_MOST) is None:
            raise CheckpointError(f"{name}: expected factor or {_MOST} for rope type {kind}")
        factor = data[_MOST] / context
    if kind == "longrope":
        if multiplier is None:
            multiplier = 1.0
            if factor > 1:
                multiplier = math.sqrt(1 + math.log(factor) / math.log(context))
        return RopeScaling(
            kind=kind, original_context=context, attention_factor=multiplier,
            short_factor=tuple(values["short_factor"]), long_factor=tuple(values["long_factor"]),
        )  # fmt: skip
    if multiplier is None:
        scales = values.get("mscale"), values.get("mscale_all_dim")
        if all(scales):
            multiplier = _mscale(factor, scales[0]) / _mscale(factor, scales[1])
        else:
            multiplier = _mscale(factor, 1.0)
    return RopeScaling(
        kind=kind, factor=factor, original_context=context, attention_factor=multiplier,
        beta_fast=values.get("beta_fast") or 32.0, beta_slow=values.get("beta_slow") or 1.0,
        truncate=values.get("truncate", True),
    )  # fmt: skip


def _mscale(factor: float, scale: float) -> float:
    """Multiplier of attention for a stretch (YaRN, Peng et al. 2023, eq. 22)."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0
