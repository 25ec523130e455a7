"""The five algorithms as data: a source of responses and a gradient coefficient each.

`prepare` turns a round's data into minibatches with everything the coefficient needs; `update` is
one optimiser step along the unified gradient. Neither knows the algorithm otherwise.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eap_jax.config import ModelConfig
from experiments.posttrain import objectives, rollouts
from experiments.posttrain.objectives import Responses

Algorithm = Literal["sft", "grpo", "ppo", "dpo", "online_dpo"]
ALGORITHMS = ("sft", "grpo", "ppo", "dpo", "online_dpo")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of one training run; together with the start they determine its weights.

    Attributes:
      algorithm: one of `ALGORITHMS`.
      seed: of the data and of the sampling.
      rounds: passes of the loop, each with `updates` optimiser steps on `batch` responses.
      updates, batch: optimiser steps a round, responses a step.
      learning_rate, warmup: peak of AdamW after `warmup` steps; cosine decay to a tenth.
      temperature: of the sampled responses (GRPO, PPO, both DPO).
      group_size: responses a prompt (GRPO, both DPO).
      clip: of the policy ratio (GRPO, PPO).
      kl: weight of the pull to the reference (GRPO in the coefficient, PPO in the reward).
      beta: DPO's scale of the log-ratios.
      gae_decay: PPO's lambda.
      critic_learning_rate: of PPO's value head and its trunk.
      pool_prompts: prompts sampled for one pool of preference pairs.
      pool_rounds: rounds that a pool serves (online DPO); DPO samples one pool for all rounds.
    """

    algorithm: Algorithm
    seed: int
    rounds: int
    updates: int = 2
    batch: int = 128
    learning_rate: float = 1e-4
    warmup: int = 10
    temperature: float = 1.0
    group_size: int = 8
    clip: float = 0.2
    kl: float = 0.02
    beta: float = 0.1
    gae_decay: float = 0.95
    critic_learning_rate: float = 1e-3
    pool_prompts: int = 1024
    pool_rounds: int = 10

    def __post_init__(self):
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm: expected one of {ALGORITHMS}, found {self.algorithm!r}")
        for name in ("rounds", "updates", "batch", "group_size", "pool_prompts", "pool_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.responses_per_round % self.group_size:
            raise ValueError(
                f"group_size: expected a divisor of {self.responses_per_round} responses a round, "
                f"found {self.group_size}"
            )
        if self.batch % 2:
            raise ValueError(f"batch: expected an even number (pairs), found {self.batch}")

    @property
    def responses_per_round(self) -> int:
        """Responses that one round trains on."""
        return self.updates * self.batch

    @property
    def draws(self) -> int:
        """Draws from D in one optimiser step: responses, or pairs of them."""
        return self.batch // 2 if self.algorithm in ("dpo", "online_dpo") else self.batch

    def optimiser(self) -> optax.GradientTransformation:
        """AdamW with clipped gradients, warm-up and cosine decay."""
        return _adamw(self.learning_rate, self.warmup, self.rounds * self.updates)

    def critic_optimiser(self) -> optax.GradientTransformation:
        """The same for PPO's value head."""
        return _adamw(self.critic_learning_rate, self.warmup, self.rounds * self.updates)


def _adamw(peak: float, warmup: int, steps: int) -> optax.GradientTransformation:
    warmup = min(warmup, steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, peak / 10)
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.0)
    )


