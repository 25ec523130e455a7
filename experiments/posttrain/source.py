"""Each algorithm's data: demonstrations, samples of the policy, or pairs of them."""

import numpy as np

from experiments.posttrain import rollouts
from experiments.posttrain.task import Task
from experiments.posttrain.trained import Trained


class Source:
    """The data source D of one run: `round_data(trained, n)` gives round n's responses.

    Holds no state of its own beyond a cache of the current pool of pairs, which is a function of
    the recipe, the start and (online) the policy at the pool's first round.
    """

    def __init__(self, task: Task, model: Trained, tokenizer, reference: dict):
        self.task, self.model, self.recipe = task, model, model.recipe
        self.tokenizer, self.reference = tokenizer, reference
        self._pool = None

    def round_data(self, policy: dict, round_number: int) -> tuple[list, list, np.ndarray | None]:
        """Prompts, responses and, if they were graded, rewards of one round."""
        recipe = self.recipe
        count = recipe.responses_per_round
        if recipe.algorithm == "sft":
            prompts, responses = rollouts.demonstrations(
                self.task, self.tokenizer, recipe.seed, round_number, count
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
            self.task,
            self.model.whole(policy),
            self.model.config,
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
