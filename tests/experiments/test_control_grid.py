"""Who is compared with the control, and what happens where there is nothing to compare."""

import dataclasses

import pytest

from experiments.control_grid import run_against_control, with_control
from experiments.errors import InputError
from experiments.grid import Outcome
from experiments.study.pairs import PAIRS
from experiments.study.rule import Rule
from experiments.study.settings import Study

CONTROL = PAIRS["tiny_sft"]


def test_the_control_joins_the_pairs_once():
    arms = [PAIRS["tiny_grpo"], PAIRS["mistral"]]
    assert with_control(arms, CONTROL) == [*arms, CONTROL]
    assert with_control([CONTROL, *arms], CONTROL) == [CONTROL, *arms]


@pytest.mark.parametrize(
    "pairs",
    [[CONTROL], [PAIRS["mistral"]], [dataclasses.replace(PAIRS["tiny_ppo"], prompt="{question}!")]],
)
def test_a_control_without_an_arm_of_its_start_is_an_error(pairs):
    with pytest.raises(InputError, match="control: expected a pair that starts from the"):
        with_control(pairs, CONTROL)


def test_other_starts_are_named_and_arms_without_rows_left_out(tmp_path):
    """The grid has named why an arm has no rows; nothing is measured or written here."""
    studies = [
        Study(pair=PAIRS[key], workdir=tmp_path, datasets=("arithmetic",), rules=(Rule(alpha=0.3),))
        for key in ("tiny_grpo", "mistral", "tiny_sft")
    ]
    outcome, said = Outcome(), []
    assert run_against_control(studies, CONTROL, outcome, said.append) == []
    assert said == ["mistral: not compared with tiny_sft: another start or prompt"]
    assert outcome.failures == []
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_that_fails_is_named_and_the_others_go_on(tmp_path):
    studies = []
    for key in ("tiny_grpo", "tiny_ppo", "tiny_sft"):
        studies.append(
            Study(
                pair=PAIRS[key], workdir=tmp_path, datasets=("arithmetic",),
                rules=(Rule(alpha=0.3),),
            )
        )  # fmt: skip
        path = tmp_path / key / "arithmetic" / "all_correct.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("broken\n")
    outcome = Outcome()
    assert run_against_control(studies, CONTROL, outcome, [].append) == []
    assert [name for name, _ in outcome.failures] == [
        "tiny_grpo against tiny_sft", "tiny_ppo against tiny_sft",
    ]  # fmt: skip
    assert all("all_correct.jsonl" in message for _, message in outcome.failures)
