"""A folder that brings code of its own (`auto_map`): it is never run and nothing is asked; the model is
read where its family is known, else refused in one line."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from converters.convert import to_hf, to_orbax
from converters.errors import CheckpointError
from converters.load import load_checkpoint
from experiments import api
from experiments.errors import InputError
from experiments.grid import run_grid
from experiments.responses.tokenization import load_tokenizer
from experiments.study.pairs import PAIRS, pair_of
from experiments.study.rule import Rule
from experiments.study.settings import QuestionSource, Study

CHECKPOINTS = Path(__file__).resolve().parents[2] / "experiments" / "checkpoints"
ASKED = ("Question: How many books?", " 7 + 4 = 11.")
MODEL = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
TOKENIZERS = {
    "one": {"AutoTokenizer": "own.Tokenizer"},
    "slow": {"AutoTokenizer": ["own.Tokenizer", None]},
    "fast": {"AutoTokenizer": [None, "own.Tokenizer"]},
    "short": {"AutoTokenizer": ["own.Tokenizer"]},
    "list": ["own.Tokenizer", None],
    "elsewhere": {"AutoTokenizer": ["other/code--own.Tokenizer", None]},
}
FOREIGN = {"architectures": ["OwnForCausalLM"], "model_type": "own"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes copies of a checkpoint with changed settings, beside which code of its own lies; whoever is
    asked answers yes, and the code's running, or a question, fails the test."""
    ran, asked = tmp_path / "ran", []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))

    def make(name: str, config=None, tokenizer=None, source: str = "tiny_start") -> Path:
        made = Path(shutil.copytree(CHECKPOINTS / source, tmp_path / name))
        code = f"open({str(ran)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n"
        (made / "own.py").write_text(f"{code}class Tokenizer: pass\n")
        for file, changes in (("config.json", config), ("tokenizer_config.json", tokenizer)):
            settings = json.loads((made / file).read_text()) | (changes or {})
            settings = {key: value for key, value in settings.items() if value is not None}
            (made / file).write_text(json.dumps(settings))
        return made

    yield make
    assert asked == []
    assert not ran.exists()


def study_of(base: Path, rl: Path) -> Study:
    pair = dataclasses.replace(pair_of(str(base), str(rl)), prompt=PAIRS["tiny_grpo"].prompt)
    return Study(
        pair=pair, workdir=base.parent / "runs", datasets=("arithmetic",),
        rules=(Rule(alpha=0.3),), fidelity="off", questions=QuestionSource(limit=4),
    )  # fmt: skip


def everywhere(path: Path):
    """What convert, run and the library say of a folder that they refuse."""
    rl = CHECKPOINTS / "tiny_grpo"
    ((_, said),) = run_grid([study_of(path, rl)], lambda _: None).failures
    yield said
    for attempt in (lambda: to_orbax(path, path.parent / "out"), lambda: api.load(path)):
        with pytest.raises(CheckpointError) as error:
            attempt()
        yield str(error.value)
    assert not (path.parent / "out").exists()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (FOREIGN, "its architecture is not known"),
        (FOREIGN | {"model_type": None}, "its architecture is not known"),
        (FOREIGN | {"model_type": "llama"}, "its architecture is not known"),
        ({"architectures": None, "model_type": None}, "no architecture is named"),
        (FOREIGN | {"model_type": "deepseek_v3"}, "its MLPs are mixtures of experts"),
    ],
)
def test_a_model_that_only_its_own_code_computes_is_refused_everywhere(folder, config, reason):
    path = folder("model", config | {"auto_map": MODEL}, {"auto_map": TOKENIZERS["slow"]})
    for said in everywhere(path):
        assert "\n" not in said
        assert f"{path}/config.json" in said
        assert reason in said
        assert said.endswith("; the code that came with it (auto_map) is never run")


@pytest.mark.parametrize("named", [None, *TOKENIZERS])
def test_a_model_of_a_known_family_is_read_as_without_its_code(folder, named):
    own = None if named is None else {"auto_map": TOKENIZERS[named]}
    plain = folder("plain")
    path = folder("model", {"auto_map": MODEL | (TOKENIZERS["one"])}, own)
    if named == "short":  # transformers expects two
        with pytest.raises(InputError, match=r"tokenizer_config\.json: auto_map: .*own\.Tokenizer"):
            load_tokenizer(path)
        return
    expected = load_tokenizer(plain)(ASKED[0])["input_ids"]
    assert load_tokenizer(path)(ASKED[0])["input_ids"] == expected


def test_a_known_family_goes_through_convert_and_the_library(folder):
    path = folder("model", {"auto_map": MODEL}, {"auto_map": TOKENIZERS["slow"]})
    expected = load_checkpoint(folder("plain")).params["embed"]
    to_orbax(path, path.parent / "orbax")
    to_hf(path.parent / "orbax", path.parent / "back")
    for place in (path, path.parent / "orbax", path.parent / "back"):
        model = api.load(place)
        np.testing.assert_array_equal(model.checkpoint.params["embed"], expected)
        assert model.tokenizer(ASKED[0])["input_ids"]


@pytest.mark.parametrize(
    ("named", "side"), [*((name, "rl") for name in TOKENIZERS), ("one", "base")]
)
def test_a_tokenizer_that_is_only_its_own_code_ends_a_run_before_an_answer(folder, named, side):
    own = {"auto_map": TOKENIZERS[named], "tokenizer_class": "OwnTokenizer"}
    changes = {side: ({"auto_map": MODEL}, own)}
    sides = {
        "base": folder("base", *changes.get("base", ()), source="tiny_start"),
        "rl": folder("rl", *changes.get("rl", ()), source="tiny_grpo"),
    }
    ((_, said),) = run_grid([study_of(**sides)], lambda _: None).failures
    assert said.startswith(
        f"{sides[side]}/tokenizer_config.json: auto_map: expected a tokenizer that "
    )
    assert "own.Tokenizer), which is never run; save the tokenizer as tokenizer.json" in said
    assert "\n" not in said
    assert not list(sides[side].parent.rglob("responses_*.jsonl"))
    with pytest.raises(InputError, match=r"tokenizer_config\.json: auto_map"):
        api.load(sides[side]).tokenizer  # noqa: B018


def test_a_sentencepiece_model_with_code_of_its_own_is_not_guessed_at(folder):
    path = folder(
        "model", None, {"auto_map": TOKENIZERS["slow"], "tokenizer_class": "OwnTokenizer"}
    )
    (path / "tokenizer.json").unlink()
    (path / "tokenizer.model").write_bytes(b"whatever it does with it")
    with pytest.raises(InputError, match=r"tokenizer_config\.json: auto_map: .*own\.Tokenizer"):
        load_tokenizer(path)


def test_a_broken_tokenizer_is_called_broken_whatever_code_lies_beside_it(folder):
    path = folder("model", None, {"auto_map": TOKENIZERS["slow"]})
    (path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="model: expected a tokenizer, found "):
        load_tokenizer(path)
