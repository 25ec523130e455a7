"""`experiments.run` from questions to the report: killed at any moment, it ends as if it was not."""

import json
import random
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import run
from experiments.errors import InputError
from experiments.report.gather import gather

FLAGS = ("--num_questions=48", "--batch_answers=8", "--alpha=0.3")
RESPONSES = ("responses_base.jsonl", "responses_rl.jsonl")


@pytest.fixture(scope="module")
def unbroken(processes, tmp_path_factory):
    """An unbroken run of the default pair: how it ended, and its directory."""
    workdir = tmp_path_factory.mktemp("unbroken")
    done = processes.run("experiments.run", f"--workdir={workdir}", *FLAGS)
    assert done.code == 0, done
    return done, workdir / "tiny_grpo"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"questions": "q.jsonl", "data_dir": "d"}, "--questions and --data_dir contradict"),
        (
            {"responses": "r.jsonl", "questions": "q.jsonl"},
            "--responses and --questions contradict",
        ),
        ({"responses": "r.jsonl", "data_dir": "d"}, "--responses and --data_dir contradict"),
        (
            {"responses": "r.jsonl", "answer_field": "a"},
            "--responses and --answer_field contradict",
        ),
        ({"questions": ""}, "questions: expected a path, found none"),
        ({"data_dir": " "}, "data_dir: expected a path, found none"),
        ({"question_field": ""}, "question_field: expected a field, found none"),
        ({"base_responses": "b", "data_dir": "d"}, "data_dir: --dataset names the questions"),
    ],
)
def test_sources_that_contradict_each_other_or_are_empty_are_errors(monkeypatch, given, said):
    names = ("questions", "data_dir", "responses", "base_responses", "rl_responses", "dataset",
             "base_checkpoint", "rl_checkpoint", "question_field", "answer_field")  # fmt: skip
    values = SimpleNamespace(**(dict.fromkeys(names) | given))
    monkeypatch.setattr(run.flags, "FLAGS", values)
    with pytest.raises(InputError, match=said):
        run._check_sources()


def harness_file(path, given, reverse=False):
    """One side's answers as an evaluation harness would have written them."""
    rows = [
        {
            "idx": line["idx"], "question": line["question"], "gt": line["gt"],
            "prompt_token_ids": line["prompt_tokens"], "generate_token_ids": line["answer_tokens"],
        }
        for line in map(json.loads, given.read_text().splitlines())
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows[::-1] if reverse else rows)))
    return path


def test_answers_of_another_program_give_the_same_results(processes, unbroken, tmp_path):
    """README's two flags; the second file in another order."""
    _, expected = unbroken
    files = {
        name: harness_file(tmp_path / name, expected / "arithmetic" / name, name == RESPONSES[1])
        for name in RESPONSES
    }
    flags = [f"--{side}_responses={files[f'responses_{side}.jsonl']}" for side in ("base", "rl")]
    workdir = tmp_path / "runs"
    done = processes.run(
        "experiments.run", "--pair=tiny_grpo", *flags, "--alpha=0.3", f"--workdir={workdir}"
    )
    assert done.code == 0, done
    directory = workdir / "tiny_grpo"
    assert done.stdout[-1] == f"report: {directory / 'report.html'}"
    rows = (directory / "responses" / "all_correct.jsonl").read_text().splitlines()
    known = (expected / "arithmetic" / "all_correct.jsonl").read_text().splitlines()
    assert [json.loads(row)["idx"] for row in rows] == [json.loads(row)["idx"] for row in known]
    mine = {name.split("_")[4]: found for name, found in arrays(directory).items()}
    theirs = {name.split("_")[4]: found for name, found in arrays(expected).items()}
    assert mine.keys() == theirs.keys() == {"base", "rl"}
    for side, scores in mine.items():
        assert np.linalg.norm(scores - theirs[side]) <= 1e-5 * np.linalg.norm(scores)
    study = gather([directory])
    assert [(a.side, a.total) for a in study.accuracies] == [("base", 48), ("rl", 48)]
    assert study.cells[0].funnel[0].rows == 48


def test_another_number_of_questions_is_refused_before_any_answer(processes, unbroken, tmp_path):
    _, expected = unbroken
    shutil.copytree(expected, tmp_path / "tiny_grpo")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = processes.run("experiments.run", f"--workdir={tmp_path}", "--num_questions=60")
    assert done.code == 1
    (error,) = [line for line in done.stderr if line.startswith("error: ")]
    assert "questions.number: expected 60, found 48" in error
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["results_tiny_grpo_arithmetic_rl_cut0.3", "effects_base"])
def test_a_saved_file_that_claims_terabytes_ends_a_run_in_one_line_that_names_it(
    processes, unbroken, tmp_path, name
):
    """Under a limit of address space, so an allocation of the claim could not succeed."""
    _, expected = unbroken
    shutil.copytree(expected, tmp_path / "tiny_grpo")
    path = tmp_path / "tiny_grpo" / "arithmetic" / "cut0.3" / f"{name}.npz"
    with np.load(path) as saved:
        dtypes = {key: saved[key].dtype.str for key in saved.files}
    with zipfile.ZipFile(path, "w") as archive:
        for key, dtype in dtypes.items():
            header = {"descr": dtype, "fortran_order": False, "shape": (2**20, 2**20, 2**10)}
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.write(bytes(64))
    argv = (f"--workdir={tmp_path}", *FLAGS)
    done = processes.run("experiments.run", *argv, room=int(1.5 * 2**30))
    assert done.code == 1, done
    (error,) = [line for line in done.stderr if line.startswith("error: ")]
    assert str(path) in error
    assert "its header claims 4,503,599,627,370,496 bytes" in error
    assert not any("Traceback" in line for line in done.stderr)


