"""`experiments.sweep` ends with one report over all pairs, and says what failed."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from html_page import Page, edges_of

from experiments.statistics.metrics import METRICS
from experiments.statistics.views import VIEWS
from experiments.study.pairs import PAIRS as REGISTERED

SHIPPED = Path(REGISTERED["tiny_grpo"].rl) / "snapshots"
PAIRS = ("tiny_grpo", "mistral", "tiny_dpo")


@pytest.fixture(scope="module")
def swept(processes, tmp_path_factory):
    """A sweep over two tiny pairs and one whose models are not here."""
    workdir = tmp_path_factory.mktemp("sweep")
    done = processes.run(
        "experiments.sweep", f"--pairs={','.join(PAIRS)}", "--num_questions=24",
        "--alpha=0.3", "--delta=0.4", f"--workdir={workdir}", "--control=tiny_dpo",
    )  # fmt: skip
    return done, workdir


def test_a_pair_that_failed_is_named_at_the_end_and_the_others_are_measured(swept):
    done, workdir = swept
    assert done.code == 1
    assert "2 cells measured, 1 failed" in done.stdout
    assert done.stdout[-1] == f"sweep: {workdir / 'report.html'}"
    for pair in ("tiny_grpo", "tiny_dpo"):
        assert f"report: {workdir / pair / 'report.html'}" in done.stdout
        assert (workdir / pair / "report.html").is_file()
    (error,) = [line for line in done.stderr if line.startswith("error: ")]
    assert "mistral" in error
    assert not (workdir / "mistral" / "report.html").exists()
    assert not any("Traceback" in line for line in done.stderr)


def test_the_report_over_all_pairs_holds_every_cell(swept):
    _, workdir = swept
    page = Page((workdir / "report.html").read_text(encoding="utf-8"))
    assert page.problems == []
    names = [cell["name"] for cell in edges_of(page)["cells"]]
    assert names == [
        f"{pair}, arithmetic, alpha 0.3, delta 0.4" for pair in ("tiny_grpo", "tiny_dpo")
    ]
    with (workdir / "table.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert {line["pair"] for line in table} == {"tiny_grpo", "tiny_dpo"}
    assert len(table) == 2 * len(METRICS)
    for line in table:
        assert (line["alpha"], line["selection"]) == ("0.3", "delta 0.4")
        saved = workdir / line["pair"] / "arithmetic" / "cut0.3_delta0.4" / "metrics.json"
        found = json.loads(saved.read_text())["metrics"][line["metric"]]
        assert float(line["base"]) == found["base"]


def test_the_arm_is_compared_with_the_control_on_questions_that_three_models_got_right(swept):
    """Questions and counted tokens from the answers' files; the exact view from the saved effects."""
    done, workdir = swept
    assert "mistral: not compared with tiny_dpo: another start or prompt" in done.stdout
    with (workdir / "arm_control.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert {(line["arm"], line["control"]) for line in table} == {("tiny_grpo", "tiny_dpo")}
    views = {line["view"] for line in table}
    assert views == set(VIEWS)
    assert len(table) == len(METRICS) * len(VIEWS)
    folder = workdir / "against_tiny_dpo" / "tiny_grpo" / "arithmetic" / "cut0.3_delta0.4"
    kept = set(json.loads((folder / "cell.json").read_text())["rows"])
    for pair, side in (("tiny_grpo", "base"), ("tiny_grpo", "rl"), ("tiny_dpo", "rl")):
        path = workdir / pair / "arithmetic" / f"responses_{side}.jsonl"
        answers = [json.loads(line) for line in path.read_text().splitlines()]
        assert kept <= {answer["idx"] for answer in answers if answer["score"]}
    (line,) = [
        line for line in table
        if (line["view"], line["metric"]) == ("exact", "activation_intensity")
    ]  # fmt: skip
    for side, column in (("base", "control_value"), ("rl", "arm_value")):
        effects = np.load(folder / f"effects_{side}.npz")["effects"]
        assert len(effects) == len(kept) == int(line["questions"])
        mean = np.abs(np.nan_to_num(effects)).mean(axis=(1, 2)).mean()
        assert float(line[column]) == pytest.approx(float(mean), rel=1e-5)
    page = (workdir / "report.html").read_text(encoding="utf-8")
    assert f"tiny_grpo against tiny_dpo ({len(kept)} questions, alpha 0.3): in every view" in page
    entries = json.loads((workdir / "arm_control.json").read_text())
    assert [len(entry["views"]) for entry in entries] == [len(table)]


def test_a_cell_holds_the_rule_of_its_folder(swept):
    _, workdir = swept
    found = [json.loads(path.read_text())["rule"] for path in workdir.rglob("cell.json")]
    assert [(rule["alpha"], rule["delta"]) for rule in found] == [(0.3, 0.4)] * 3


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--pairs=tiny_grop", "found 'tiny_grop'"),
        ("--control=tiny_sfx", "found 'tiny_sfx'"),
        ("--control=mistral", "control: expected a pair that starts from the checkpoint of some"),
        ("--pairs=", "pairs: expected at least one, found none"),
        ("--datasets=gsm9k", "found 'gsm9k'"),
        ("--datasets=", "dataset: expected at least one, found none"),
        ("--alpha=0.3,2", "alpha: expected a number in (0, 1], found 2"),
        ("--num_samples=0", "num_samples: expected at least 1, found 0"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(processes, tmp_path, flag, said):
    done = processes.run("experiments.sweep", flag, f"--workdir={tmp_path / 'runs'}")
    assert done.code == 1
    assert said in done.error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--along=tiny_grpo", "--pairs=tiny_dpo"],
            "along: expected --along or --pairs, found both",
        ),
        (
            ["--along=tiny_grpo", "--control=tiny_sft"],
            "along: expected --along or --control, found",
        ),
        (["--along=tiny_ppo"], "with a folder snapshots/ of checkpoints named by their step"),
        (["--along=tiny_grpo", "--start=no/such/start"], "start no/such/start: no such directory"),
        (["--along=tiny_grpo", "--alpha=2"], "alpha: expected a number in (0, 1], found 2"),
        (["--start=tiny_start"], "start: --start belongs to --along, which was not given"),
        (["--max_new_tokens=9"], "max_new_tokens: --max_new_tokens belongs to --along"),
    ],
)
def test_mistakes_along_a_training_end_in_one_line(processes, tmp_path, flags, said):
    done = processes.run("experiments.sweep", *flags, f"--workdir={tmp_path / 'runs'}")
    assert done.code == 1
    assert said in done.error
    assert not (tmp_path / "runs").exists()


def test_a_sweep_along_a_training_says_what_changes_first(processes, tmp_path):
    training = tmp_path / "mine"
    shutil.copytree(SHIPPED / "00008", training / "snapshots" / "00008")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(SHIPPED.parent / name, training / name)
    done = processes.run(
        "experiments.sweep", f"--along={training}", f"--start={SHIPPED.parents[1] / 'tiny_start'}",
        "--datasets=arithmetic", "--prompt=Question: {question}\nAnswer:", "--max_new_tokens=48",
        "--num_questions=12", "--alpha=0.3", "--fidelity=off", f"--workdir={tmp_path / 'runs'}",
    )  # fmt: skip
    assert done.code == 0
    folder = tmp_path / "runs" / "along_mine"
    first = json.loads((folder / "along.json").read_text())["first"]
    assert done.stdout[-2:] == [f"mine: {first}", f"sweep: {folder / 'report.html'}"]
    assert (folder / "mine_step8" / "report.html").is_file()
