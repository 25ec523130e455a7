"""No silent CPU: what is asked for and not there ends in a line, what is there and idle is named."""

import os
import re
import subprocess
import sys
import tempfile

import jax
import pytest
from binaries import REPOSITORY

from experiments import devices
from experiments.errors import InputError


@pytest.fixture
def platforms():
    """`platforms(text)` sets JAX_PLATFORMS as JAX read it."""
    before = jax.config.jax_platforms
    yield lambda text: jax.config.update("jax_platforms", text)
    jax.config.update("jax_platforms", before)


def machine(root, *files):
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("dev/nvidia0", 'NVIDIA GPU that JAX does not use, .*: pip install "jax.cuda12."'),
        ("proc/driver/nvidia/gpus/0000:01:00.0", "NVIDIA GPU"),
        ("dev/kfd", "AMD GPU .*rocm"),
        ("dev/accel0", 'TPU .*pip install "jax.tpu."'),
    ],
)
def test_an_idle_accelerator_is_named_with_what_to_install(
    tmp_path, platforms, monkeypatch, file, named
):
    platforms("")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.idle_accelerator(tmp_path) is None
    machine(tmp_path, file, "dev/nvidiactl")
    assert re.search(named, devices.idle_accelerator(tmp_path))
    platforms("cpu")
    assert devices.idle_accelerator(tmp_path) is None, "the CPU is meant"


def test_a_hidden_card_is_not_missed(tmp_path, platforms, monkeypatch):
    platforms("")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.idle_accelerator(machine(tmp_path, "dev/nvidia0")) is None


def test_each_process_takes_its_own_card_of_those_that_the_scheduler_lists(tmp_path, monkeypatch):
    root = machine(tmp_path, "dev/nvidia0")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(devices, "_TAKEN", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7f")
    devices.take_card(1, root)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-7f"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7f")
    with pytest.raises(InputError, match="card 1: another process of this program has it"):
        devices.take_card(1, root)
    with pytest.raises(InputError, match="card 2: expected a place among .*=4,GPU-7f, found 2"):
        devices.take_card(2, root)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    devices.take_card(0, root)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    for lock in devices._TAKEN:
        lock.release()


def test_a_card_without_a_driver_is_an_error(tmp_path):
    with pytest.raises(InputError, match="card 0: expected a GPU or TPU"):
        devices.take_card(0, tmp_path)


def test_a_mesh_of_more_devices_than_there_are_names_the_flag_that_simulates_them():
    devices.require(4, "data:4")
    with pytest.raises(
        InputError, match=r"data:8.*expected 8 devices, found 4.*--simulated_devices=8"
    ):
        devices.require(8, "data:8")


def test_a_mesh_without_a_device_of_one_of_the_processes_is_an_error(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(
        InputError, match="mesh 'data:2': expected devices of all 2 processes, found .* 1; .*data:4"
    ):
        devices.require(2, "data:2")


def test_a_card_that_jax_does_not_use_is_an_error():
    with pytest.raises(InputError, match="card 0: JAX was told to use the CPU"):
        devices.require(1, "", card=0)


def test_an_accelerator_asked_for_and_not_there_ends_every_program_in_one_line(tmp_path):
    """The only fresh process: JAX reads JAX_PLATFORMS when it is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", f"--workdir={tmp_path / 'runs'}"],
        cwd=REPOSITORY, env=os.environ | {"JAX_PLATFORMS": "cuda"}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "JAX_PLATFORMS=cuda: expected a device of it, found none" in error
    assert 'pip install "jax[cuda12]"' in error
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
