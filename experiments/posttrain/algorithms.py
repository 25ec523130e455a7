"""The five algorithms as data: a source of responses and a gradient coefficient each.

`prepare` turns a round's data into minibatches with everything the coefficient needs; `update` is
one optimiser step along the unified gradient. Neither knows the algorithm otherwise.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eap_jax.config import ModelConfig
from experiments.posttrain import objectives, rollouts
from experiments.posttrain.objectives import Responses
from experiments.posttrain.recipe import Recipe
from experiments.posttrain.task import Task
from experiments.posttrain.trained import Trained, beside

# Responses of one optimiser step, in the parts that go through the model one after the other.
Minibatch = list[Responses]


def prepare(
    task: Task, model: Trained, state: dict, reference: dict, data: tuple
) -> list[Minibatch]:
    """A round's minibatches, with the arrays that the algorithm's coefficient needs.

    Args:
      task: whose responses they are.
      model: what is trained.
      state: the state at the beginning of the round (`params`, and `critic` for PPO).
      reference: the trained tree at the start of training.
      data: prompts, responses and rewards from the source.
    """
    prompts, responses, rewards = data
    recipe = model.recipe
    order = np.arange(len(prompts))
    if recipe.algorithm == "grpo":
        # Rows of one group share a minibatch only by chance: the advantage is already fixed.
        order = np.random.default_rng(recipe.seed).permutation(len(prompts))
        groups = jnp.asarray(rewards).reshape(-1, recipe.group_size)
        advantages = np.asarray(objectives.group_advantages(groups)).reshape(-1, 1)
    minibatches = []
    for first in range(0, len(order), recipe.batch):
        parts = []
        for rows in _parts(recipe, order[first : first + recipe.batch], prompts, responses):
            packed = rollouts.pack(
                [prompts[i] for i in rows], [responses[i] for i in rows], task.width_step
            )
            if recipe.algorithm != "sft":
                packed = packed.replace(reference_BJ=model.log_probabilities(reference, packed))
            if recipe.algorithm in ("grpo", "ppo"):
                packed = packed.replace(old_BJ=model.log_probabilities(state["params"], packed))
            if recipe.algorithm == "grpo":
                packed = packed.replace(advantage_BJ=advantages[rows] * packed.mask_BJ)
            if recipe.algorithm == "ppo":
                packed = _with_advantages(
                    packed, rewards[rows], state["critic"], model.frozen, recipe, model.config
                )
            parts.append(packed)
        minibatches.append(parts)
    return _standardised(minibatches) if recipe.algorithm == "ppo" else minibatches


def _parts(recipe: Recipe, rows: np.ndarray, prompts: list, responses: list) -> list[np.ndarray]:
    """The rows of a step, those of like length together; a pair's two stay neighbours."""
    if not recipe.rows or recipe.rows >= len(rows):
        return [rows]
    units = rows.reshape(-1, 2 if recipe.algorithm in ("dpo", "online_dpo") else 1)
    lengths = [max(len(prompts[i]) + len(responses[i]) for i in unit) for unit in units]
    ordered = units[np.argsort(lengths, kind="stable")].ravel()
    return [ordered[i : i + recipe.rows] for i in range(0, len(ordered), recipe.rows)]


@functools.partial(jax.jit, static_argnames=("recipe", "config"))
def _with_advantages(packed: Responses, rewards_B, critic, frozen, recipe, config) -> Responses:
    """PPO: the reward arrives with the last token, the KL penalty with every token."""
    mask_BJ = packed.mask_BJ
    last_B = mask_BJ.shape[1] - 1 - jnp.argmax(mask_BJ[:, ::-1], axis=1)
    rewards_BJ = -recipe.kl * (packed.old_BJ - packed.reference_BJ) * mask_BJ
    rewards_BJ = rewards_BJ.at[jnp.arange(len(last_B)), last_B].add(rewards_B)
    params, config = beside(recipe, config, frozen, critic)
    values_BJ = objectives.values(params, packed, config)
    advantage_BJ, return_BJ = objectives.generalised_advantages(
        rewards_BJ, values_BJ, mask_BJ, decay=recipe.gae_decay
    )
    return packed.replace(advantage_BJ=advantage_BJ, return_BJ=return_BJ)


def _standardised(minibatches: list[Minibatch]) -> list[Minibatch]:
    """PPO's advantages shifted and scaled over all response tokens of the round."""
    parts = [part for minibatch in minibatches for part in minibatch]
    flat = [np.asarray(part.advantage_BJ)[np.asarray(part.mask_BJ) > 0] for part in parts]
    mean, deviation = objectives.moments(np.concatenate(flat))
    return [
        [
            part.replace(advantage_BJ=(part.advantage_BJ - mean) / deviation * part.mask_BJ)
            for part in minibatch
        ]
        for minibatch in minibatches
    ]


