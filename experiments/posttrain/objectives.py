"""The unified view of post-training: one gradient, in which an algorithm is a coefficient.

    grad J = E_{(q,o)~D} [ 1/|o| sum_t GC(q, o, t) * grad log pi(o_t | q, o_<t) ]

(arXiv 2509.21044, after Shao et al. 2024). `surrogate` turns coefficients into a loss whose gradient
is -grad J; each function below gives the GC of one algorithm. Coefficients are never differentiated.
Axes: B responses, T positions of the target tokens.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.config import ModelConfig
from eap_jax.layers import rms_norm
from eap_jax.objective import self_entropy
from eap_jax.places import Places
from eap_jax.transformer import Transformer


@flax.struct.dataclass
class Responses:
    """A batch of prompts with responses, padded on the right.

    Attributes:
      tokens_BT: int32, prompt, response and padding; one place longer than the other arrays.
      mask_BT: float32, 1 where the *next* token belongs to the response.
      old_BT: float32 log-probabilities of the next token when the response was sampled.
      reference_BT: float32 log-probabilities under the reference model (the start of training).
      advantage_BT: float32 advantage of the next token (GRPO: the same for a whole response).
      return_BT: float32 target of the value head.
    Algorithms leave what they do not use None.
    """

    tokens_BT: jax.Array
    mask_BT: jax.Array
    old_BT: jax.Array | None = None
    reference_BT: jax.Array | None = None
    advantage_BT: jax.Array | None = None
    return_BT: jax.Array | None = None


def log_probabilities(params: dict, tokens_BT: jax.Array, config: ModelConfig):
    """Log-probability of each next token and entropy of its distribution, float32 [B, T-1] each.

    Recomputes each layer in the backward pass: at the tiny family's size moving activations costs
    more than computing them again.
    """
    model = Transformer(config, remat=True)
    logits_BTV = model.apply({"params": params}, tokens_BT[:, :-1]).logits.astype(jnp.float32)
    log_p_BTV = jax.nn.log_softmax(logits_BTV, axis=-1)
    entropy_BT = -jnp.sum(jnp.exp(log_p_BTV) * log_p_BTV, axis=-1)
    return -self_entropy(logits_BTV, tokens_BT[:, 1:]), entropy_BT


def surrogate(log_p_BT, coefficient_BT, mask_BT, draws: int) -> jax.Array:
    """Scalar whose gradient is -grad J.

    Args:
      log_p_BT: log-probabilities of the next tokens; the only argument that is differentiated.
      coefficient_BT: GC of each token.
      mask_BT: 1 on response tokens.
      draws: number of draws from D in the batch, over which the expectation averages (responses,
        or pairs for DPO).
    """
    coefficient_BT = jax.lax.stop_gradient(coefficient_BT) * mask_BT
    length_B = jnp.maximum(mask_BT.sum(axis=1), 1)
    return -jnp.sum(jnp.sum(coefficient_BT * log_p_BT, axis=1) / length_B) / draws


def sft_coefficient(log_p_BT, batch: Responses) -> jax.Array:
    """SFT: D is a fixed set of demonstrations, GC = 1."""
    return jnp.ones_like(log_p_BT)


def clipped_coefficient(log_p_BT, batch: Responses, clip: float) -> jax.Array:
    """Gradient coefficient of the clipped policy ratio (Schulman et al. 2017).

    GC = ratio * A, with ratio = pi / pi_old, and 0 where the clip is active: the ratio has already
    moved further than `clip` in the direction that the advantage asks for.
    """
    ratio_BT = jnp.exp(log_p_BT - batch.old_BT)
    spent_BT = jnp.where(batch.advantage_BT > 0, ratio_BT > 1 + clip, ratio_BT < 1 - clip)
    return jnp.where(spent_BT, 0.0, ratio_BT * batch.advantage_BT)


def grpo_coefficient(log_p_BT, batch: Responses, *, clip: float, kl: float) -> jax.Array:
    """GRPO: D are groups sampled from the policy, GC = clipped advantage + kl (pi_ref / pi - 1)."""
    toward_reference_BT = jnp.exp(batch.reference_BT - log_p_BT) - 1
    return clipped_coefficient(log_p_BT, batch, clip) + kl * toward_reference_BT


def ppo_coefficient(log_p_BT, batch: Responses, *, clip: float) -> jax.Array:
    """PPO: D is sampled from the policy, GC = clipped GAE advantage; the KL is in the reward."""
    return clipped_coefficient(log_p_BT, batch, clip)


def dpo_coefficient(log_p_BT, batch: Responses, *, beta: float) -> jax.Array:
    """DPO: D are preference pairs; rows are chosen, rejected, chosen, rejected, ...

    GC = + sigmoid(beta (r_rejected - r_chosen)) on the chosen response and the negative of it on the
    rejected one; r is the log-ratio of policy to reference, summed over the response.
    """
    ratio_B = jnp.sum((log_p_BT - batch.reference_BT) * batch.mask_BT, axis=1)
    chosen, rejected = ratio_B[0::2], ratio_B[1::2]
    weight = jax.nn.sigmoid(beta * (rejected - chosen))
    return jnp.stack([weight, -weight], axis=1).reshape(-1, 1) * jnp.ones_like(log_p_BT)


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


def values(critic: dict, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """The value head's estimate of the final reward before each next token, [B, T-1] float32.

    Args:
      critic: a parameter tree whose `head` is the value head, [1, D]; its trunk is its own, so that
        fitting values leaves the policy's weights alone.
      tokens_BT: texts.
      config: the policy's.
    """
    # The trunk alone: a tied model has no output head of its own.
    model = Transformer(dataclasses.replace(config, tied_embeddings=True), remat=True)
    places = Places.of_texts(config, tokens_BT.shape[1] - 1)
    variables = {"params": {name: leaf for name, leaf in critic.items() if name != "head"}}
    stream_BTD = model.apply(variables, tokens_BT[:, :-1], method=Transformer.embed)
    stream_BTD, _ = model.apply(variables, stream_BTD, places, method=Transformer.run_blocks)
    stream_BTD = rms_norm(stream_BTD, critic["final_norm"], config.norm_eps)
    return jnp.einsum("BTD,VD->BTV", stream_BTD, critic["head"])[..., 0]


def generalised_advantages(rewards_BT, values_BT, mask_BT, *, decay: float):
    """GAE without discount (Schulman et al. 2016): advantages and value targets, [B, T] each.

    A_t = sum_k decay^k delta_{t+k},  delta_t = reward_t + V_{t+1} - V_t, with V = 0 after the end.

    Args:
      rewards_BT: reward received after each next token.
      values_BT: estimates before each next token.
      mask_BT: 1 on response tokens, which are consecutive.
      decay: lambda in [0, 1]; 1 gives return minus value.
    """
    following_BT = jnp.pad(values_BT[:, 1:] * mask_BT[:, 1:], [(0, 0), (0, 1)])
    delta_BT = (rewards_BT + following_BT - values_BT) * mask_BT

    def back(advantage_B, step):
        delta_B, mask_B = step
        advantage_B = (delta_B + decay * advantage_B) * mask_B
        return advantage_B, advantage_B

    start_B = jnp.zeros(delta_BT.shape[0], delta_BT.dtype)
    _, advantage_TB = jax.lax.scan(back, start_B, (delta_BT.T, mask_BT.T), reverse=True)
    return advantage_TB.T, (advantage_TB.T + values_BT) * mask_BT


def standardised(advantage_BT, mask_BT) -> jax.Array:
    """Advantages shifted and scaled to mean 0 and deviation 1 over the batch's response tokens."""
    count = mask_BT.sum()
    mean = (advantage_BT * mask_BT).sum() / count
    variance = (jnp.square(advantage_BT - mean) * mask_BT).sum() / count
    return (advantage_BT - mean) * jax.lax.rsqrt(variance + 1e-8) * mask_BT
