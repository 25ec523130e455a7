"""The shipped tiny models: transformers reads them, gives the same, and their cards are true."""

import functools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from transformers import AutoTokenizer

from converters.load import load_checkpoint
from eap_jax.generation import Sampling, generate
from eap_jax.transformer import Transformer
from experiments.arithmetic.problems import draw_problems
from experiments.arithmetic.tokenizer import build_tokenizer
from experiments.grading.grade import grade
from experiments.posttrain.evaluate import evaluate
from experiments.posttrain.families import FAMILIES
from experiments.posttrain.train import family_config
from experiments.study.pairs import DEFAULT_PAIR

SHIPPED = Path(__file__).resolve().parents[3] / "experiments" / "checkpoints"
TINY = FAMILIES["tiny"]
ARM_ROUNDS = TINY.arms[DEFAULT_PAIR].rounds
NAMES = (TINY.start_name, *TINY.arms)
every_model = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.usefixtures("optimised")


@functools.partial(jax.jit, static_argnames="config")
def logits(params, tokens_BT, *, config):
    return Transformer(config).apply({"params": params}, tokens_BT).logits


def figures_of(name: str) -> dict:
    return json.loads((SHIPPED / name / "figures.json").read_text())


@pytest.fixture(scope="module")
def problems():
    return draw_problems(123, 50, "test")


@every_model
def test_transformers_gives_the_same_logits_and_the_same_greedy_answers(torch, name, problems):
    import transformers

    directory = SHIPPED / name
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, local_files_only=True, dtype=torch.float32
    ).eval()
    loaded = load_checkpoint(directory)
    prompts = tokenizer([problem.prompt for problem in problems])["input_ids"]
    stop = tokenizer.eos_token_id
    ours = generate(
        loaded.params, prompts, config=loaded.config,
        sampling=Sampling(max_new_tokens=48, stop_tokens=(stop,)),
    )  # fmt: skip
    for length in sorted(set(map(len, prompts))):  # together without padding
        places = [place for place, prompt in enumerate(prompts) if len(prompt) == length]
        with torch.no_grad():
            whole = model.generate(
                torch.tensor([prompts[place] for place in places]), max_new_tokens=48,
                do_sample=False, eos_token_id=stop, pad_token_id=tokenizer.pad_token_id,
            )[:, length:].tolist()  # fmt: skip
        for place, tokens in zip(places, whole, strict=True):
            answer = list(ours[place])
            assert tokens[: len(answer)] == answer
            assert set(tokens[len(answer) :]) <= {tokenizer.pad_token_id}
    texts = [prompt + list(answer) for prompt, answer in zip(prompts, ours, strict=True)]
    for text in texts[:8]:
        tokens_BT = np.asarray([text], np.int32)
        with torch.no_grad():
            expected = model(torch.tensor(tokens_BT, dtype=torch.long)).logits.numpy()
        found = np.asarray(logits(loaded.params, tokens_BT, config=loaded.config))
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@every_model
def test_measured_accuracy_is_the_cards(name):
    """The card and figures.json say the same, and the evaluation command finds it again."""
    card = (SHIPPED / name / "README.md").read_text()
    stated = float(re.search(r"greedy: \*\*([\d.]+)%", card)[1]) / 100
    assert stated == pytest.approx(figures_of(name)["accuracy"], abs=1e-3)
    found = evaluate(SHIPPED / name)
    assert found["questions"] == 500
    assert found["accuracy"] == pytest.approx(stated, abs=0.02)


def test_start_leaves_room_and_reinforcement_learning_uses_it():
    start = figures_of("tiny_start")["accuracy"]
    assert 0.50 <= start <= 0.75
    for name in ("tiny_grpo", "tiny_ppo"):
        assert figures_of(name)["accuracy"] >= start + 0.10


def test_arms_had_equal_budgets():
    """The same number of rounds and optimiser steps, whatever the algorithm."""
    for name in TINY.arms:
        card = (SHIPPED / name / "README.md").read_text()
        assert f"{ARM_ROUNDS} rounds of\n2 optimiser steps on 128 responses" in card
        log = [json.loads(line) for line in (SHIPPED / name / "log.jsonl").read_text().splitlines()]
        assert [line["round"] for line in log] == list(range(ARM_ROUNDS + 1))


def test_family_is_small_and_every_member_has_the_familys_shape():
    files = [path for name in NAMES for path in (SHIPPED / name).rglob("*")]
    size = sum(path.stat().st_size for path in files if path.is_file())
    assert size <= 12e6
    for name in NAMES:
        assert load_checkpoint(SHIPPED / name).config == family_config(build_tokenizer())


@pytest.mark.parametrize("name", ["tiny_grpo", "tiny_sft"])
def test_snapshots_lead_from_the_start_to_the_final_model(name):
    """The distance to the start grows along the snapshots, and the last is near the end."""
    start, end = (
        load_checkpoint(SHIPPED / n, dtype="float32").params for n in ("tiny_start", name)
    )
    snapshots = sorted((SHIPPED / name / "snapshots").iterdir())
    assert [int(path.name) for path in snapshots] == list(TINY.snapshots[name])

    def distance(first, second):
        leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
        return float(np.sqrt(sum(np.sum((np.asarray(a) - np.asarray(b)) ** 2) for a, b in leaves)))

    params = [load_checkpoint(path, dtype="float32").params for path in snapshots]
    assert distance(params[0], start) < distance(params[-1], start)
    assert distance(params[-1], end) < distance(params[0], end)
    assert 0 < distance(params[-1], end) < 0.25 * distance(start, end)


def test_tokenizer_writes_every_answer_back_and_the_grader_takes_it(problems):
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "tiny_start", local_files_only=True)
    for problem in problems:
        for style in ("worked", "short"):
            ids = tokenizer(problem.solution(style), add_special_tokens=False)["input_ids"]
            text = tokenizer.decode(ids)
            assert text.strip() == problem.solution(style).strip()
            assert grade(text, problem.answer).correct
