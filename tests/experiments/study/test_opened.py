"""A model on the device: answers in the checkpoint's dtype, scores in the numerics', never both; and
two models that are one are refused."""

import dataclasses
import gc
import json
import shutil
import weakref

import hf_folder
import jax
import ml_dtypes
import numpy as np
import pytest
import toys
from safetensors.numpy import save_file

from converters.adapter_base import given_base
from converters.convert import to_orbax
from converters.errors import CheckpointError
from eap_jax.parameters import separate_layers
from experiments.errors import InputError
from experiments.study import opened as opened_module
from experiments.study.forecast import shape_of
from experiments.study.opened import open_study
from experiments.study.pairs import pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"]


@pytest.fixture
def opened(tmp_path):
    """A pair stored in bfloat16 whose config.json says float32, scored in float32; what was said."""
    said = []
    for seed, side in enumerate(("base", "rl")):
        params = toys.random_params(TOY.config, seed)
        hf_folder.write_toy(tmp_path / side, TOY, params, dtype=ml_dtypes.bfloat16)
    return open_study(study_of(tmp_path / "base", tmp_path / "rl"), said.append), said


def study_of(base, rl) -> Study:
    pair = pair_of(str(base), str(rl))
    return Study(pair=pair, workdir=base.parent, datasets=("math",), rules=(Rule(alpha=0.3),))


def refusal(base, rl) -> str:
    """The error of opening both, before which nothing is said."""
    said = []
    with pytest.raises(InputError) as error:
        open_study(study_of(base, rl), said.append)
    assert said == []
    return str(error.value)


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


def test_answers_have_the_studys_dtype_where_it_states_one(opened, tmp_path):
    """As along a training, whose snapshots are stored in fewer bits than its start."""
    study = dataclasses.replace(opened[0].study, answer_dtype="float32")
    said = []
    wider = open_study(study, said.append)
    assert said[-1] == "precision: answers in float32, scores float32"
    assert set(wider.answer_dtypes.values()) == {"float32"}
    assert dtypes(wider.load_to_answer("rl").params) == {"float32"}


def test_other_vocabularies_are_opened_and_other_depths_are_refused(tmp_path):
    for name, changes in (
        ("one", {}), ("wide", {"vocab_size": 64}), ("deep", {"num_layers": 3}),
    ):  # fmt: skip
        toy = dataclasses.replace(TOY, config=dataclasses.replace(TOY.config, **changes))
        hf_folder.write_toy(tmp_path / name, toy, toys.random_params(toy.config, len(name)))
    found = open_study(study_of(tmp_path / "one", tmp_path / "wide"), lambda line: None)
    assert [found.configs[side].vocab_size for side in ("base", "rl")] == [61, 64]
    assert "num_layers: expected 2 as in" in refusal(tmp_path / "one", tmp_path / "deep")


def test_an_adapters_base_is_that_of_the_study_in_runs_and_plans(tmp_path):
    hf_folder.write_toy(tmp_path / "base", TOY, toys.random_params(TOY.config))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {
        "peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["up_proj"],
        "base_model_name_or_path": None,
    }  # fmt: skip
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    a, b = np.ones((1, TOY.config.d_model), "f4"), np.ones((TOY.config.d_ff, 1), "f4")
    save_file({name.format("A"): a, name.format("B"): b}, adapter / "adapter_model.safetensors")
    study = study_of(tmp_path / "base", adapter)
    with pytest.raises(CheckpointError, match="--base"):
        open_study(study, lambda line: None)
    study, said = dataclasses.replace(study, adapter_base=str(tmp_path / "base")), []
    found = open_study(study, said.append)
    up = {side: found.load(side).params["blocks"]["up"] for side in ("base", "rl")}
    np.testing.assert_allclose(up["rl"][0] - up["base"][0], 1, atol=1e-6)
    assert any("a LoRA adapter is merged into its base" in line for line in said)
    assert given_base(found.checkpoints["rl"]) == tmp_path / "base"
    assert shape_of(study, "rl").config == TOY.config