class Source:
    """The data source D of one run: `round_data(state, n)` gives round n's responses.

    Holds no state of its own beyond a cache of the current pool of pairs, which is a function of
    the recipe, the start and (online) the policy at the pool's first round.
    """

    def __init__(self, recipe: Recipe, config: ModelConfig, tokenizer, reference: dict):
        self.recipe, self.config, self.tokenizer = recipe, config, tokenizer
        self.reference = reference
        self._pool = None

    def round_data(self, policy: dict, round_number: int) -> tuple[list, list, np.ndarray | None]:
        """Prompts, responses and, if they were graded, rewards of one round."""
        recipe = self.recipe
        count = recipe.responses_per_round
        if recipe.algorithm == "sft":
            prompts, responses = rollouts.demonstrations(
                self.tokenizer, recipe.seed, round_number, count
            )
            return prompts, responses, None
        if recipe.algorithm in ("grpo", "ppo"):
            group = recipe.group_size if recipe.algorithm == "grpo" else 1
            sampled = self._sample(policy, round_number, count // group, group)
            return sampled.prompts, sampled.responses, sampled.rewards_B
        prompts, responses = self._pairs(policy, round_number)
        rng = np.random.default_rng((recipe.seed, round_number))
        chosen = rng.choice(len(prompts) // 2, count // 2, replace=len(prompts) < count)
        order = np.stack([2 * chosen, 2 * chosen + 1], axis=1).ravel()
        return [prompts[i] for i in order], [responses[i] for i in order], None

    def needs_pool(self, round_number: int) -> bool:
        """Whether this round begins by sampling preference pairs from the current policy."""
        online = self.recipe.algorithm == "online_dpo"
        return online and round_number % self.recipe.pool_rounds == 0

    def _sample(self, policy, round_number, num_prompts, group_size):
        return rollouts.sample_rollouts(
            policy,
            self.config,
            self.tokenizer,
            seed=self.recipe.seed,
            round_number=round_number,
            num_prompts=num_prompts,
            group_size=group_size,
            temperature=self.recipe.temperature,
        )

    def _pairs(self, policy, round_number):
        if self._pool is None or self.needs_pool(round_number):
            recipe = self.recipe
            sampler = policy if recipe.algorithm == "online_dpo" else self.reference
            number = round_number if recipe.algorithm == "online_dpo" else 0
            sampled = self._sample(sampler, number, recipe.pool_prompts, recipe.group_size)
            self._pool = rollouts.preference_pairs(sampled, recipe.group_size)
            if not self._pool[0]:
                raise ValueError(
                    f"round {round_number}: no prompt has both a right and a wrong response"
                )
        return self._pool


def prepare(recipe, config, state, reference, prompts, responses, rewards) -> list[Responses]:
    """A round's minibatches, with the arrays that the algorithm's coefficient needs.

    Args:
      recipe, config: settings.
      state: parameters at the beginning of the round (`params`, and `critic` for PPO).
      reference: parameters at the start of training.
      prompts, responses: token ids from the source.
      rewards: [responses] or None.
    """
    packed = rollouts.pack(prompts, responses)
    if recipe.algorithm != "sft":
        packed = packed.replace(reference_BT=_log_p(reference, packed.tokens_BT, config))
    if recipe.algorithm in ("grpo", "ppo"):
        packed = packed.replace(old_BT=_log_p(state["params"], packed.tokens_BT, config))
    if recipe.algorithm == "grpo":
        groups = jnp.asarray(rewards).reshape(-1, recipe.group_size)
        advantage_B1 = objectives.group_advantages(groups).reshape(-1, 1)
        packed = packed.replace(advantage_BT=advantage_B1 * packed.mask_BT)
        # Rows of one group share a minibatch only by chance: the advantage is already fixed.
        order = np.random.default_rng(recipe.seed).permutation(len(rewards))
        packed = jax.tree.map(lambda leaf: leaf[order], packed)
    if recipe.algorithm == "ppo":
        packed = _with_advantages(packed, jnp.asarray(rewards), state["critic"], recipe, config)
    split = [slice(i * recipe.batch, (i + 1) * recipe.batch) for i in range(recipe.updates)]
    return [jax.tree.map(lambda leaf, rows=rows: leaf[rows], packed) for rows in split]


@functools.partial(jax.jit, static_argnames="config")
def _log_p(params, tokens_BT, config):
    return objectives.log_probabilities(params, tokens_BT, config)[0]


@functools.partial(jax.jit, static_argnames=("recipe", "config"))
def _with_advantages(packed: Responses, rewards_B, critic, recipe, config) -> Responses:
    """PPO: the reward arrives with the last token, the KL penalty with every token."""
    mask_BT = packed.mask_BT
    last_B = mask_BT.shape[1] - 1 - jnp.argmax(mask_BT[:, ::-1], axis=1)
    rewards_BT = -recipe.kl * (packed.old_BT - packed.reference_BT) * mask_BT
    rewards_BT = rewards_BT.at[jnp.arange(len(last_B)), last_B].add(rewards_B)
    values_BT = objectives.values(critic, packed.tokens_BT, config)
    advantage_BT, return_BT = objectives.generalised_advantages(
        rewards_BT, values_BT, mask_BT, decay=recipe.gae_decay
    )
    return packed.replace(
        advantage_BT=objectives.standardised(advantage_BT, mask_BT), return_BT=return_BT
    )


def coefficient(recipe: Recipe, log_p_BT: jax.Array, batch: Responses) -> jax.Array:
    """The gradient coefficient GC of the recipe's algorithm."""
    if recipe.algorithm == "sft":
        return objectives.sft_coefficient(log_p_BT, batch)
    if recipe.algorithm == "grpo":
        return objectives.grpo_coefficient(log_p_BT, batch, clip=recipe.clip, kl=recipe.kl)
    if recipe.algorithm == "ppo":
        return objectives.ppo_coefficient(log_p_BT, batch, clip=recipe.clip)
    return objectives.dpo_coefficient(log_p_BT, batch, beta=recipe.beta)


@functools.partial(jax.jit, static_argnames=("recipe", "config"), donate_argnames=("state",))
def update(state: dict, batch: Responses, *, recipe: Recipe, config: ModelConfig):
    """One optimiser step: (new state, means over response tokens of loss terms for the log)."""

    def loss(params):
        log_p_BT, entropy_BT = objectives.log_probabilities(params, batch.tokens_BT, config)
        weight_BT = coefficient(recipe, log_p_BT, batch)
        loss = objectives.surrogate(log_p_BT, weight_BT, batch.mask_BT, recipe.draws)
        tokens = batch.mask_BT.sum()
        return loss, {
            "log_probability": (log_p_BT * batch.mask_BT).sum() / tokens,
            "entropy": (entropy_BT * batch.mask_BT).sum() / tokens,
            "length": tokens / batch.mask_BT.shape[0],
        }

    (_, figures), gradient = jax.value_and_grad(loss, has_aux=True)(state["params"])
    figures["gradient_norm"] = optax.tree.norm(gradient)
    step, optimiser = recipe.optimiser().update(gradient, state["optimiser"], state["params"])
    state = state | {
        "params": optax.apply_updates(state["params"], step),
        "optimiser": optimiser,
    }
    if recipe.algorithm == "ppo":
        state, figures["value_loss"] = _fit_critic(state, batch, recipe, config)
    return state, figures


def _fit_critic(state, batch, recipe, config):
    def loss(critic):
        error_BT = objectives.values(critic, batch.tokens_BT, config) - batch.return_BT
        return (jnp.square(error_BT) * batch.mask_BT).sum() / batch.mask_BT.sum()

    value_loss, gradient = jax.value_and_grad(loss)(state["critic"])
    step, optimiser = recipe.critic_optimiser().update(
        gradient, state["critic_optimiser"], state["critic"]
    )
    critic = optax.apply_updates(state["critic"], step)
    return state | {"critic": critic, "critic_optimiser": optimiser}, value_loss


def initial_state(recipe: Recipe, config: ModelConfig, params: dict) -> dict:
    """State before the first round: parameters, optimiser and, for PPO, the critic."""
    state = {"params": params, "optimiser": recipe.optimiser().init(params)}
    if recipe.algorithm == "ppo":
        # The value head starts at zero, its trunk as a copy of the policy's.
        critic = jax.tree.map(jnp.copy, params) | {"head": jnp.zeros((1, config.d_model))}
        state |= {"critic": critic, "critic_optimiser": recipe.critic_optimiser().init(critic)}
    # Where the parameters lie, as after each update: else the second update would compile again.
    return jax.device_put(state, jax.tree.leaves(params)[0].sharding)
