"""The settings of one post-training run; an algorithm is one of them."""

import dataclasses
import math
from typing import Literal

import optax

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
      rank: of the low-rank factors that are trained (`low_rank`); 0 trains all weights.
      alpha: of the factors; their product is multiplied by alpha / rank.
      rows: responses that go through the model at once; 0: all of a step. Another number changes
        only rounding.
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
    rank: int = 0
    alpha: float = 16.0
    rows: int = 0

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
        for name in ("batch", "rows"):
            if getattr(self, name) % 2:
                raise ValueError(
                    f"{name}: expected an even number (pairs), found {getattr(self, name)}"
                )
        for name in ("rank", "rows"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, found {getattr(self, name)}")

        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha: expected a positive number, found {self.alpha}")

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
