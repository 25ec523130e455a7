"""The compiler for GPUs, installed on a machine without one, is in the way of nobody."""

import os
import subprocess
import sys

import pytest

from converters import cuda_plugin

# As if no driver were there, wherever this test runs.
WITHOUT_DRIVER = """
import ctypes, sys
def load(name, *more, plain=ctypes.CDLL, **options):
    if str(name).startswith("libcuda.so"):
        raise OSError("no driver")
    return plain(name, *more, **options)
ctypes.CDLL = load
import experiments.binary
import jax
print(jax.devices()[0].platform, sys.modules.get("jax_plugins.xla_cuda12"))
"""


def test_without_a_driver_nothing_is_said_of_it():
    """JAX alone writes a traceback: CUDA cannot be loaded."""
    if not cuda_plugin.is_installed():
        pytest.skip('the compiler for GPUs is not installed: pip install ".[gpu-compile]"')
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DRIVER],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.startswith("cpu ")
    assert "xla_cuda_plugin" not in done.stdout


@pytest.fixture
def modules(monkeypatch):
    """`sys.modules` of the plugin alone, with none of it loaded."""
    found = {}
    monkeypatch.setattr(cuda_plugin.sys, "modules", found)
    monkeypatch.setattr(cuda_plugin, "_is_found", lambda name: True)
    return found


def test_it_is_left_out_and_taken_in_again(modules, monkeypatch):
    monkeypatch.setattr(cuda_plugin, "_has_driver", lambda: False)
    cuda_plugin.leave_out()
    assert modules["jax_cuda12_plugin"] is None
    modules["jax_plugins.xla_cuda12"].initialize()  # what JAX calls
    assert cuda_plugin.is_installed()
    cuda_plugin.take_in()
    assert modules == {}


def test_where_a_driver_is_jax_finds_it(modules, monkeypatch):
    monkeypatch.setattr(cuda_plugin, "_has_driver", lambda: True)
    cuda_plugin.leave_out()
    assert modules == {}


def test_one_that_is_loaded_stays(modules, monkeypatch):
    """A program that imported JAX before this one."""
    monkeypatch.setattr(cuda_plugin, "_has_driver", lambda: False)
    loaded = object()
    modules["jax_cuda12_plugin"] = modules["jax_plugins.xla_cuda12"] = loaded
    cuda_plugin.leave_out()
    cuda_plugin.take_in()
    assert set(modules.values()) == {loaded}
