"""Two processes that share one mesh find what one process finds, and only the first writes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toys

from experiments.errors import InputError
from experiments.scoring import distributed

REPOSITORY = Path(__file__).resolve().parents[3]
GOLDEN = REPOSITORY / "tests" / "golden"


def command(workdir: Path, *more: str) -> list[str]:
    toy = GOLDEN / "checkpoints" / "toy_qwen"
    return [
        sys.executable, "-m", "experiments.run", "--pair=toy", "--num_samples=6",
        f"--base_checkpoint={toy}_base", f"--rl_checkpoint={toy}_rl",
        f"--responses={GOLDEN}/responses/qwen/math/all_correct.jsonl", f"--workdir={workdir}",
        *more,
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def results(workdir: Path) -> dict[str, np.ndarray]:
    return {path.name: np.load(path)["all_scores"] for path in workdir.rglob("results_*.npz")}


def test_two_processes_score_as_the_published_program_does(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    port = free_port()
    processes = []
    for number in (1, 0):
        shared = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={number}")
        workdir = tmp_path / f"work{number}"
        processes.append(
            subprocess.Popen(
                command(workdir, "--mesh=data:2", *shared), cwd=REPOSITORY, env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[1][0].splitlines()[-1].startswith("report: ")
    assert not (tmp_path / "work1").exists(), "only process 0 writes"
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
