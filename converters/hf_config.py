"""config.json of a Hugging Face checkpoint <-> ModelConfig.

Reads the spellings of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and 5
(`rope_parameters`, `dtype`, `layer_types`). The file is read as it is: transformers' config objects
rename and fill in keys, so that a forgotten key would pass unnoticed. A key that acts on the forward
pass is honoured or refused by name; one that nothing here knows is ignored with a warning (hf_keys).
"""

import warnings
from pathlib import Path
from typing import Any

from converters.adapter_base import base_of
from converters.adapter_config import is_adapter
from converters.adapter_weights import changed_settings
from converters.errors import CheckpointError, CheckpointWarning
from converters.families import FAMILIES, Family
from converters.gguf_config import config_of
from converters.gguf_file import is_gguf
from converters.gguf_header import read_header
from converters.hf_fields import read_fields, write_fields
from converters.hf_keys import unknown_keys
from converters.hf_rope import read_rope, write_rope
from converters.hf_values import shown
from converters.json_file import read_json
from converters.other_families import why_not
from eap_jax.config import ModelConfig

ARCHITECTURES = tuple(FAMILIES)
DTYPES = ("float32", "float16", "bfloat16")
_BY_MODEL_TYPE = {family.model_type: family for family in FAMILIES.values()}
# Far beyond any model; a product of sizes below it can be counted in 64 bits.
_MOST_PARAMETERS = 2**60


def read_config(directory: str | Path) -> ModelConfig:
    """The model of a checkpoint's directory or GGUF file; of an adapter, that of its base.

    Raises:
      CheckpointError: config.json is missing or broken, or holds a key or a value that the model
        cannot honour; the message names it.
    """
    return parse_config(*read_settings(directory))


def read_family(directory: str | Path) -> Family:
    """The family of a checkpoint's directory or GGUF file.

    Raises:
      CheckpointError: config.json is missing or broken, or names none of `ARCHITECTURES`.
    """
    return _family(*read_settings(directory))


def read_settings(directory: str | Path) -> tuple[dict[str, Any], str]:
    """What config.json says of a checkpoint, or would say of a GGUF file or of an adapter merged into
    its base; and the place of it, for messages.

    Raises:
      CheckpointError: a file is missing or broken, or an adapter has no base here.
    """
    if not is_adapter(directory):
        return own_settings(directory)
    data, place = own_settings(base_of(directory))
    return data | changed_settings(directory), place


def own_settings(directory: str | Path) -> tuple[dict[str, Any], str]:
    """As `read_settings`, of the weights alone where an adapter lies beside them."""
    if is_gguf(directory):
        return config_of(read_header(directory)), str(directory)
    path = Path(directory) / "config.json"
    return read_json(path), str(path)


def parse_config(data: dict[str, Any], place: str = "config.json") -> ModelConfig:
    """ModelConfig of a decoded config.json; `place` names it in messages.

    Warns:
      CheckpointWarning: once, with all keys that are not known.

    Raises:
      CheckpointError: see `read_config`.
    """
    family = _family(data, place)
    unknown = unknown_keys(data, family, place)
    stated_dtype(data, place)
    fields = read_fields(data, family, place)
    fields |= read_rope(
        data,
        family,
        head_dim=fields["head_dim"],
        windowed=fields["layer_windows"] is not None,
        place=place,
    )
    try:
        config = ModelConfig(**fields)
    except ValueError as error:
        raise CheckpointError(f"{place}: {error}") from None
    if config.num_parameters > _MOST_PARAMETERS:
        raise CheckpointError(
            f"{place}: expected sizes of a model that can exist, found {config.num_parameters} "
            "weights"
        )
    if unknown:
        names = ", ".join(map(shown, unknown))
        warnings.warn(
            f"{place}: ignored keys that are not known: {names}", CheckpointWarning, stacklevel=2
        )
    return config


def stated_dtype(data: dict[str, Any], place: str) -> str | None:
    """The weights' dtype that config.json states, one of `DTYPES`, or None.

    Raises:
      CheckpointError: another one.
    """
    found = None
    for key in ("torch_dtype", "dtype"):
        value = data.get(key)
        name = value.removeprefix("torch.") if isinstance(value, str) else value
        if name is not None and name not in DTYPES:
            raise CheckpointError(
                f"{place}: {key}: expected one of {', '.join(DTYPES)}, found {shown(value)}"
            )
        found = name or found
    return found


def _family(data: dict[str, Any], place: str) -> Family:
    """By `architectures`, or by `model_type` where that is missing."""
    architectures, model_type = data.get("architectures"), data.get("model_type")
    if architectures is None and isinstance(model_type, str) and model_type in _BY_MODEL_TYPE:
        return _BY_MODEL_TYPE[model_type]
    one = isinstance(architectures, list) and len(architectures) == 1
    found = architectures[0] if one else architectures
    family = FAMILIES.get(found) if one and isinstance(found, str) else None
    if family is None:
        key, value = ("architectures", found)
        if architectures is None and model_type is not None:
            key, value = "model_type", model_type
        reason = why_not(data, found if one else None, set(_BY_MODEL_TYPE))
        raise CheckpointError(
            f"{place}: {key}: expected one of {', '.join(ARCHITECTURES)}, found {shown(value)}: "
            f"{reason}"
        )
    if model_type not in (None, family.model_type):
        raise CheckpointError(
            f"{place}: model_type: expected {family.model_type} as in architectures, "
            f"found {shown(model_type)}"
        )
    return family


def to_hf_config(
    config: ModelConfig,
    *,
    architecture: str = "LlamaForCausalLM",
    dtype: str = "float32",
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """config.json of a model, in the spelling that transformers 4 and 5 both read.

    Args:
      config: the model.
      architecture: one of `ARCHITECTURES`.
      dtype: of the weights, one of `DTYPES`.
      extra: further keys, such as token ids.

    Raises:
      CheckpointError: the architecture cannot express the model.
    """
    family = FAMILIES[architecture]
    data: dict[str, Any] = {"architectures": [architecture], "model_type": family.model_type}
    data |= write_fields(config, family) | write_rope(config, family) | {"torch_dtype": dtype}
    data |= extra or {}
    if parse_config(data, "config.json") != config:
        raise CheckpointError(f"{architecture} cannot express the model {config}")
    return data
