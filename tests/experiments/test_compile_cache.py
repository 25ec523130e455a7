"""Compiled programs are kept where a user has a place for them, and nowhere else is a mistake."""

import os
import subprocess
import sys

import pytest
from binaries import REPOSITORY

_FOLDER = """
import pathlib
if "{home}" == "none":
    def missing():
        raise RuntimeError("Could not determine home directory.")
    pathlib.Path.home = missing
import jax
from experiments.compile_cache import keep_compiled
keep_compiled()
print(jax.config.jax_compilation_cache_dir)
"""


def folder(home="some", **environment):
    """Where a process with this environment keeps its programs."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", _FOLDER.format(home=home)],
        cwd=REPOSITORY, env=kept | environment, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


def test_programs_are_kept_in_the_users_cache_folder(tmp_path):
    expected = str(tmp_path / "eap_jax" / "compiled")
    assert folder(XDG_CACHE_HOME=str(tmp_path)) == expected
    assert os.path.isdir(expected)
    assert folder(HOME=str(tmp_path)) == str(tmp_path / ".cache" / "eap_jax" / "compiled")


def test_jaxs_own_setting_comes_first(tmp_path):
    assert folder(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine")) == str(tmp_path / "mine")


@pytest.mark.parametrize("place", ["no home", "a file in the way"])
def test_without_a_place_programs_are_compiled_each_time(place, tmp_path):
    if place == "no home":
        assert folder(home="none") == "None"
    else:
        (tmp_path / "file").write_text("")
        assert folder(XDG_CACHE_HOME=str(tmp_path / "file")) == "None"
