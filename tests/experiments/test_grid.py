"""A grid measures every cell once, whoever works on it, and a failed cell stops no other."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paired_scores import FORMULAS

from experiments.errors import InputError
from experiments.grid import run_grid
from experiments.report import report
from experiments.scoring import cells
from experiments.study.pairs import PAIRS
from experiments.study.rule import Rule
from experiments.study.settings import QuestionSource, Study

REPOSITORY = Path(__file__).resolve().parents[2]
ALPHAS = (0.1, 0.2, 0.3)
DELTAS = (0.4, 0.5)


def silent(line: str) -> None:
    """The grid's facts are not looked at here."""


def study(workdir: Path, pair: str = "tiny_grpo", **changes) -> Study:
    """Nothing is cut: who does what is the same, and it is counted by scorings."""
    return Study(
        pair=PAIRS[pair],
        workdir=workdir,
        datasets=("arithmetic",),
        rules=tuple(Rule(alpha=a, delta=d) for d in DELTAS for a in ALPHAS),
        questions=QuestionSource(limit=24),
        **{"fidelity": "off"} | changes,
    )


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(workdir)): np.load(path)["all_scores"]
        for path in sorted(workdir.rglob("results_*.npz"))
    }


@pytest.fixture
def no_report(monkeypatch):
    """Pages and figures have tests of their own, and take most of a small grid's time."""
    monkeypatch.setattr(report, "write_report", lambda directory: directory / "report.html")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Results of one process on the grid of 12 cells."""
    workdir = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_report", lambda directory: directory / "report.html")
        outcome = run_grid([study(workdir), study(workdir, "tiny_dpo")], silent)
    assert outcome.failures == []
    assert len(outcome.cells) == len(set(outcome.cells)) == 12
    return arrays(workdir)


def test_two_processes_measure_every_cell_once_and_as_one_process(alone, tmp_path):
    """Every scoring is counted by a line that a wrapped function appends."""
    program = f"""
import sys
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(REPOSITORY / "tests" / "support")!r}]
from experiments.scoring import cells
from experiments.report import report
from experiments.grid import run_grid
import test_grid
original = cells.score_texts
def counted(checkpoint, texts, **settings):
    with open({str(tmp_path / "counts")!r}, "a") as file:
        file.write(settings["description"] + "\\n" * len(settings["cuts"]))
    return original(checkpoint, texts, **settings)
cells.score_texts = counted
report.write_report = lambda directory: directory / "report.html"
work = Path({str(tmp_path / "work")!r})
found = run_grid([test_grid.study(work), test_grid.study(work, "tiny_dpo")], test_grid.silent)
assert not found.failures, found.failures
assert len(found.cells) == 12
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
            # Compiled as here, so that bits can be compared.
            env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        )
        for _ in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    # Two pairs, two deltas, two sides; each scoring covers its three alphas.
    assert len((tmp_path / "counts").read_text().split("\n")) - 1 == 2 * 2 * 2 * 3
    for side in ("base", "rl"):
        saved = tmp_path / "work" / "tiny_grpo" / "arithmetic" / f"responses_{side}.jsonl"
        answered = [json.loads(line)["idx"] for line in saved.read_text().splitlines()]
        assert sorted(answered) == list(range(24)), "no response is generated twice"
    found = arrays(tmp_path / "work")
    assert found.keys() == alone.keys()
    assert len(found) == 24
    for name, scores in found.items():
        np.testing.assert_array_equal(scores, alone[name])


@pytest.mark.usefixtures("no_report")
def test_a_second_run_computes_nothing_again(tmp_path, monkeypatch):
    settings = study(tmp_path)
    run_grid([settings], silent)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results_*.npz")}

    def never(*_, **__):
        raise AssertionError("scored again")

    monkeypatch.setattr(cells, "score_texts", never)
    outcome = run_grid([settings], silent)
    assert outcome.failures == []
    assert len(outcome.cells) == 6
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results_*.npz")}


