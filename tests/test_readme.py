"""README's code and the notebook run as they stand there."""

import json

import matplotlib
import numpy as np
import pytest
from binaries import REPOSITORY

from eap_jax.graph import num_edges
from experiments.api import load


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


def test_the_notebook_runs_and_shows_how_far_scores_are_from_effects(pictures):
    names: dict = {}
    exec(compile(code_of_notebook(), "two_models.ipynb", "exec"), names)
    assert len(names["guess"]) == len(names["truth"]) == num_edges(4)
    # What its text says: cutting `input -> a0<q>` costs nats, and its score is about zero.
    edge = {"writer": "input", "reader": "a0<q>"}
    assert float(names["effects"].effect.sel(edge).mean()) > 1
    assert abs(float(names["scores"]["rl"].score.sel(edge).mean())) < 1e-4