def test_two_forms_of_one_model_are_refused_as_identical(tmp_path):
    params = toys.random_params(TOY.config)
    hf_folder.write_toy(tmp_path / "one", TOY, params)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    to_orbax(tmp_path / "one", tmp_path / "orbax")
    hf_folder.write_toy(tmp_path / "shards", TOY, params, shards=2, torch_dtype="bfloat16")
    for name in ("one", "copy", "orbax", "shards"):
        message = refusal(tmp_path / "one", tmp_path / name)
        assert "the two models are identical, and nothing is measured" in message
        assert str(tmp_path / name) in message
        assert "tokenizer files" not in message


def test_a_tokenizer_that_differs_is_said_and_another_spelling_of_it_is_not(tmp_path):
    hf_folder.write_toy(tmp_path / "one", TOY, toys.random_params(TOY.config))
    settings = {"bos_token": "<s>", "chat_template": "{{ messages }}"}
    (tmp_path / "one" / "tokenizer_config.json").write_text(json.dumps(settings))
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    other = tmp_path / "other" / "tokenizer_config.json"
    other.write_text(json.dumps(settings, indent=2))
    assert "tokenizer files" not in refusal(tmp_path / "one", tmp_path / "other")
    other.write_text(json.dumps(settings | {"chat_template": "another"}))
    (tmp_path / "other" / "merges.txt").write_text("a b\n")
    message = refusal(tmp_path / "one", tmp_path / "other")
    assert "identical" in message
    assert "only tokenizer files differ (tokenizer_config.json, merges.txt)" in message


def test_a_study_that_does_not_fit_is_opened_after_one_line_that_says_what_would(
    opened, monkeypatch
):
    study, said = opened[0].study, []
    monkeypatch.setattr(opened_module, "usable_on", lambda _: 10**6)
    found = open_study(study, said.append)
    (line,) = [line for line in said if "warning" in line]
    assert line.startswith("warning: the plan does not fit, the run goes on: base: answers need ")
    assert " MB of 1.0; " in line
    assert "would fit" in line
    assert "\n" not in line
    stages = ("answers", "scores", "answers", "scores", "scores")
    assert [found.first_warning(stage) for stage in stages] == [True, True, False, False, False]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Two converted models, base and rl."""
    folder = tmp_path_factory.mktemp("converted")
    for seed, name in enumerate(("base", "rl")):
        hf_folder.write_toy(folder / f"hf {name}", TOY, toys.random_params(TOY.config, seed))
        to_orbax(folder / f"hf {name}", folder / name)
    return folder


def change_config(folder, **changes):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))


@pytest.mark.parametrize("side", ["base", "rl"])
@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: shutil.rmtree(f / "blocks" / "001"), "missing 001"),
        (lambda f: shutil.rmtree(f / "ends" / "head"), "expected tensors"),
        (lambda f: change_config(f, intermediate_size=45), "expected float32"),
        (
            lambda f: max(
                (f / "blocks" / "001").rglob("d/*"), key=lambda path: path.stat().st_size
            ).write_bytes(b""),
            "not a readable Orbax checkpoint",
        ),
    ],
)
def test_a_broken_converted_model_on_either_side_is_refused_before_anything_is_loaded(
    converted, tmp_path, monkeypatch, side, break_it, words
):
    """As a broken Hugging Face folder is, and whether or not the study states a dtype."""
    for name in ("base", "rl"):
        shutil.copytree(converted / name, tmp_path / name)
    break_it(tmp_path / side)
    monkeypatch.setattr(opened_module, "load_checkpoint", lambda *_, **__: pytest.fail("loaded"))
    study = study_of(tmp_path / "base", tmp_path / "rl")
    for stated in (None, "float32"):
        with pytest.raises(CheckpointError, match=words) as error:
            open_study(dataclasses.replace(study, answer_dtype=stated), lambda _: None)
        assert str(tmp_path / side) in str(error.value)
