"""What is broken on the second side is refused before the first side answers."""

import json
import shutil
from pathlib import Path

import pytest

from converters.convert import to_orbax
from experiments.errors import InputError
from experiments.grid import run_grid
from experiments.study.pairs import PAIRS, pair_of
from experiments.study.rule import Rule
from experiments.study.settings import QuestionSource, Study

START = Path(PAIRS["tiny_grpo"].base)


@pytest.fixture
def rl(tmp_path):
    return Path(shutil.copytree(PAIRS["tiny_grpo"].rl, tmp_path / "rl"))


def no_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()


def broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def other_shape(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 8}))


def broken_template(folder):
    (folder / "chat_template.jinja").write_text("{{ raise_exception('never') }}")


def pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


@pytest.mark.parametrize(
    "damage",
    [
        no_tokenizer, broken_tokenizer, no_weights, cut_weights, other_shape, broken_template, pointer,
    ],
)  # fmt: skip
def test_a_broken_second_side_is_found_before_the_first_answer(damage, rl, tmp_path):
    check_found_before_the_first_answer(damage, rl, tmp_path)


def cut_layer(folder):
    files = (folder / "blocks" / "002").rglob("d/*")
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-5000])


@pytest.mark.parametrize("damage", [no_tokenizer, cut_layer])
def test_a_broken_converted_second_side_is_too(damage, rl, tmp_path):
    to_orbax(rl, tmp_path / "converted rl")
    check_found_before_the_first_answer(damage, tmp_path / "converted rl", tmp_path)


def check_found_before_the_first_answer(damage, rl, tmp_path):
    damage(rl)
    base = shutil.copytree(START, tmp_path / "base")
    prompt = "Question: {question}\nAnswer:"
    if damage is broken_template:
        (base / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
        prompt = "chat"
    pair = pair_of(str(base), str(rl), "own")
    study = Study(
        pair=type(pair)(**{**vars(pair), "prompt": prompt, "max_new_tokens": 4}),
        workdir=tmp_path / "runs",
        datasets=("arithmetic",),
        rules=(Rule(alpha=0.3),),
        questions=QuestionSource(limit=2),
    )
    outcome = None
    try:
        outcome = run_grid([study])
    except InputError as error:
        message = str(error)
    if outcome is not None:
        ((_, message),) = outcome.failures
    assert "rl" in message
    assert not list((tmp_path / "runs").rglob("responses_*.jsonl"))