@pytest.mark.usefixtures("no_report")
def test_a_failed_cell_is_named_and_stops_no_other(tmp_path, monkeypatch):
    settings = study(tmp_path)
    original = cells.select

    def picky(rows, rule):
        if rule.alpha == 0.2 and rule.delta == 0.5:
            raise InputError("selection: no row is left")
        return original(rows, rule)

    monkeypatch.setattr(cells, "select", picky)
    outcome = run_grid([settings], silent)
    assert outcome.failures == [("tiny_grpo, arithmetic, alpha 0.2", "selection: no row is left")]
    assert len(outcome.cells) == 5
    assert len(outcome.reports) == 1


@pytest.mark.usefixtures("no_report")
def test_a_pair_that_cannot_be_opened_leaves_the_others_alone(tmp_path):
    missing = dataclasses.replace(PAIRS["tiny_ppo"], rl=str(tmp_path / "nowhere"))
    bad = dataclasses.replace(study(tmp_path), pair=missing)
    outcome = run_grid([bad, study(tmp_path)], silent)
    ((name, message),) = outcome.failures
    assert name == "tiny_ppo"
    assert "no such directory" in message
    assert len(outcome.cells) == 6


def test_a_model_against_itself_is_a_failure_and_measures_nothing(tmp_path):
    twice = dataclasses.replace(PAIRS["tiny_grpo"], rl=PAIRS["tiny_grpo"].base)
    outcome = run_grid([dataclasses.replace(study(tmp_path), pair=twice)], silent)
    ((name, message),) = outcome.failures
    assert name == "tiny_grpo"
    assert "the two models are identical, and nothing is measured" in message
    assert (outcome.reports, outcome.cells) == ([], [])
    assert list(tmp_path.rglob("*.*")) == [], "an answer or a report"


@pytest.mark.usefixtures("no_report")
def test_a_fault_of_the_system_stops_no_other_pair(tmp_path, monkeypatch):
    """As a full disk or a folder without permission would."""
    original = cells.store.write_results

    def full(path, scores):
        if "tiny_dpo" in str(path):
            raise OSError(28, "No space left on device", str(path))
        original(path, scores)

    monkeypatch.setattr(cells.store, "write_results", full)
    outcome = run_grid([study(tmp_path, "tiny_dpo"), study(tmp_path)], silent)
    assert {name.split(",")[0] for name, _ in outcome.failures} == {"tiny_dpo"}
    assert all("No space left" in message for _, message in outcome.failures)
    assert len(outcome.cells) == 6


@pytest.mark.usefixtures("no_report")
def test_scores_that_are_all_zero_have_no_health_and_a_report(tmp_path, monkeypatch):
    original = cells.score_texts

    def zero(*args, **settings):
        found = original(*args, **settings)
        return [
            dataclasses.replace(one, scores_nWR=0 * one.scores_nWR, health=float("nan"))
            for one in found
        ]

    monkeypatch.setattr(cells, "score_texts", zero)
    told = []
    outcome = run_grid([study(tmp_path)], told.append)
    assert outcome.failures == []
    assert len(outcome.reports) == 1
    assert "arithmetic, alpha 0.3: column-sum health base undefined, rl undefined" in " ".join(told)


def test_cells_of_other_rules_lie_apart_and_say_so():
    rules = (Rule(alpha=0.1), Rule(alpha=0.1, delta=0.6))
    names = {cells.cell_name("gsm8k", rule) for rule in rules}
    assert names == {"gsm8k, alpha 0.1", "gsm8k, alpha 0.1, delta 0.6"}


@pytest.mark.usefixtures("no_report")
def test_metrics_file_holds_what_the_score_files_give(tmp_path):
    run_grid([study(tmp_path)], silent)
    cell = tmp_path / "tiny_grpo" / "arithmetic" / "cut0.3"
    found = json.loads((cell / "metrics.json").read_text())
    for side in ("base", "rl"):
        name = f"results_tiny_grpo_arithmetic_{side}_cut0.3.npz"
        scores_nWR = np.load(cell / name)["all_scores"]
        for key, formula in FORMULAS.items():
            expected = formula(scores_nWR)
            assert found["metrics"][key][side] == pytest.approx(expected, rel=1e-12)
    assert found["samples"] == len(scores_nWR)
