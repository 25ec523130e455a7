"""The output head, a chunk of targets at a time: logits are the largest arrays of many programs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from eap_jax.config import ModelConfig
from eap_jax.objective import Objective
from eap_jax.transformer import unembed

# Logits held at once by the output head unless the caller knows the device's memory: without and
# with remat, 64 and 16 MiB of float32.
HEAD_LOGITS = {False: 2**24, True: 2**22}


def target_losses(
    config: ModelConfig,
    objective: Objective,
    ends: dict,
    read_BJD: jax.Array,
    targets_BJ: jax.Array,
    *,
    most_logits: int,
) -> jax.Array:
    """Losses of the targets, forward only.

    Args:
      config: the model.
      objective: the loss at one position.
      ends: parameters, of which `final_norm` and the output head are read.
      read_BJD: what the head reads at each target's place.
      targets_BJ: the targets.
      most_logits: logits held at once, about.

    Returns:
      [B, J] float32.
    """

    def some(xs):
        read_BJD, targets_BJ = xs
        return objective(unembed(config, ends, read_BJD), targets_BJ)

    most = most_logits // (len(read_BJD) * config.vocab_size)
    return map_targets(some, (read_BJD, targets_BJ), most)


def map_targets(function: Callable, arrays: tuple[jax.Array, ...], most: int):
    """A function of targets, a chunk of them at a time.

    Args:
      function: takes the arrays and gives arrays, all [B, chunk, ...].
      arrays: [B, J, ...] each.
      most: targets of each row in a chunk; at least one is.

    Returns:
      what the function gives for all targets, [B, J, ...].
    """
    num_rows, num_targets = arrays[0].shape[:2]
    num_chunks = -(-num_targets // max(1, most))
    chunk = -(-num_targets // num_chunks)  # of equal size, so that less is padded

    def in_chunks(x_BJ):
        padding = [(0, 0), (0, num_chunks * chunk - num_targets)] + [(0, 0)] * (x_BJ.ndim - 2)
        padded = jnp.pad(x_BJ, padding)
        return jnp.moveaxis(padded.reshape(num_rows, num_chunks, chunk, *x_BJ.shape[2:]), 1, 0)

    def joined(x_CBJ):
        x_BCJ = jnp.moveaxis(x_CBJ, 0, 1)
        return x_BCJ.reshape(num_rows, -1, *x_CBJ.shape[3:])[:, :num_targets]

    return jax.tree.map(joined, jax.lax.map(function, jax.tree.map(in_chunks, arrays)))