def coefficient(recipe: Recipe, log_p_BJ: jax.Array, batch: Responses) -> jax.Array:
    """The gradient coefficient GC of the recipe's algorithm."""
    if recipe.algorithm == "sft":
        return objectives.sft_coefficient(log_p_BJ, batch)
    if recipe.algorithm == "grpo":
        return objectives.grpo_coefficient(log_p_BJ, batch, clip=recipe.clip, kl=recipe.kl)
    if recipe.algorithm == "ppo":
        return objectives.ppo_coefficient(log_p_BJ, batch, clip=recipe.clip)
    return objectives.dpo_coefficient(log_p_BJ, batch, beta=recipe.beta)


def update(state: dict, minibatch: Minibatch, model: Trained) -> tuple[dict, dict]:
    """One optimiser step: (new state, means over response tokens of loss terms for the log).

    The state's arrays are used up.
    """
    recipe, config, frozen = model.recipe, model.config, model.frozen
    gradient = sums = critic_gradient = None
    tokens = sum(float(part.mask_BJ.sum()) for part in minibatch)
    for part in minibatch:
        found = _gradient(recipe, config, frozen, state["params"], part)
        gradient, sums = found if gradient is None else _added((gradient, sums), found)
        if recipe.algorithm == "ppo":
            found = _critic_gradient(recipe, config, frozen, state["critic"], part, tokens)
            critic_gradient = found if critic_gradient is None else _added(critic_gradient, found)
    count = sum(len(part.tokens_BT) for part in minibatch)
    figures = {name: value / tokens for name, value in sums.items()} | {"length": tokens / count}
    figures["gradient_norm"] = optax.tree.norm(gradient)
    state = _step(recipe, state, gradient)
    if recipe.algorithm == "ppo":
        figures["value_loss"], gradient = critic_gradient
        state = _critic_step(recipe, state, gradient)
    return state, figures


@functools.partial(jax.jit, static_argnames=("recipe", "config"))
def _gradient(recipe, config, frozen, trained, batch: Responses):
    """(Gradient of the surrogate, sums over response tokens for the log) of a part of a step."""

    def loss(trained):
        params, shape = beside(recipe, config, frozen, trained)
        log_p_BJ, entropy_BJ = objectives.log_probabilities(params, batch, shape)
        weight_BJ = coefficient(recipe, log_p_BJ, batch)
        loss = objectives.surrogate(log_p_BJ, weight_BJ, batch.mask_BJ, recipe.draws)
        return loss, {
            "log_probability": (log_p_BJ * batch.mask_BJ).sum(),
            "entropy": (entropy_BJ * batch.mask_BJ).sum(),
        }

    (_, sums), gradient = jax.value_and_grad(loss, has_aux=True)(trained)
    return gradient, sums


@functools.partial(jax.jit, static_argnames=("recipe", "config"))
def _critic_gradient(recipe, config, frozen, critic, batch: Responses, tokens: float):
    """(Squared error of the values, its gradient) of a part of a step with so many tokens in all."""

    def loss(critic):
        params, shape = beside(recipe, config, frozen, critic)
        values_BJ = objectives.values(params, batch, shape)
        return (jnp.square(values_BJ - batch.return_BJ) * batch.mask_BJ).sum() / tokens

    return jax.value_and_grad(loss)(critic)


@functools.partial(jax.jit, donate_argnums=0)
def _added(total, more):
    return jax.tree.map(jnp.add, total, more)


@functools.partial(jax.jit, static_argnames="recipe", donate_argnames="state")
def _step(recipe: Recipe, state: dict, gradient: dict) -> dict:
    step, optimiser = recipe.optimiser().update(gradient, state["optimiser"], state["params"])
    return state | {
        "params": optax.apply_updates(state["params"], step),
        "optimiser": optimiser,
    }


@functools.partial(jax.jit, static_argnames="recipe", donate_argnames="state")
def _critic_step(recipe: Recipe, state: dict, gradient: dict) -> dict:
    step, optimiser = recipe.critic_optimiser().update(
        gradient, state["critic_optimiser"], state["critic"]
    )
    critic = optax.apply_updates(state["critic"], step)
    return state | {"critic": critic, "critic_optimiser": optimiser}


def initial_state(recipe: Recipe, config: ModelConfig, trained: dict) -> dict:
    """State before the first round: what is trained, its optimiser and, for PPO, the critic."""
    state = {"params": trained, "optimiser": recipe.optimiser().init(trained)}
    if recipe.algorithm == "ppo":
        # The value head starts at zero, its trunk as a copy of the policy's.
        critic = jax.tree.map(jnp.copy, trained) | {"head": jnp.zeros((1, config.d_model))}
        state |= {"critic": critic, "critic_optimiser": recipe.critic_optimiser().init(critic)}
    # Where the parameters lie, as after each update: else the second update would compile again.
    return jax.device_put(state, jax.tree.leaves(trained)[0].sharding)
