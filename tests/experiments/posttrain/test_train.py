"""Post-training end to end: every algorithm moves what it should, and a killed run loses nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from byte_tokenizer import END, byte_tokenizer

from converters.load import load_checkpoint
from experiments.errors import InputError
from experiments.posttrain import resume, train
from experiments.posttrain.recipe import Recipe
from experiments.posttrain.task import TASKS
from experiments.responses.tokenization import load_tokenizer

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


@pytest.mark.usefixtures("probe_of_24")
def test_factors_are_killed_and_continued_and_trained_on_from_their_folder(tmp_path, monkeypatch):
    """The folder of a killed and continued training is that of a whole one; another training begins
    at its factors."""
    recipe = Recipe(algorithm="sft", seed=2, rounds=4, batch=8, rank=2, alpha=4.0, warmup=1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    save_tree = train.save_tree

    def save_and_die(folder, state):
        save_tree(folder, state)
        raise KeyboardInterrupt

    train.train(recipe, START, whole, checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(train, "save_tree", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train.train(recipe, START, killed, checkpoint_every=2)
    assert not (killed / "model").exists()
    train.train(recipe, START, killed, checkpoint_every=2)
    found, again = (
        safetensors.numpy.load_file(output / "model" / "adapter_model.safetensors")
        for output in (whole, killed)
    )
    assert _equal(found, again)
    assert any(np.any(tensor) for name, tensor in found.items() if "lora_B" in name)

    # A rate of nearly nothing leaves the factors where the second training began.
    still = dataclasses.replace(recipe, rounds=1, learning_rate=1e-30)
    train.train(still, whole / "model", tmp_path / "on", checkpoint_every=1)
    on = safetensors.numpy.load_file(tmp_path / "on" / "model" / "adapter_model.safetensors")
    assert _equal(found, on)
    settings = json.loads((tmp_path / "on" / "model" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(START)
    for change in ({"rank": 4}, {"alpha": 8.0}):
        other = dataclasses.replace(still, **change)
        with pytest.raises(InputError, match="expected r . and lora_alpha ."):
            train.train(other, whole / "model", tmp_path / "other", checkpoint_every=1)
    assert not (tmp_path / "other").exists()


def test_the_settings_of_a_training_before_there_were_factors_are_accepted(tmp_path):
    recipe, task = Recipe(algorithm="sft", seed=0, rounds=1, batch=8), TASKS["arithmetic"]
    settings = resume.settings_of(recipe, START, task)
    resume.claim(tmp_path, settings, START)
    path = tmp_path / "recipe.json"
    saved = json.loads(path.read_text())
    for name in ("rank", "alpha", "rows", "task"):
        del saved[name]
    path.write_text(json.dumps(saved))
    resume.check(tmp_path, settings)
    resume.claim(tmp_path, settings, START)
    assert json.loads(path.read_text()) == saved
    for change in ({"rank": 2}, {"rows": 4}, {"task": "word_problems"}):
        with pytest.raises(InputError, match=f"other settings .{next(iter(change))}."):
            resume.check(tmp_path, settings | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rows": 3}, "rows: expected an even"), ({"rank": -1}, "rank: expected at least 0"),
     ({"alpha": 0.0}, "alpha: expected a positive"), ({"batch": 7}, "batch: expected an even")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**({"algorithm": "sft", "seed": 0, "rounds": 1, "group_size": 1} | change))


def test_saved_model_is_the_trained_parameters(tmp_path):
    config = train.family_config(train.build_tokenizer())
    params = train.init_parameters(config, train.jax.random.key(9))
    train.save_model(tmp_path / "model", config, params, train.build_tokenizer())
    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.config == config
    for path, leaf in train.jax.tree_util.tree_leaves_with_path(params):
        found = loaded.params
        for key in path:
            found = found[key.key]
        np.testing.assert_array_equal(leaf, found)


def test_saved_model_has_the_tokenizer_that_it_was_trained_with(tmp_path):
    tokenizer = byte_tokenizer()
    config = dataclasses.replace(train.family_config(tokenizer), num_layers=1)
    params = train.init_parameters(config, train.jax.random.key(9))
    train.save_model(tmp_path / "model", config, params, tokenizer)
    assert load_tokenizer(tmp_path / "model").get_vocab() == tokenizer.get_vocab()
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    assert settings["eos_token_id"] == END