def test_a_run_that_failed_before_its_first_answer_binds_nobody_to_its_settings(
    processes, tmp_path
):
    """Its prompt is one that the tokenizer does not know; the corrected command goes through."""
    flags = (f"--workdir={tmp_path}", "--num_questions=16", "--alpha=0.3")
    done = processes.run("experiments.run", *flags, "--prompt=User: {question}")
    assert done.code == 1
    (error,) = [line for line in done.stderr if line.startswith("error: ")]
    assert "found 'User:' in 'User: " in error
    done = processes.run("experiments.run", *flags)
    assert done.code == 0, done
    assert done.stdout[-1] == f"report: {tmp_path / 'tiny_grpo' / 'report.html'}"


@pytest.mark.parametrize("binary", ["run", "sweep"])
def test_help_explains_the_shared_flags_too(processes, binary):
    done = processes.run(f"experiments.{binary}", "--help")
    assert done.code == 0
    text = "\n".join(done.stdout)
    for flag in ("alpha", "data_dir", "workdir", "mesh", "memory", "numerics", "coordinator"):
        assert f"--{flag}:" in text


def progress(directory) -> int:
    """Saved answers and files: how far a run has come."""
    files = [p for p in directory.rglob("*") if p.is_file() and not p.name.startswith(".")]
    lines = sum(p.read_bytes().count(b"\n") for p in files if p.name in RESPONSES)
    return lines + sum(p.suffix != ".lock" for p in files)


def answered(directory) -> dict[str, bytes]:
    """Each side's saved answers, without a line that a kill cut off."""
    found = {}
    for name in RESPONSES:
        path = directory / "arithmetic" / name
        text = path.read_bytes() if path.exists() else b""
        found[name] = text[: text.rfind(b"\n") + 1]
    return found


def arrays(directory):
    return {
        str(path.relative_to(directory)): np.load(path)["all_scores"]
        for path in sorted(directory.rglob("results_*.npz"))
    }


def test_answers_scores_and_tables_fit_each_other(unbroken):
    done, directory = unbroken
    assert done.stdout[-1] == f"report: {directory / 'report.html'}"
    right = {}
    for side, name in zip(("base", "rl"), RESPONSES, strict=True):
        lines = (directory / "arithmetic" / name).read_text().splitlines()
        found = [json.loads(line) for line in lines]
        assert sorted(line["idx"] for line in found) == list(range(48))
        right[side] = {line["idx"] for line in found if line["score"]}
        share = f"arithmetic, {side}: {len(right[side])} of 48 answers right"
        assert any(line.startswith(share) for line in done.stdout)
    rows = (directory / "arithmetic" / "all_correct.jsonl").read_text().splitlines()
    assert [json.loads(row)["idx"] for row in rows] == sorted(right["base"] & right["rl"])
    cell = json.loads((directory / "arithmetic" / "cut0.3" / "cell.json").read_text())
    found = arrays(directory)
    assert len(found) == 2
    assert {len(scores) for scores in found.values()} == {len(cell["rows"])}
    assert set(cell["rows"]) <= right["base"] & right["rl"]


def test_killed_at_five_random_moments_it_ends_with_the_same_arrays_and_table(
    processes, unbroken, tmp_path
):
    """Each continued run gets some way further, is killed again, and repeats no saved answer."""
    _, expected = unbroken
    whole = progress(expected)
    assert whole > 2 * 48
    moments = sorted(random.Random(5).sample(range(1, whole - 1), 5))
    directory = tmp_path / "tiny_grpo"
    kept = answered(directory)
    for moment in moments:
        done = processes.run(
            "experiments.run",
            f"--workdir={tmp_path}",
            *FLAGS,
            kill_when=lambda: progress(directory) >= moment,  # noqa: B023
        )
        assert done.code == -9
        now = answered(directory)
        for name in RESPONSES:
            lines = now[name].splitlines()
            assert set(kept[name].splitlines()) <= set(lines), "a saved answer is lost"
            numbers = [json.loads(line)["idx"] for line in lines]
            assert len(numbers) == len(set(numbers)), "a saved answer was generated again"
        kept = now
    done = processes.run("experiments.run", f"--workdir={tmp_path}", *FLAGS)
    assert done.code == 0, done
    for name, text in answered(directory).items():
        assert set(kept[name].splitlines()) <= set(text.splitlines())
        assert text == (expected / "arithmetic" / name).read_bytes()
    found = arrays(directory)
    assert found.keys() == arrays(expected).keys()
    for name, scores in arrays(expected).items():
        np.testing.assert_array_equal(found[name], scores)
    cell = "arithmetic/cut0.3"
    for name in (
        "table.md", "table.csv", "views.csv", f"{cell}/metrics.json", f"{cell}/fidelity.json",
    ):  # fmt: skip
        assert (directory / name).read_bytes() == (expected / name).read_bytes()
    litter = [p for p in tmp_path.rglob(".*") if p.is_file()]
    assert litter == []
