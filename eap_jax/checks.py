"""Assertions on what enters the public functions: shapes by axis letters, and kinds of dtype.

They run while a function is traced, so they cost nothing in a compiled program. chex compares, but
its message counts inputs instead of naming them. So each failure is raised as a ValueError that
names the argument, its axes, the shape expected and the shape found.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from eap_jax.config import ModelConfig
from eap_jax.objective import Batch
from eap_jax.parameters import axis_sizes, block_axes, end_axes


def check_array(name: str, array: jax.Array, axes: str, kind: type, **sizes: int) -> None:
    """Assert the axes, their sizes and the kind of dtype of an array.

    Args:
      name: of the argument, for the message.
      array: any object with a shape and a dtype.
      axes: one letter of `axes.AXES` (or a digit) for each axis.
      kind: `jnp.floating` or `jnp.integer`.
      sizes: sizes by letter; letters that are absent may have any size.

    Raises:
      ValueError: the array is not as expected.
    """
    # A digit is its own size.
    expected = tuple(int(c) if c.isdigit() else sizes.get(c) for c in axes)
    shape = getattr(array, "shape", None)
    shown = ", ".join(
        letter if size is None or letter.isdigit() else f"{letter}={size}"
        for letter, size in zip(axes, expected, strict=True)
    )
    try:
        chex.assert_shape(array, expected)
    except AssertionError:
        raise ValueError(f"{name}: expected axes [{shown}], found shape {shape}") from None
    try:
        chex.assert_type(array, kind)
    except AssertionError:
        raise ValueError(f"{name}: expected {kind.__name__} numbers, found {array.dtype}") from None


def check_parameters(params: dict, config: ModelConfig) -> None:
    """Assert that a parameter tree, its layers stacked, has the declared names and shapes."""
    check_named("params", params, {**end_axes(config), "blocks": None}, config)
    blocks = {name: "L" + axes for name, axes in block_axes(config).items()}
    check_named("params['blocks']", params["blocks"], blocks, config)


def check_separate(params: dict, config: ModelConfig) -> None:
    """Assert the same of a tree whose layers are separate (`parameters.separate_layers`)."""
    check_named("params", params, {**end_axes(config), "blocks": None}, config)
    if len(params["blocks"]) != config.num_layers:
        raise ValueError(
            f"params['blocks']: expected {config.num_layers} layers, found {len(params['blocks'])}"
        )
    for layer, block in enumerate(params["blocks"]):
        check_named(f"params['blocks'][{layer}]", block, block_axes(config), config)


def check_named(
    where: str, params: dict, declared: dict[str, str | None], config: ModelConfig
) -> None:
    """Assert names and shapes of one level of a parameter tree.

    Args:
      where: of the tree, for the message.
      params: arrays by name.
      declared: axis letters by name; None: not an array, only its name counts.
      config: the sizes.

    Raises:
      ValueError: a name is missing or unknown, or an array has another shape or no float dtype.
    """
    found, wanted = sorted(params), sorted(declared)
    if found != wanted:
        raise ValueError(f"{where}: expected the names {wanted}, found {found}")
    sizes = axis_sizes(config)
    for name, axes in declared.items():
        if axes is not None:
            check_array(f"{where}[{name!r}]", params[name], axes, jnp.floating, **sizes)


def config_of_losses(config: ModelConfig, width: int, lengths: Sequence[int]) -> ModelConfig:
    """The model as it is for texts of `width` tokens (`ModelConfig.for_length`).

    Raises:
      ValueError: a loss on shorter texts would need other rotary frequencies.
    """
    found = config.for_length(width)
    if any(config.for_length(length) != found for length in lengths):
        raise ValueError(
            f"lengths: the rotary frequencies of texts of more than {config.longest_text} tokens "
            f"depend on their length; expected {width} for every loss, found {tuple(lengths)}"
        )
    return found


def check_losses(batch: Batch, weights_ABJ: Sequence[jax.Array], lengths: Sequence[int]) -> None:
    """Assert that a batch's arrays fit each other, and the losses the batch.

    Args:
      batch: texts and targets; its own weights are not looked at.
      weights_ABJ: weights of the targets in each loss.
      lengths: places that each loss depends on.
    """
    check_array("batch.tokens_BT", batch.tokens_BT, "BT", jnp.integer)
    sizes = {"B": batch.tokens_BT.shape[0]}
    check_array("batch.positions_BJ", batch.positions_BJ, "BJ", jnp.integer, **sizes)
    sizes["J"] = batch.positions_BJ.shape[1]
    check_array("batch.targets_BJ", batch.targets_BJ, "BJ", jnp.integer, **sizes)
    if not weights_ABJ or len(weights_ABJ) != len(lengths):
        raise ValueError(
            "weights_ABJ: expected one array for each of the lengths, at least one, found "
            f"{len(weights_ABJ)} arrays and {len(lengths)} lengths"
        )
    for loss, weights_BJ in enumerate(weights_ABJ):
        check_array(f"weights_ABJ[{loss}]", weights_BJ, "BJ", jnp.floating, **sizes)
    places = batch.tokens_BT.shape[1]
    if not all(1 <= length <= places for length in lengths):
        raise ValueError(f"lengths: expected numbers from 1 to T={places}, found {tuple(lengths)}")
