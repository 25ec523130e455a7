"""The families as data: equal budgets, what is registered for studies, what can be shipped."""

import math
from pathlib import Path

import jax
import pytest

from converters.packages import PACKAGES
from eap_jax.config import ModelConfig
from eap_jax.parameters import PROJECTIONS, parameter_shapes
from experiments.posttrain.families import FAMILIES
from experiments.posttrain.low_rank import initial_factors
from experiments.posttrain.task import TASKS
from experiments.study.pairs import DEFAULT_PAIR, PAIRS

SHIPPED = Path(__file__).resolve().parents[3] / "experiments" / "checkpoints"
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
# SmolLM2-135M as published.
SMOLLM2 = ModelConfig(
    vocab_size=49152, num_layers=30, d_model=576, d_ff=1536, num_heads=9, num_kv_heads=3, head_dim=64,
    norm_eps=1e-5, rope_theta=100000.0, tied_embeddings=True,
)  # fmt: skip


@every_family
def test_arms_have_equal_budgets_and_checkpoints_that_fit(family):
    assert [recipe.algorithm for recipe in family.arms.values()] == [
        "grpo", "ppo", "dpo", "online_dpo", "sft",
    ]  # fmt: skip
    assert len({(r.rounds, r.updates, r.batch, r.rank) for r in family.arms.values()}) == 1
    for name, recipe in family.arms.items():
        assert name == f"{family.name}_{recipe.algorithm}"
        assert recipe.algorithm != "online_dpo" or family.every % recipe.pool_rounds == 0
        for number in family.snapshots.get(name, ()):
            assert number % family.every == 0
            assert number < recipe.rounds


@every_family
def test_every_arm_is_a_registered_pair_with_its_start_that_is_asked_as_it_was_trained(family):
    task = TASKS[family.task]
    assert {key for key in PAIRS if key.startswith(f"{family.name}_")} == set(family.arms)
    for name in family.arms:
        pair = PAIRS[name]
        assert (Path(pair.base), Path(pair.rl)) == (SHIPPED / family.start_name, SHIPPED / name)
        assert (pair.prompt, pair.datasets) == (task.prompt, (family.task,))
        assert pair.max_new_tokens > task.max_new_tokens  # a stop token fits behind
    assert DEFAULT_PAIR in FAMILIES["tiny"].arms


@every_family
def test_seeds_of_start_and_arms_differ(family):
    for seed in (0, 3):
        recipes = [family.recipe(name, seed) for name in (family.start_name, *family.arms)]
        assert [recipe.seed for recipe in recipes] == [seed, *[1000 + seed] * 5]
        assert recipes[0].algorithm == "sft"


def test_low_rank_members_are_small_and_name_a_package():
    """5 MB each and 25 MB in all, in bfloat16, with all snapshots."""
    family = FAMILIES["smollm2"]
    assert family.base in PACKAGES
    shapes = parameter_shapes(SMOLLM2)
    params = {
        "blocks": {
            name: jax.ShapeDtypeStruct(shape, "float32")
            for name, shape in shapes["blocks"].items()
            if name in PROJECTIONS
        }
    }
    sizes = []
    for member in (family.start_name, *family.arms):
        rank = family.recipe(member, 0).rank
        factors = jax.eval_shape(lambda p, r=rank: initial_factors(p, r, jax.random.key(0)), params)
        size = sum(2 * math.prod(leaf.shape) for leaf in jax.tree.leaves(factors))
        assert size <= 5e6
        sizes += [size] * (1 + len(family.snapshots.get(member, ())))
    assert sum(sizes) <= 24.8e6  # cards and logs beside


def test_a_low_rank_family_is_shipped_whole_or_not_at_all_and_is_small():
    family = FAMILIES["smollm2"]
    members = (family.start_name, *family.arms)
    there = [SHIPPED / name for name in members if (SHIPPED / name).is_dir()]
    assert len(there) in (0, len(members))
    files = [path for folder in there for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25e6
    for folder in there:
        assert (folder / "adapter_model.safetensors").stat().st_size <= 5e6
        assert f'"{family.base}"' in (folder / "adapter_config.json").read_text()
