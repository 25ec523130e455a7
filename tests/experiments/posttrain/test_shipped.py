"""A low-rank family as it is shipped: rounded once, read by peft, with figures that are found again."""

import dataclasses
import json
import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import scipy.stats

from converters.load import checkpoint_hash, load_checkpoint
from eap_jax.transformer import Transformer
from experiments.errors import InputError
from experiments.posttrain import shipped
from experiments.posttrain.evaluate import evaluate
from experiments.posttrain.families import Family
from experiments.posttrain.family import train_family
from experiments.posttrain.recipe import Recipe
from experiments.posttrain.shipped import publish
from experiments.posttrain.task import TASKS

BASE = Path(__file__).resolve().parents[3] / "experiments" / "checkpoints" / "tiny_start"
RECIPE = Recipe(
    algorithm="sft", seed=0, rounds=4, updates=1, batch=16, rank=2, alpha=4.0, learning_rate=3e-2,
    warmup=1, rows=8,
)  # fmt: skip
ARM, CONTROL = "toy_grpo", "toy_sft"
FAMILY = Family(
    name="toy",
    about="Factors over the tiny start.",
    task="arithmetic",
    base=str(BASE),
    start=dataclasses.replace(RECIPE, rounds=2),
    start_every=2,
    arms={ARM: dataclasses.replace(RECIPE, algorithm="grpo", group_size=4), CONTROL: RECIPE},
    every=2,
    snapshots={ARM: (2,)},
)
MEMBERS = ("toy_start", ARM)

pytestmark = pytest.mark.usefixtures("optimised")


@pytest.fixture(scope="module")
def task():
    """Of few questions."""
    with pytest.MonkeyPatch.context() as patch:
        few = dataclasses.replace(TASKS["arithmetic"], test_questions=24, probe=6)
        patch.setitem(TASKS, "arithmetic", few)
        yield few


@pytest.fixture(scope="module")
def trained(task, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    train_family(FAMILY, output, 5, None, [ARM])
    return output


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    target = tmp_path_factory.mktemp("published")
    publish(FAMILY, trained, target, MEMBERS)
    return target


def tensors(folder):
    return safetensors.numpy.load_file(folder / "adapter_model.safetensors")


def test_members_are_folders_of_rounded_factors_that_record_the_base_by_its_name(
    trained, published
):
    for member in MEMBERS:
        settings = json.loads((published / member / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == str(BASE)
        found, exact = tensors(published / member), tensors(trained / member / "model")
        assert found.keys() == exact.keys()
        for name, matrix in exact.items():
            assert matrix.dtype == np.float32
            assert found[name].dtype.name == "bfloat16"
            np.testing.assert_array_equal(found[name], matrix.astype(found[name].dtype))
        assert {path.name for path in (published / member).iterdir()} - {"snapshots"} == {
            "README.md", "adapter_config.json", "adapter_model.safetensors", "figures.json",
            "log.jsonl",
        }  # fmt: skip


def test_an_arm_begins_with_its_start_as_it_is_shipped(trained, published):
    recipe = json.loads((trained / ARM / "recipe.json").read_text())
    assert recipe["start_sha256"] == checkpoint_hash(published / "toy_start")
    snapshot = tensors(published / ARM / "snapshots" / "00002")
    ends = tensors(published / "toy_start"), tensors(published / ARM)
    for end in ends:
        assert end.keys() == snapshot.keys()
        assert any((end[name] != snapshot[name]).any() for name in end)
    assert [path.name for path in (published / ARM / "snapshots").iterdir()] == ["00002"]
    assert not (published / "toy_start" / "snapshots").exists()


def test_peft_reads_a_member_and_its_snapshot(torch, published):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = pytest.importorskip("peft")
    tokens = np.asarray([[5, 9, 3, 14, 2, 7]])
    for folder in (published / ARM, published / ARM / "snapshots" / "00002"):
        with warnings.catch_warnings():  # transformers', of a name that peft uses
            warnings.simplefilter("ignore")
            model = peft.AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            expected = model.eval()(torch.from_numpy(tokens)).logits.numpy()
        loaded = load_checkpoint(folder, dtype="float32")
        found = Transformer(loaded.config).apply({"params": loaded.params}, tokens).logits
        assert np.abs(np.asarray(found) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_figures_are_measured_on_what_is_shipped(task, published, trained):
    for member in MEMBERS:
        figures = json.loads((published / member / "figures.json").read_text())
        found = evaluate(published / member, task=task)
        assert {name: figures[name] for name in found} == found
        right, count = round(found["accuracy"] * 24), 24
        low = scipy.stats.beta.ppf(0.025, right, count - right + 1) if right else 0
        high = scipy.stats.beta.ppf(0.975, right + 1, count - right) if right < count else 1
        assert found["intervals"]["all"] == pytest.approx([low, high], abs=1e-4)
        assert set(found["intervals"]) == {"all", *found["by_difficulty"]}
        log = [json.loads(x) for x in (trained / member / "log.jsonl").read_text().splitlines()]
        spent = sum(line.get("seconds", 0) for line in log)
        assert figures["seconds"] == pytest.approx(spent, abs=0.06)


def test_the_cards_command_has_the_recipes_settings_and_its_curve_the_logs(published, trained):
    card = (published / ARM / "README.md").read_text()
    command = re.search(r"posttrain.train (.*?)\n\n", card, re.DOTALL)[1].replace("\\\n", " ")
    given = dict(flag[2:].split("=") for flag in shlex.split(command))
    assert given.pop("start") == "experiments/checkpoints/toy_start"
    assert (given.pop("output"), given.pop("checkpoint_every")) == ("DIR", "2")
    saved = json.loads((trained / ARM / "recipe.json").read_text())
    fields = {name: type(saved[name])(given.pop(name)) for name in list(given)}
    recipe = {name: saved[name] for name in Recipe.__dataclass_fields__}
    assert Recipe(**{"rounds": 100} | fields) == Recipe(**recipe)
    log = [json.loads(line) for line in (published / ARM / "log.jsonl").read_text().splitlines()]
    assert [line["round"] for line in log] == [0, 1, 2, 3, 4]
    last = [cell.strip() for cell in card.strip().splitlines()[-1].strip("|").split("|")]
    means = [np.mean([line[name] for line in log[3:]]) for name in ("reward", "kl", "entropy")]
    assert last[0] == "4"
    assert [float(cell) for cell in last[4:]] == pytest.approx(means, abs=6e-4)
    start = (published / "toy_start" / "README.md").read_text()
    assert f"--start={BASE}" in start
    assert start.strip().splitlines()[-1].split("|")[5:7] == ["  ", "  "], "no rewards, no KL"


def test_what_is_not_finished_is_refused_before_anything_is_written(trained, tmp_path):
    with pytest.raises(InputError, match=r"toy_sft: expected a finished training, found none"):
        publish(FAMILY, trained, tmp_path, (*MEMBERS, CONTROL))
    other = dataclasses.replace(FAMILY, snapshots={ARM: (2, 3)})
    with pytest.raises(InputError, match=r"checkpoints/00003: expected a checkpoint to ship"):
        publish(other, trained, tmp_path, MEMBERS)
    assert not list(tmp_path.iterdir())


def test_figures_without_intervals_are_measured_anew(trained, monkeypatch):
    path = trained / ARM / "figures.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in known.items() if k != "intervals"}))
    shipped.finished(FAMILY, trained / ARM)
    assert json.loads(path.read_text()) == known
    monkeypatch.setattr(shipped, "evaluate", None)  # what is there is not measured again
    shipped.finished(FAMILY, trained / ARM)
