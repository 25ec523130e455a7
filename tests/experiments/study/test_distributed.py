"""Two processes that share one mesh find what one process finds, and only the first writes."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import toys

from experiments.errors import InputError
from experiments.study import distributed

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
UNCUT = ("--fidelity=off",)
# What is compared are answers and scores, not pictures.
QUICKLY = {"blank_figures": True}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def results(workdir: Path) -> dict[str, np.ndarray]:
    """Scores of the loss and of the logit difference, by file."""
    paths = [*workdir.rglob("results_*.npz"), *workdir.rglob("logit_difference_*.npz")]
    return {path.name: np.load(path)["all_scores"] for path in paths}


def numbers(found, name: str = "") -> dict[str, object]:
    """Every leaf of a JSON file by its path."""
    if not isinstance(found, dict | list):
        return {name: found}
    parts = found.items() if isinstance(found, dict) else enumerate(found)
    return {k: v for key, part in parts for k, v in numbers(part, f"{name}/{key}").items()}


def run_two(processes, folder: Path, *flags: str) -> None:
    """Two processes with these flags and a workdir each, `work0` and `work1`."""
    port = free_port()
    commands = [
        [
            *flags, f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={number}",
            "--mesh=data:2", f"--workdir={folder / f'work{number}'}",
        ]
        for number in (1, 0)
    ]  # fmt: skip
    done = processes.run_together("experiments.run", commands, **QUICKLY)
    assert [one.code for one in done] == [0, 0], done
    assert not (folder / "work1").exists(), "only process 0 writes"
    assert done[1].stdout[-1].startswith("report: ")


def test_two_processes_answer_and_go_on_as_one_does(processes, tmp_path):
    """Process 0 has some answers, base's effects and rl's circuits already; the rest both make."""
    flags = ("--num_questions=12", "--num_samples=4", "--max_new_tokens=64", "--alpha=0.3")
    done = processes.run("experiments.run", *flags, f"--workdir={tmp_path / 'one'}", **QUICKLY)
    assert done.code == 0, done
    whole = tmp_path / "one" / "tiny_grpo"
    names = [f"arithmetic/responses_{side}.jsonl" for side in ("base", "rl")]
    begun = tmp_path / "work0" / "tiny_grpo"
    (begun / "arithmetic").mkdir(parents=True)
    shutil.copy(whole / "arithmetic" / "answers.json", begun / "arithmetic")
    lines = (whole / names[0]).read_text().splitlines(keepends=True)
    (begun / names[0]).write_text("".join(lines[1::2]))
    (cell,) = whole.glob("arithmetic/cut0.3*")
    cut = begun / cell.relative_to(whole)
    cut.mkdir()
    for name in ("fidelity_plan.json", "effects_base.npz"):
        shutil.copy(cell / name, cut)
    circuits = json.loads((cell / "faithfulness.json").read_text())
    (cut / "faithfulness.json").write_text(json.dumps({"rl": circuits["rl"]}))
    run_two(processes, tmp_path, *flags)
    for name in names:
        found, expected = ((folder / name).read_text().splitlines() for folder in (begun, whole))
        assert sorted(found) == sorted(expected)
    mine, theirs = results(begun), results(whole)
    assert mine.keys() == theirs.keys()
    assert len(mine) == 4
    for name, scores_nWR in theirs.items():
        assert toys.relative(mine[name], scores_nWR) <= 1e-5
    found, expected = (np.load(folder / "effects_rl.npz")["effects"] for folder in (cut, cell))
    assert np.nanmax(np.abs(expected)) > 1
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(expected) == 4
    for name in ("fidelity.json", "faithfulness.json"):
        found, expected = (numbers(json.loads((f / name).read_text())) for f in (cut, cell))
        assert found.keys() == expected.keys()
        for place, value in expected.items():
            # Rounding may exchange two ranks that are almost one.
            ranks = any(figure in place for figure in ("spearman", "sign", "top10"))
            atol = 1e-2 if ranks and name == "fidelity.json" else 1e-5
            assert found[place] == pytest.approx(value, abs=atol), (name, place)


def test_two_processes_score_as_the_published_program_does(processes, tmp_path):
    toy = GOLDEN / "checkpoints" / "toy_qwen"
    run_two(
        processes, tmp_path, "--pair=toy", *UNCUT, "--alpha=0.3", "--num_samples=6",
        f"--base_checkpoint={toy}_base", f"--rl_checkpoint={toy}_rl",
        f"--responses={GOLDEN}/responses/qwen/math/all_correct.jsonl",
    )  # fmt: skip
    found = results(tmp_path / "work0")
    assert len(found) == 2
    assert len(list(tmp_path.rglob("*_on_*_text.npz"))) == 2, "each model on the other's texts"
    for name, scores_nWR in found.items():
        side = "base" if "_base_" in name else "rl"
        whole = toys.golden_scores("qwen", side, 0.3)
        # Six of the golden file's samples, in another order of sampling.
        for scores_WR in scores_nWR:
            closest = min(toys.relative(scores_WR, expected) for expected in whole)
            assert closest <= 1e-5


@pytest.mark.parametrize(
    ("flags", "message"),
    [((None, 2, 0), "expected host:port"), (("127.0.0.1:1", None, 0), "expected num_processes")],
)
def test_incomplete_flags_are_refused_before_anything_starts(flags, message):
    with pytest.raises(InputError, match=message):
        distributed.start(*flags)


def test_one_process_agrees_with_itself_and_gathers_nothing():
    distributed.start(None, None, None)
    assert distributed.agreed(True) is True
    assert distributed.agreed(False) is False
    assert distributed.own_workdir(Path("here")) == Path("here")
