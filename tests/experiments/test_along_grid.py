"""Each snapshot of a training against its start: one precision, one set of the start's answers, and a
killed run ends with the same bytes."""

import json
import shutil
from pathlib import Path

import pytest
from answered_runs import answers_counted, files
from html_page import Page

from experiments.along_grid import run_along
from experiments.errors import InputError
from experiments.report import report
from experiments.study.pairs import PAIRS
from experiments.study.rule import Rule
from experiments.study.settings import QuestionSource, Study
from experiments.study.snapshots import find_snapshots

GRPO = PAIRS["tiny_grpo"]
SHIPPED = Path(GRPO.rl) / "snapshots"


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A folder of the user's own, its tokenizer above the snapshots: steps 9 and 10, stored in
    bfloat16; step 4, which is the start again; step 12, whose weights are missing."""
    folder = tmp_path_factory.mktemp("trained") / "mine"
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        folder.mkdir(exist_ok=True)
        shutil.copy(Path(GRPO.rl) / name, folder / name)
    shutil.copytree(SHIPPED / "00008", folder / "snapshots" / "step-9")
    shutil.copytree(SHIPPED / "00056", folder / "snapshots" / "step-10")
    shutil.copytree(GRPO.base, folder / "snapshots" / "step-4")
    shutil.copytree(SHIPPED / "00056", folder / "snapshots" / "step-12")
    (folder / "snapshots" / "step-12" / "model.safetensors").unlink()
    return folder


def run(training, workdir):
    """The training's study, nothing cut; what was said, what came of it, and who answered."""
    found = find_snapshots(str(training), GRPO.base, prompt=GRPO.prompt, max_new_tokens=48)
    studies = [
        Study(
            pair=pair, workdir=workdir, datasets=("arithmetic",), rules=(Rule(alpha=0.3),),
            questions=QuestionSource(limit=16), fidelity="off",
        )
        for pair in found.pairs.values()
    ]  # fmt: skip
    said = []
    with answers_counted(workdir) as answered:
        outcome, steps = run_along(found, studies, said.append)
    return said, outcome, steps, answered


@pytest.fixture(scope="module")
def done(training, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    return workdir, *run(training, workdir)


def test_steps_are_measured_in_the_order_of_their_numbers_and_a_broken_one_stops_no_other(done):
    workdir, _, outcome, steps, _ = done
    folder = workdir / "along_mine"
    assert list(steps.items()) == [(folder / "mine_step9", 9), (folder / "mine_step10", 10)]
    ((name, message),) = outcome.failures
    assert name == "mine_step12"
    assert "step-12" in message


def test_the_start_is_not_compared_with_itself(done, training):
    _, said, outcome, steps, _ = done
    place = training / "snapshots" / "step-4"
    assert said[0] == f"step 4: {place} is the start itself and is not compared with it"
    assert 4 not in steps.values()
    assert not any("identical" in message for _, message in outcome.failures)


def test_all_steps_answer_in_the_widest_precision(done):
    _, said, _, steps, _ = done
    assert said.count("precision: answers in float32, scores float32") == 2
    for directory in steps:
        claimed = json.loads((directory / "arithmetic" / "answers.json").read_text())
        assert claimed["dtypes"] == {"base": "float32", "rl": "float32"}


def test_the_start_answers_once_for_all_steps(done):
    *_, steps, answered = done
    assert answered == [
        "along_mine/mine_step9/arithmetic/responses_base.jsonl",
        "along_mine/mine_step9/arithmetic/responses_rl.jsonl",
        "along_mine/mine_step10/arithmetic/responses_rl.jsonl",
    ]
    one, two = (path / "arithmetic" / "responses_base.jsonl" for path in steps)
    assert one.read_bytes() == two.read_bytes()
    assert len(one.read_text().splitlines()) == 16


def test_a_killed_run_continues_and_ends_with_the_same_bytes(done, training, tmp_path):
    workdir = tmp_path / "again"
    shutil.copytree(done[0], workdir)
    second = workdir / "along_mine" / "mine_step10" / "arithmetic"
    shutil.rmtree(second / "cut0.3")
    for name in ("all_correct.jsonl", "responses_base.jsonl"):
        (second / name).unlink()
    lines = (second / "responses_rl.jsonl").read_text().splitlines(keepends=True)
    (second / "responses_rl.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    *_, answered = run(training, workdir)
    assert answered == ["along_mine/mine_step10/arithmetic/responses_rl.jsonl"]
    assert files(workdir) == files(done[0])


def test_the_report_over_all_steps_says_what_changes_first(done):
    workdir, _, _, steps, _ = done
    folder = workdir / "along_mine"
    path = report.write_sweep_report(
        folder, list(steps), along=report.Along(name="mine", steps=steps)
    )
    data = json.loads((folder / "along.json").read_text())
    assert (data["along"], data["steps"]) == ("mine", [9, 10])
    page = Page(path.read_text(encoding="utf-8"))
    assert page.problems == []
    assert data["first"] in page.text("section", id="along")
    assert data["later"] in page.text("section", id="along")
    assert (folder / "along.csv").read_text().count("\n") == 1 + len(data["points"])
    for kind in ("png", "pdf", "svg"):
        assert (folder / "figures" / f"along_training.{kind}").stat().st_size > 1000


def test_a_training_that_changed_nothing_is_an_error(training, tmp_path):
    folder = tmp_path / "still"
    shutil.copytree(training / "snapshots" / "step-4", folder / "snapshots" / "4")
    with pytest.raises(InputError, match="along: expected a snapshot that differs from the start"):
        run(folder, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
