"""Post-training end to end: every algorithm moves what it should, and a killed run loses nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converters.load import load_checkpoint
from experiments.errors import InputError
from experiments.posttrain import train
from experiments.posttrain.recipe import Recipe

REPOSITORY = Path(__file__).resolve().parents[3]
START = REPOSITORY / "experiments" / "checkpoints" / "tiny_start"

pytestmark = pytest.mark.usefixtures("optimised")


def _log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def _weights(output: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(output / "model" / "model.safetensors")


def _equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


@pytest.fixture(scope="module")
def probe_of_24():
    """A small development set: the smoke runs look at the direction, not at the decimals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_PROBE_PROBLEMS", 24)
        yield


@pytest.mark.usefixtures("probe_of_24")
def test_sft_from_random_weights_raises_the_likelihood_of_demonstrations(tmp_path):
    recipe = Recipe(algorithm="sft", seed=0, rounds=12, batch=32, learning_rate=4e-3, warmup=2)
    train.train(recipe, None, tmp_path / "run", checkpoint_every=12)
    log = _log(tmp_path / "run")
    likelihood = [line["log_probability"] for line in log if "log_probability" in line]
    assert likelihood[-1] > likelihood[0] + 1.0
    assert log[0]["accuracy"] < 0.2


@pytest.mark.usefixtures("probe_of_24")
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_online_rl_raises_the_reward_of_the_sft_start(algorithm, tmp_path):
    recipe = Recipe(algorithm=algorithm, seed=1, rounds=8, batch=32, learning_rate=7e-4, warmup=2)
    train.train(recipe, START, tmp_path / "run", checkpoint_every=8)
    log = _log(tmp_path / "run")
    rewards = [line["reward"] for line in log if "reward" in line]
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.08
    assert log[-1]["worked"] > log[0]["worked"]
    assert log[-1]["kl"] > 0


@pytest.mark.usefixtures("probe_of_24")
@pytest.mark.parametrize("algorithm", ["dpo", "online_dpo"])
def test_dpo_raises_the_share_of_worked_answers(algorithm, tmp_path):
    recipe = Recipe(
        algorithm=algorithm, seed=1, rounds=8, batch=32, learning_rate=5e-4, warmup=2, beta=0.3,
        pool_prompts=32, pool_rounds=8,
    )  # fmt: skip
    train.train(recipe, START, tmp_path / "run", checkpoint_every=8)
    log = _log(tmp_path / "run")
    assert log[-1]["worked"] > log[0]["worked"]


@pytest.mark.usefixtures("probe_of_24")
def test_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    weights = {}
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        recipe = Recipe(algorithm="grpo", seed=seed, rounds=2, batch=32)
        train.train(recipe, START, tmp_path / name, checkpoint_every=2)
        weights[name] = _weights(tmp_path / name)
    assert _equal(weights["first"], weights["again"])
    assert not _equal(weights["first"], weights["other"])


def test_killed_training_continues_and_ends_with_the_same_weights(processes, tmp_path):
    def run(output, **settings):
        return processes.run(
            "experiments.posttrain.train", "--algorithm=ppo", "--seed=5", "--rounds=4",
            "--batch=16", "--checkpoint_every=2", f"--start={START}", f"--output={output}",
            **settings,
        )  # fmt: skip

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole).code == 0
    done = run(killed, kill_when=(killed / "checkpoints" / "00002").exists)
    assert done.code == -9
    assert not (killed / "model").exists()
    done = run(killed)
    assert done.code == 0, done
    assert done.stdout[-1] == f"model: {killed / 'model'}"
    assert _equal(_weights(whole), _weights(killed))
    rounds = [line["round"] for line in _log(killed)]
    assert rounds == list(range(5))


@pytest.mark.usefixtures("probe_of_24")
def test_other_settings_in_the_same_directory_are_refused(tmp_path):
    recipe = Recipe(algorithm="sft", seed=0, rounds=1, batch=8)
    train.train(recipe, START, tmp_path / "run", checkpoint_every=1)
    before = _weights(tmp_path / "run")
    with pytest.raises(InputError, match="other settings .seed."):
        train.train(Recipe(algorithm="sft", seed=1, rounds=1, batch=8), START, tmp_path / "run", 1)
    assert _equal(before, _weights(tmp_path / "run"))


def test_rl_without_a_start_and_unaligned_pools_are_refused(tmp_path):
    with pytest.raises(InputError, match="grpo needs a trained model"):
        train.train(Recipe(algorithm="grpo", seed=0, rounds=1), None, tmp_path / "a", 1)
    with pytest.raises(InputError, match="multiple of pool_rounds 10"):
        train.train(Recipe(algorithm="online_dpo", seed=0, rounds=9), START, tmp_path / "b", 3)
    assert not list(tmp_path.iterdir())


def test_saved_model_is_the_trained_parameters(tmp_path):
    config = train.family_config(train.build_tokenizer())
    params = train.init_parameters(config, train.jax.random.key(9))
    train.save_model(tmp_path / "model", config, params)
    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.config == config
    for path, leaf in train.jax.tree_util.tree_leaves_with_path(params):
        found = loaded.params
        for key in path:
            found = found[key.key]
        np.testing.assert_array_equal(leaf, found)
