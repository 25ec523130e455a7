"""README's code runs as it stands there."""

import numpy as np
import pytest
from binaries import REPOSITORY

from eap_jax.graph import edge_mask


@pytest.fixture
def snippet():
    """The code block of the section on the library."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.split("## As a library")[1].split("Rows are writers")[0]
    return "\n".join(line.removeprefix("    ") for line in section.splitlines())


def test_the_librarys_example_scores_an_answer_that_the_model_would_give(snippet, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    names: dict = {}
    exec(compile(snippet, "README.md", "exec"), names)
    scores_BWR = np.asarray(names["found"].scores_BWR)
    assert scores_BWR.shape == (1, 9, 17)
    assert (scores_BWR != 0).sum() == edge_mask(4).sum()
    assert float(names["found"].loss_B[0]) < 0.3
    assert names["tokenizer"].unk_token_id not in names["prompt"] + names["answer"]
