"""What is differentiated: a per-position loss on the model's own response, averaged over targets.

Self-entropy (arXiv 2509.21044): the input is the prompt and all but the last of the counted answer
tokens, the targets are the counted answer tokens, and the loss is the mean over targets of
-log softmax(logits)[target].

The self-entropy of a certain answer is flat, whatever the logits are: its softmax is saturated. The
runner-up's lead, a difference of two logits, is not.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Batch:
    """Texts padded on the right, and where their loss is.

    Attributes:
      tokens_BT: int32 token ids; padding is any valid id.
      positions_BJ: int32 positions whose logits predict the targets; padding is any position.
      targets_BJ: int32 token ids to be predicted; padding is any valid id.
      weights_BJ: float32 weight of each target, 1 / (number of targets of the row), 0 for padding.
        A row of padding only has weights 0 everywhere and scores 0.
    """

    tokens_BT: jax.Array
    positions_BJ: jax.Array
    targets_BJ: jax.Array
    weights_BJ: jax.Array


# A per-position objective: logits [..., V] in any float dtype, targets [...] -> loss [...] float32.
Objective = Callable[[jax.Array, jax.Array], jax.Array]


def self_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-log softmax(logits)[target], in nats.

    Args:
      logits: [..., V], any float dtype.
      targets: [...] int32 in [0, V).

    Returns:
      [...] float32.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    # Not by an index: its gradient would be a buffer of zeros with one number in each row.
    tokens = jax.lax.broadcasted_iota(targets.dtype, log_probabilities.shape, logits.ndim - 1)
    return -jnp.sum(jnp.where(tokens == targets[..., None], log_probabilities, 0), axis=-1)


def runner_up_lead(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """How far the best other token stands above the target: below 0 where the target is the first.

    Minus the logit difference, so that, like a loss, it rises as the target becomes less likely.

    Args:
      logits: [..., V], any float dtype, V at least 2.
      targets: [...] int32 in [0, V).

    Returns:
      [...] float32, logits; of several equal best others the gradient is shared.
    """
    logits = logits.astype(jnp.float32)
    tokens = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    is_target = tokens == targets[..., None]
    others = jnp.where(is_target, -jnp.inf, logits)
    return jnp.max(others, axis=-1) - jnp.sum(jnp.where(is_target, logits, 0), axis=-1)
