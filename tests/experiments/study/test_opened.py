"""A model on the device: answers in the checkpoint's dtype, scores in the numerics', never both."""

import gc
import weakref

import hf_folder
import jax
import ml_dtypes
import pytest
import toys

from eap_jax.parameters import separate_layers
from experiments.study.opened import open_study
from experiments.study.pairs import pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"]


@pytest.fixture
def opened(tmp_path):
    """A pair stored in bfloat16 whose config.json says float32, scored in float32; what was said."""
    params, said = toys.random_params(TOY.config), []
    for side in ("base", "rl"):
        hf_folder.write_toy(tmp_path / side, TOY, params, dtype=ml_dtypes.bfloat16)
    pair = pair_of(str(tmp_path / "base"), str(tmp_path / "rl"))
    study = Study(pair=pair, workdir=tmp_path, datasets=("math",), rules=(Rule(alpha=0.3),))
    return open_study(study, said.append), said


def dtypes(tree) -> set[str]:
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}


def test_answers_keep_the_checkpoints_precision_and_scores_have_the_numerics(opened):
    opened, said = opened
    assert said[-1] == (
        "precision: answers as the checkpoints (base bfloat16, rl bfloat16), scores float32"
    )
    asked = opened.load_to_answer("base").params
    assert dtypes(asked) == {"bfloat16"}
    assert separate_layers(asked) is asked, "cut into layers already"
    first = weakref.ref(asked["blocks"][0]["q"])
    del asked
    scored = opened.load("base").params
    assert dtypes(scored) == {"float32"}
    gc.collect()
    assert first() is None, "two forms of a model in memory"
    assert opened.load("base").params is scored
