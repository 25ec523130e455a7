"""An arm against the control is the comparison of their two models on the questions they share."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.api import load
from experiments.arithmetic.problems import draw_problems
from experiments.responses.tokenization import load_tokenizer
from experiments.statistics.against_control import (
    AgainstControl,
    control_study,
    differs,
    measure_against_control,
    write_against_control,
)
from experiments.statistics.compare import compare
from experiments.statistics.trend import trend
from experiments.statistics.views import View
from experiments.study.pairs import PAIRS
from experiments.study.rule import Rule
from experiments.study.settings import Study

RULE = Rule(alpha=0.3)


def silent(line: str) -> None:
    """What is said is not looked at here."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two arms whose answers are those of the task itself, 12 and 13 questions, 11 in common."""
    workdir = tmp_path_factory.mktemp("against")
    tokenizer = load_tokenizer(Path(PAIRS["tiny_grpo"].rl))
    problems = draw_problems(11, 14, "test")

    def row(idx, styles):
        found = {"idx": idx, "question": problems[idx].question, "gt": problems[idx].answer}
        prompt = tokenizer(problems[idx].prompt)["input_ids"]
        for side, style in zip(("base", "rl"), styles, strict=True):
            answer = tokenizer(problems[idx].solution(style), add_special_tokens=False)["input_ids"]
            found |= {f"{side}_prompt_tokens": prompt, f"{side}_answer_tokens": answer}
        return found

    studies = {}
    for key, places, style in (
        ("tiny_grpo", range(12), "worked"), ("tiny_sft", range(1, 14), "short"),
    ):  # fmt: skip
        studies[key] = Study(
            pair=PAIRS[key], workdir=workdir, datasets=("arithmetic",), rules=(RULE,),
            fidelity="off",
        )  # fmt: skip
        rows = [row(idx, (style, style)) for idx in places]
        path = workdir / key / "arithmetic" / "all_correct.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    studies["tiny_grpo"] = dataclasses.replace(
        studies["tiny_grpo"], rules=(dataclasses.replace(RULE, delta=2.0, beta=0, gamma=9),)
    )
    (found,) = measure_against_control(studies["tiny_grpo"], studies["tiny_sft"], silent)
    return found, studies, problems


def test_it_is_compare_of_both_models_scores_on_their_own_answers(measured):
    """The oracle scores the texts through the library and compares the stacks."""
    found, studies, problems = measured
    assert (found.arm, found.control, found.dataset) == ("tiny_grpo", "tiny_sft", "arithmetic")
    assert found.samples == 11
    (directory,) = (studies["tiny_grpo"].workdir / "against_tiny_sft" / "tiny_grpo").rglob(
        "cut0.3*"
    )
    order = json.loads((directory / "cell.json").read_text())["rows"]
    assert sorted(order) == list(range(1, 12))
    tokenizer = load_tokenizer(Path(PAIRS["tiny_grpo"].rl))
    stacks, losses = [], []
    for key, style in (("tiny_sft", "short"), ("tiny_grpo", "worked")):
        texts = []
        for idx in order:
            answer = tokenizer(problems[idx].solution(style), add_special_tokens=False)["input_ids"]
            texts.append((tokenizer(problems[idx].prompt)["input_ids"], answer[: found.cut]))
        scores = load(f"{key}:rl").attribute(texts)
        stacks.append(scores.score.values)
        losses.append(scores.loss.values[:, None, None].astype(np.float64))
    for view, pair in (
        ("published", stacks),
        ("per_loss", [stack / loss for stack, loss in zip(stacks, losses, strict=True)]),
    ):
        expected = compare(*pair)
        rows = {row.metric: row for row in found.views if row.view == view}
        assert set(rows) == set(expected)
        for key, row in rows.items():
            assert row.base == pytest.approx(expected[key].base, rel=1e-3)
            assert row.difference == pytest.approx(
                expected[key].difference, rel=1e-2, abs=1e-3 * abs(row.base)
            )
            assert row.trend == trend(expected[key])
            low, high = row.difference_low, row.difference_high
            assert low <= row.difference <= high


def test_its_files_lie_apart_and_hold_the_controls_checkpoint(measured):
    _, studies, _ = measured
    arm = studies["tiny_grpo"]
    own = control_study(arm, PAIRS["tiny_sft"])
    assert own.directory == arm.workdir / "against_tiny_sft" / "tiny_grpo"
    assert (own.pair.base, own.pair.rl) == (PAIRS["tiny_sft"].rl, PAIRS["tiny_grpo"].rl)
    assert own.rules == arm.rules


def row(view, seen, metric="m"):
    return View(
        view=view, metric=metric, base=1, rl=2, relative=1, low=0, high=2, trend=seen, samples=9
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("falls", "falls"), ("falls", "falls"), "falls"),
        (("falls", "falls"), ("falls", "unclear"), "unclear"),
        (("falls", "falls"), ("rises", "rises"), "unclear"),
        (("falls", "rises"), ("falls", "rises"), "unclear"),
    ],
)
def test_a_difference_stands_where_every_view_of_every_cell_has_it(first, second, expected):
    cells = [
        AgainstControl(
            arm="a", control="c", dataset="d", rule=RULE, samples=9, cut=3,
            views=[row(view, seen) for view, seen in zip(("published", "exact"), trends, strict=True)],
        )
        for trends in (first, second)
    ]  # fmt: skip
    assert differs(cells, "m") == expected
    assert differs(cells[:1], "m", ("published",)) == first[0]


def test_the_file_holds_every_view_with_its_interval(measured, tmp_path):
    found, *_ = measured
    write_against_control(tmp_path, [found])
    (entry,) = json.loads((tmp_path / "arm_control.json").read_text())
    assert entry["rule"]["alpha"] == 0.3
    assert len(entry["views"]) == len(found.views)
    for line, view in zip(entry["views"], found.views, strict=True):
        assert line["difference_low"] == view.difference_low
        assert line["rl"] == view.rl
