"""A grid measures every cell once, whoever works on it, and a failed cell stops no other."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from paired_scores import FORMULAS
from small_grid import RULES, silent, study

from experiments.errors import InputError
from experiments.grid import run_grid
from experiments.report import report
from experiments.scoring import cells
from experiments.study.pairs import PAIRS
from experiments.study.rule import Rule
from experiments.study.settings import Study


def few(workdir: Path, finished: Path, *rules: Rule, pair: str = "tiny_grpo") -> Study:
    """A study of some rules in a new workdir, where the answers of a finished one lie already."""
    keep = shutil.ignore_patterns("cut*", "figures", "manifest.json")
    shutil.copytree(finished / pair, workdir / pair, ignore=keep)
    return study(workdir, pair, rules=rules or (Rule(alpha=0.3),))


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
    """The workdir of one process on the grid of 12 cells."""
    workdir = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_report", lambda directory: directory / "report.html")
        outcome = run_grid([study(workdir), study(workdir, "tiny_dpo")], silent)
    assert outcome.failures == []
    assert len(outcome.cells) == len(set(outcome.cells)) == 12
    return workdir


def test_two_processes_measure_every_cell_once_and_as_one_process(processes, alone, tmp_path):
    """Compiled as here, so that bits can be compared."""
    command = [tmp_path / "counts", tmp_path / "work"]
    done = processes.run_together("small_grid", [command] * 2, quick_compiler=True)
    assert [one.code for one in done] == [0, 0], done
    # Two pairs, two deltas, two sides; each scoring covers its three alphas.
    assert len((tmp_path / "counts").read_text().split("\n")) - 1 == 2 * 2 * 2 * 3
    for side in ("base", "rl"):
        saved = tmp_path / "work" / "tiny_grpo" / "arithmetic" / f"responses_{side}.jsonl"
        answered = [json.loads(line)["idx"] for line in saved.read_text().splitlines()]
        assert sorted(answered) == list(range(24)), "no response is generated twice"
    found, expected = arrays(tmp_path / "work"), arrays(alone)
    assert found.keys() == expected.keys()
    assert len(found) == 24
    for name, scores in found.items():
        np.testing.assert_array_equal(scores, expected[name])


@pytest.mark.usefixtures("no_report")
def test_a_second_run_computes_nothing_again(alone, tmp_path, monkeypatch):
    settings = study(tmp_path)
    shutil.copytree(alone / "tiny_grpo", tmp_path / "tiny_grpo")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results_*.npz")}

    def never(*_, **__):
        raise AssertionError("scored again")

    monkeypatch.setattr(cells, "score_texts", never)
    outcome = run_grid([settings], silent)
    assert outcome.failures == []
    assert len(outcome.cells) == 6
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results_*.npz")}


@pytest.mark.usefixtures("no_report")
def test_a_failed_cell_is_named_and_stops_no_other(alone, tmp_path, monkeypatch):
    settings = few(tmp_path, alone, Rule(alpha=0.2, delta=0.4), *RULES[3:])
    original = cells.select

    def picky(rows, rule):
        if rule.alpha == 0.2 and rule.delta == 0.5:
            raise InputError("selection: no row is left")
        return original(rows, rule)

    monkeypatch.setattr(cells, "select", picky)
    outcome = run_grid([settings], silent)
    assert outcome.failures == [("tiny_grpo, arithmetic, alpha 0.2", "selection: no row is left")]
    assert len(outcome.cells) == 3
    assert len(outcome.reports) == 1


@pytest.mark.usefixtures("no_report")
def test_a_pair_that_cannot_be_opened_leaves_the_others_alone(alone, tmp_path):
    missing = dataclasses.replace(PAIRS["tiny_ppo"], rl=str(tmp_path / "nowhere"))
    bad = dataclasses.replace(study(tmp_path), pair=missing)
    outcome = run_grid([bad, few(tmp_path, alone)], silent)
    ((name, message),) = outcome.failures
    assert name == "tiny_ppo"
    assert "no such directory" in message
    assert outcome.cells == ["tiny_grpo, arithmetic, alpha 0.3"]


def test_a_model_against_itself_is_a_failure_and_measures_nothing(tmp_path):
    twice = dataclasses.replace(PAIRS["tiny_grpo"], rl=PAIRS["tiny_grpo"].base)
    outcome = run_grid([dataclasses.replace(study(tmp_path), pair=twice)], silent)
    ((name, message),) = outcome.failures
    assert name == "tiny_grpo"
    assert "the two models are identical, and nothing is measured" in message
    assert (outcome.reports, outcome.cells) == ([], [])
    assert list(tmp_path.rglob("*.*")) == [], "an answer or a report"


@pytest.mark.usefixtures("no_report")
def test_a_fault_of_the_system_stops_no_other_pair(alone, tmp_path, monkeypatch):
    """As a full disk or a folder without permission would."""
    original = cells.store.write_results

    def full(path, scores):
        if "tiny_dpo" in str(path):
            raise OSError(28, "No space left on device", str(path))
        original(path, scores)

    monkeypatch.setattr(cells.store, "write_results", full)
    studies = [few(tmp_path, alone, pair=pair) for pair in ("tiny_dpo", "tiny_grpo")]
    outcome = run_grid(studies, silent)
    assert {name.split(",")[0] for name, _ in outcome.failures} == {"tiny_dpo"}
    assert all("No space left" in message for _, message in outcome.failures)
    assert outcome.cells == ["tiny_grpo, arithmetic, alpha 0.3"]


@pytest.mark.usefixtures("no_report")
def test_scores_that_are_all_zero_have_no_health_and_a_report(alone, tmp_path, monkeypatch):
    original = cells.score_texts

    def zero(*args, **settings):
        found = original(*args, **settings)
        return [
            dataclasses.replace(one, scores_nWR=0 * one.scores_nWR, health=float("nan"))
            for one in found
        ]

    monkeypatch.setattr(cells, "score_texts", zero)
    told = []
    outcome = run_grid([few(tmp_path, alone)], told.append)
    assert outcome.failures == []
    assert len(outcome.reports) == 1
    assert "arithmetic, alpha 0.3: column-sum health base undefined, rl undefined" in " ".join(told)


def test_cells_of_other_rules_lie_apart_and_say_so():
    rules = (Rule(alpha=0.1), Rule(alpha=0.1, delta=0.6))
    names = {cells.cell_name("gsm8k", rule) for rule in rules}
    assert names == {"gsm8k, alpha 0.1", "gsm8k, alpha 0.1, delta 0.6"}


def test_metrics_file_holds_what_the_score_files_give(alone):
    cell = alone / "tiny_grpo" / "arithmetic" / "cut0.3"
    found = json.loads((cell / "metrics.json").read_text())
    for side in ("base", "rl"):
        name = f"results_tiny_grpo_arithmetic_{side}_cut0.3.npz"
        scores_nWR = np.load(cell / name)["all_scores"]
        for key, formula in FORMULAS.items():
            expected = formula(scores_nWR)
            assert found["metrics"][key][side] == pytest.approx(expected, rel=1e-12)
    assert found["samples"] == len(scores_nWR)
