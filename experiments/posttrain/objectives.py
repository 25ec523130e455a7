"""The unified view of post-training: one gradient, in which an algorithm is a coefficient.

    grad J = E_{(q,o)~D} [ 1/|o| sum_t GC(q, o, t) * grad log pi(o_t | q, o_<t) ]

(arXiv 2509.21044, after Shao et al. 2024). `surrogate` turns coefficients into a loss whose gradient
is -grad J; each function below gives the GC of one algorithm. Coefficients are never differentiated.
Axes: B responses, J response tokens.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from eap_jax.config import ModelConfig
from eap_jax.layers import rms_norm
from eap_jax.objective import self_entropy
from eap_jax.places import Places
from eap_jax.transformer import Transformer, unembed


@flax.struct.dataclass
class Responses:
    """A batch of prompts with responses, padded on the right.

    Attributes:
      tokens_BT: int32, prompt, response without its last token, padding.
      positions_BJ: int32, the places whose logits predict the response's tokens; padding is any place.
      targets_BJ: int32, the response's tokens; padding is any token.
      mask_BJ: float32, 1 on response tokens.
      old_BJ: float32 log-probabilities of the tokens when the response was sampled.
      reference_BJ: float32 log-probabilities under the reference model (the start of training).
      advantage_BJ: float32 advantage of each token (GRPO: the same for a whole response).
      return_BJ: float32 target of the value head.
    Algorithms leave what they do not use None.
    """

    tokens_BT: jax.Array
    positions_BJ: jax.Array
    targets_BJ: jax.Array
    mask_BJ: jax.Array
    old_BJ: jax.Array | None = None
    reference_BJ: jax.Array | None = None
    advantage_BJ: jax.Array | None = None
    return_BJ: jax.Array | None = None


def log_probabilities(params: dict, batch: Responses, config: ModelConfig):
    """Log-probability of each response token and entropy of its distribution, float32 [B, J] each."""
    stream_BJD = _streams(params, batch, config)
    logits_BJV = unembed(config, params, stream_BJD).astype(jnp.float32)
    log_p_BJV = jax.nn.log_softmax(logits_BJV, axis=-1)
    entropy_BJ = -jnp.sum(jnp.exp(log_p_BJV) * log_p_BJV, axis=-1)
    return -self_entropy(logits_BJV, batch.targets_BJ), entropy_BJ


def _streams(params: dict, batch: Responses, config: ModelConfig) -> jax.Array:
    """The last stream before each response token, [B, J, D].

    Recomputes each layer in the backward pass: at the tiny family's size moving activations costs
    more than computing them again.
    """
    places = Places.of_texts(config, batch.tokens_BT.shape[1])
    # The trunk alone: it needs no output head, and a critic has none.
    model = Transformer(dataclasses.replace(config, tied_embeddings=True), remat=True)
    variables = {"params": {name: leaf for name, leaf in params.items() if name != "head"}}
    stream_BTD = model.apply(variables, batch.tokens_BT, method=Transformer.embed)
    stream_BTD, _ = model.apply(variables, stream_BTD, places, method=Transformer.run_blocks)
    return jnp.take_along_axis(stream_BTD, batch.positions_BJ[:, :, None], axis=1)


def surrogate(log_p_BJ, coefficient_BJ, mask_BJ, draws: int) -> jax.Array:
    """Scalar whose gradient is -grad J.

    Args:
      log_p_BJ: log-probabilities of the next tokens; the only argument that is differentiated.
      coefficient_BJ: GC of each token.
      mask_BJ: 1 on response tokens.
      draws: number of draws from D in the batch, over which the expectation averages (responses,
        or pairs for DPO).
    """
    coefficient_BJ = jax.lax.stop_gradient(coefficient_BJ) * mask_BJ
    length_B = jnp.maximum(mask_BJ.sum(axis=1), 1)
    return -jnp.sum(jnp.sum(coefficient_BJ * log_p_BJ, axis=1) / length_B) / draws


def sft_coefficient(log_p_BJ, batch: Responses) -> jax.Array:
    """SFT: D is a fixed set of demonstrations, GC = 1."""
    return jnp.ones_like(log_p_BJ)


def clipped_coefficient(log_p_BJ, batch: Responses, clip: float) -> jax.Array:
    """Gradient coefficient of the clipped policy ratio (Schulman et al. 2017).

    GC = ratio * A, with ratio = pi / pi_old, and 0 where the clip is active: the ratio has already
    moved further than `clip` in the direction that the advantage asks for.
    """
    ratio_BJ = jnp.exp(log_p_BJ - batch.old_BJ)
    spent_BJ = jnp.where(batch.advantage_BJ > 0, ratio_BJ > 1 + clip, ratio_BJ < 1 - clip)
    return jnp.where(spent_BJ, 0.0, ratio_BJ * batch.advantage_BJ)


def grpo_coefficient(log_p_BJ, batch: Responses, *, clip: float, kl: float) -> jax.Array:
    """GRPO: D are groups sampled from the policy, GC = clipped advantage + kl (pi_ref / pi - 1)."""
    toward_reference_BJ = jnp.exp(batch.reference_BJ - log_p_BJ) - 1
    return clipped_coefficient(log_p_BJ, batch, clip) + kl * toward_reference_BJ


def ppo_coefficient(log_p_BJ, batch: Responses, *, clip: float) -> jax.Array:
    """PPO: D is sampled from the policy, GC = clipped GAE advantage; the KL is in the reward."""
    return clipped_coefficient(log_p_BJ, batch, clip)


def dpo_coefficient(log_p_BJ, batch: Responses, *, beta: float) -> jax.Array:
    """DPO: D are preference pairs; rows are chosen, rejected, chosen, rejected, ...

    GC = + sigmoid(beta (r_rejected - r_chosen)) on the chosen response and the negative of it on the
    rejected one; r is the log-ratio of policy to reference, summed over the response.
    """
    ratio_B = jnp.sum((log_p_BJ - batch.reference_BJ) * batch.mask_BJ, axis=1)
    chosen, rejected = ratio_B[0::2], ratio_B[1::2]
    weight = jax.nn.sigmoid(beta * (rejected - chosen))
    return jnp.stack([weight, -weight], axis=1).reshape(-1, 1) * jnp.ones_like(log_p_BJ)


def group_advantages(rewards_PG: jax.Array) -> jax.Array:
    """GRPO's advantage: each reward minus its group's mean, over its group's standard deviation.

    Args:
      rewards_PG: rewards of the G responses to each of P prompts.

    Returns:
      [P, G]; 0 in a group whose rewards are all equal, which teaches nothing.
    """
    centred = rewards_PG - rewards_PG.mean(axis=1, keepdims=True)
    deviation = rewards_PG.std(axis=1, keepdims=True)
    return jnp.where(deviation > 0, centred / jnp.where(deviation > 0, deviation, 1.0), 0.0)


def values(critic: dict, batch: Responses, config: ModelConfig) -> jax.Array:
    """The value head's estimate of the final reward before each response token, [B, J] float32.

    Args:
      critic: a parameter tree whose `head` is the value head, [1, D]; its trunk is its own, so that
        fitting values leaves the policy's weights alone.
      batch: texts.
      config: the policy's.
    """
    stream_BJD = _streams(critic, batch, config)
    stream_BJD = rms_norm(
        stream_BJD, critic["final_norm"], config.norm_eps, config.norm_gain_offset
    )
    return jnp.einsum("BJD,VD->BJV", stream_BJD, critic["head"])[..., 0]


def generalised_advantages(rewards_BJ, values_BJ, mask_BJ, *, decay: float):
    """GAE without discount (Schulman et al. 2016): advantages and value targets, [B, J] each.

    A_t = sum_k decay^k delta_{t+k},  delta_t = reward_t + V_{t+1} - V_t, with V = 0 after the end.

    Args:
      rewards_BJ: reward received after each next token.
      values_BJ: estimates before each next token.
      mask_BJ: 1 on response tokens, which are consecutive.
      decay: lambda in [0, 1]; 1 gives return minus value.
    """
    following_BJ = jnp.pad(values_BJ[:, 1:] * mask_BJ[:, 1:], [(0, 0), (0, 1)])
    delta_BJ = (rewards_BJ + following_BJ - values_BJ) * mask_BJ

    def back(advantage_B, step):
        delta_B, mask_B = step
        advantage_B = (delta_B + decay * advantage_B) * mask_B
        return advantage_B, advantage_B

    start_B = jnp.zeros(delta_BJ.shape[0], delta_BJ.dtype)
    _, advantage_JB = jax.lax.scan(back, start_B, (delta_BJ.T, mask_BJ.T), reverse=True)
    return advantage_JB.T, (advantage_JB.T + values_BJ) * mask_BJ


def moments(numbers: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of PPO's advantages, by which they are shifted and scaled; never zero."""
    return float(numbers.mean()), float(np.sqrt(numbers.var() + 1e-8))
