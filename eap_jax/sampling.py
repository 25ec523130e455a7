"""How the next token of a text is chosen: greedily, or sampled with a temperature and a nucleus.

The randomness of a row is a function of its key and of the token's position in its own text, so a
sampled answer does not depend on the rows beside it.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
      max_new_tokens: most tokens generated a prompt.
      stop_tokens: ids that end a response; the response includes the one it ends with.
      temperature: 0 is greedy (the first of equally likely tokens); otherwise logits are divided
        by it.
      top_p: sample from the smallest set of tokens whose probability reaches this (nucleus
        sampling, Holtzman et al. 2020); 1 keeps all.

    Raises:
      ValueError: a field is out of range.
    """

    max_new_tokens: int
    stop_tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1, found {self.max_new_tokens}")
        if not self.temperature >= 0:
            raise ValueError(f"temperature: expected at least 0, found {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected a number in (0, 1], found {self.top_p}")


def choose(
    logits_BV: jax.Array, keys_B: jax.Array, position_B: jax.Array, sampling: Sampling
) -> jax.Array:
    """Next token of each row, int32 [B].

    Args:
      logits_BV: any float dtype; computed with in float32.
      keys_B: a PRNG key a row.
      position_B: the new token's position in its text.
      sampling: the rule.
    """
    logits_BV = logits_BV.astype(jnp.float32)
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_p < 1:
        logits_BV = _nucleus(logits_BV, sampling.top_p)
    step_keys_B = jax.vmap(jax.random.fold_in)(keys_B, position_B)
    return jax.vmap(jax.random.categorical)(step_keys_B, logits_BV).astype(jnp.int32)


def stops(tokens_B: jax.Array, sampling: Sampling) -> jax.Array:
    """Which tokens end a response, bool [B]."""
    return jnp.isin(tokens_B, jnp.asarray(sampling.stop_tokens, jnp.int32))


def _nucleus(logits_BV: jax.Array, top_p: float) -> jax.Array:
    """Logits with -inf outside the smallest set of tokens whose probability reaches `top_p`."""
    order_BV = jnp.argsort(logits_BV, axis=-1, descending=True)
    sorted_BV = jnp.take_along_axis(jax.nn.softmax(logits_BV, axis=-1), order_BV, axis=-1)
    kept_BV = jnp.cumsum(sorted_BV, axis=-1) - sorted_BV < top_p
    rows_B1 = jnp.arange(logits_BV.shape[0])[:, None]
    kept_BV = jnp.zeros_like(kept_BV).at[rows_B1, order_BV].set(kept_BV)
    return jnp.where(kept_BV, logits_BV, -jnp.inf)
