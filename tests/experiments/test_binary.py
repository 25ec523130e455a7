"""A binary ends a user's mistake in one line and a known exit code, and hides no defect of ours."""

import subprocess
import sys

import pytest
from binaries import REPOSITORY

_BINARY = """
import sys
from absl import flags
import warnings
from converters.errors import CheckpointError, CheckpointWarning
from experiments.errors import InputError
from experiments.binary import run_main

def define_flags():
    flags.DEFINE_integer("count", 3, "How many.", lower_bound=1)
    flags.DEFINE_enum("end", "good", ["good", "one", "input", "checkpoint", "file", "late", "stop",
                                      "defect", "warned"], "How to end.")

def main(_):
    print("count", flags.FLAGS.count)
    end = flags.FLAGS.end
    if end == "input":
        raise InputError("a.jsonl: line 3:\\n  expected x,\\n  found y")
    if end == "checkpoint":
        raise CheckpointError("model: no weights")
    if end == "warned":
        for text in ("config.json:\\n  ignored", "config.json:\\n  ignored", "another"):
            with warnings.catch_warnings():  # what a library does; Python then shows it again
                warnings.simplefilter("default")
            warnings.warn(text, CheckpointWarning)
    if end == "file":
        open("/nowhere/at/all")
    if end == "late":
        raise flags.Error("two flags contradict each other")
    if end == "stop":
        raise KeyboardInterrupt
    if end == "defect":
        raise KeyError("ours")
    return 1 if end == "one" else 0

run_main(main, define_flags)
"""


@pytest.mark.parametrize(
    ("argv", "code", "stderr"),
    [
        ([], 0, ""),
        (["--end=one"], 1, ""),
        (["--end=warned"], 0, "warning: config.json: ignored\nwarning: another\n"),
        (["--end=input"], 1, "error: a.jsonl: line 3: expected x, found y\n"),
        (["--end=checkpoint"], 1, "error: model: no weights\n"),
        (["--end=file"], 1, "error: [Errno 2] No such file or directory: '/nowhere/at/all'\n"),
        (["--end=late"], 2, "error: two flags contradict each other\n"),
        (["--end=stop"], 130, "interrupted\n"),
        (["--cuont=2"], 2, "error: Unknown command line flag 'cuont'. Did you mean: count ?\n"),
        (["two"], 2, "error: unexpected argument 'two'\n"),
    ],
)
def test_each_ending_has_its_code_and_one_line_for_each_message(argv, code, stderr):
    done = _run(argv)
    assert done.returncode == code
    assert done.stderr == stderr


@pytest.mark.parametrize(
    ("argv", "named"),
    [("--count=0", "--count=0"), ("--count=x", "count"), ("--end=no", "--end=no")],
)
def test_a_bad_flag_value_is_named_before_anything_runs(argv, named):
    done = _run([argv])
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line


def test_help_is_no_failure():
    done = _run(["--help"])
    assert done.returncode == 0
    assert "--count" in done.stdout
    assert done.stderr == ""


def test_a_defect_shows_its_traceback():
    done = _run(["--end=defect"])
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError" in done.stderr


def _run(argv):
    return subprocess.run(
        [sys.executable, "-c", _BINARY, *argv],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
