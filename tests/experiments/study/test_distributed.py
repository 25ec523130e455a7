"""Two processes that share one mesh find what one process finds, and only the first writes."""

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import toys

from experiments.errors import InputError
from experiments.study import distributed

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
# Several processes cut no edges, so the run that they are held against need not either.
UNCUT = ("--fidelity=off",)
# What is compared are answers and scores, not pictures.
QUICKLY = {"blank_figures": True}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def results(workdir: Path) -> dict[str, np.ndarray]:
    return {path.name: np.load(path)["all_scores"] for path in workdir.rglob("results_*.npz")}


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
    """Process 0's file holds some answers already; both processes generate the others, and score."""
    flags = ("--num_questions=12", "--num_samples=4", "--max_new_tokens=24", *UNCUT)
    done = processes.run("experiments.run", *flags, f"--workdir={tmp_path / 'one'}", **QUICKLY)
    assert done.code == 0, done
    whole = tmp_path / "one" / "tiny_grpo"
    names = [f"arithmetic/responses_{side}.jsonl" for side in ("base", "rl")]
    begun = tmp_path / "work0" / "tiny_grpo"
    (begun / "arithmetic").mkdir(parents=True)
    shutil.copy(whole / "arithmetic" / "answers.json", begun / "arithmetic")
    lines = (whole / names[0]).read_text().splitlines(keepends=True)
    (begun / names[0]).write_text("".join(lines[1::2]))
    run_two(processes, tmp_path, *flags)
    for name in names:
        found, expected = ((folder / name).read_text().splitlines() for folder in (begun, whole))
        assert sorted(found) == sorted(expected)
    mine, theirs = results(begun), results(whole)
    assert mine.keys() == theirs.keys()
    for name, scores_nWR in theirs.items():
        assert toys.relative(mine[name], scores_nWR) <= 1e-5


def test_two_processes_score_as_the_published_program_does(processes, tmp_path):
    toy = GOLDEN / "checkpoints" / "toy_qwen"
    run_two(
        processes, tmp_path, "--pair=toy", *UNCUT, "--alpha=0.3", "--num_samples=6",
        f"--base_checkpoint={toy}_base", f"--rl_checkpoint={toy}_rl",
        f"--responses={GOLDEN}/responses/qwen/math/all_correct.jsonl",
    )  # fmt: skip
    found = results(tmp_path / "work0")
    assert len(found) == 2
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
