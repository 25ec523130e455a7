"""README's code and the notebook run as they stand there."""

import json
import re
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from binaries import REPOSITORY

from eap_jax.graph import num_edges
from experiments.api import load
from experiments.arithmetic.problems import draw_problems
from experiments.responses.imported import import_answers
from experiments.responses.tokenization import encode_prompt, load_tokenizer
from experiments.study.pairs import PAIRS


@pytest.fixture
def pictures(monkeypatch):
    """Figures are drawn and closed, not shown."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    yield plt
    plt.close("all")


def code_of_readme() -> str:
    """The code block of the section on the library."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.split("## As a library")[1].split("A text is a")[0]
    return "\n".join(line.removeprefix("    ") for line in section.splitlines())


def block_of_readme(first: str) -> str:
    """The indented block that begins with a line, without its indent."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = text[text.index(first) :]
    return textwrap.dedent(block[: re.search(r"\n(?=\S)", block).start()])


def code_of_notebook() -> str:
    """All code cells, in their order."""
    path = REPOSITORY / "experiments" / "notebooks" / "two_models.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_the_librarys_example_is_short_and_runs(pictures):
    code, names = code_of_readme(), {}
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    exec(compile(code, "README.md", "exec"), names)
    scores, top = names["scores"], names["top"]
    assert scores.score.shape == (2, 9, 17)
    assert float(scores.loss.max()) < 1.0
    assert len(top) == 10
    assert np.abs(top.to_numpy()).min() >= np.sort(np.abs(names["mean"]))[-10]
    edge = names["edge"].values
    np.testing.assert_array_equal(edge, scores.score.values[:, 2, 16])
    effect = names["effect"]
    assert int(effect.notnull().sum()) == 2
    whole = load("tiny_grpo:rl").ablate(names["texts"]).effect
    np.testing.assert_allclose(
        effect.sel(writer="m0", reader="logits"), whole.sel(writer="m0", reader="logits"), atol=1e-5
    )
    assert list(names["table"].columns[:2]) == ["base", "rl"]


def test_the_script_for_vllm_writes_what_the_two_flags_read(tmp_path, monkeypatch):
    """vLLM itself is replaced; its objects' three attributes are all that the script uses."""
    tokenizer = load_tokenizer(Path(PAIRS["tiny_grpo"].rl))
    settings = {}

    class LLM:
        def __init__(self, model):
            settings["model"] = model

        def generate(self, prompts, sampling):
            settings.update(sampling)
            answer = tokenizer(" 7 + 4 = 11.")["input_ids"] + [tokenizer.eos_token_id]
            return [
                SimpleNamespace(
                    prompt_token_ids=tokenizer(prompt)["input_ids"],
                    outputs=[SimpleNamespace(token_ids=tuple(answer))],
                )
                for prompt in prompts
            ]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=dict))
    questions = draw_problems(5, 2, "test")
    rows = [{"question": q.question, "answer": q.answer} for q in questions]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompt, output = PAIRS["tiny_grpo"].prompt, tmp_path / "answers.jsonl"
    monkeypatch.setattr(sys, "argv", ["x", "model", prompt, str(tmp_path / "q.jsonl"), str(output)])
    code = block_of_readme("    import json, pathlib, sys\n")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    exec(compile(code, "README.md", "exec"), {})
    assert settings == {"model": "model", "temperature": 0, "max_tokens": 4096}
    found = import_answers(output, tokenizer=tokenizer, prompt=prompt)
    assert [(a.idx, a.question, a.gt) for a in found] == [
        (number, q.question, q.answer) for number, q in enumerate(questions)
    ]
    for answer, question in zip(found, questions, strict=True):
        assert answer.prompt_tokens == encode_prompt(tokenizer, prompt, question)
        assert answer.answer_tokens[-1] == tokenizer.eos_token_id
        assert answer.pred == "11"


def test_the_notebook_runs_and_shows_how_far_scores_are_from_effects(pictures):
    names: dict = {}
    exec(compile(code_of_notebook(), "two_models.ipynb", "exec"), names)
    assert len(names["guess"]) == len(names["truth"]) == num_edges(4)
    # What its text says: cutting `input -> a0<q>` costs nats, and its score is about zero.
    edge = {"writer": "input", "reader": "a0<q>"}
    assert float(names["effects"].effect.sel(edge).mean()) > 1
    assert abs(float(names["scores"]["rl"].score.sel(edge).mean())) < 1e-4
