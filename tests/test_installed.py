"""The wheel is whole, and its scripts are the programs, in a folder with an `experiments` of its own."""

import configparser
import email
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from binaries import REPOSITORY

PACKAGES = ("eap_jax", "converters", "experiments")
SCRIPTS = {
    "eap-run": "experiments.run",
    "eap-sweep": "experiments.sweep",
    "eap-crosscheck": "experiments.crosscheck",
    "eap-bench": "experiments.bench",
    "eap-convert": "converters.convert",
}
_BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
# Runs where a user is: of each script and of its module the exit code and output of --help and
# --version, each in a process forked after the imports.
_DRIVER = """
import importlib, io, json, os, runpy, sys
from absl import flags

def ending(argv, call):
    reading, writing = os.pipe()
    if os.fork() == 0:
        sys.argv, sys.stdout, code = argv, io.StringIO(), None
        try:
            call()
        except SystemExit as stop:
            code = stop.code
        os.write(writing, json.dumps([code, sys.stdout.getvalue()]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.wait()
    return json.loads(text)

targets = {}
for script, target in json.loads(sys.argv[1]).items():
    module, name = target.split(":")
    entry = getattr(importlib.import_module(module), name)
    owners = {flag: flags.FLAGS.find_module_defining_flag(flag) for flag in flags.FLAGS}
    ours = [flag for flag, owner in owners.items() if owner.startswith(("exp", "conv", "eap"))]
    targets[script] = entry, module, ours
found = {"files": {name: sys.modules[name].__file__ for name in ("experiments", "converters")}}
for script, (entry, module, defined) in targets.items():
    def again():
        del sys.modules[module]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    found[script] = {
        "defined at import": defined,
        "script": ending(["NAME", "--help"], entry),
        "module": ending(["NAME", "--help"], again),
        "version": ending(["NAME", "--version"], entry),
    }
from experiments.grading.grade import grade
from experiments.study.pairs import PAIRS
found["graded"] = grade(r"\\boxed{\\frac12}", "0.5").correct
found["start"] = PAIRS["tiny_grpo"].base
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without network from a copy of what it is made of."""
    folder = tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, folder / "source" / name, ignore=skip)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copyfile(REPOSITORY / name, folder / "source" / name)
    subprocess.run(
        [sys.executable, "-c", _BUILD, str(folder)],
        cwd=folder / "source", check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def scripts(wheel):
    """Target of each console script."""
    (path,) = wheel.glob("*.dist-info/entry_points.txt")
    found = configparser.ConfigParser()
    found.read(path)
    return dict(found["console_scripts"])


@pytest.fixture(scope="module")
def endings(wheel, scripts, tmp_path_factory):
    """What `_DRIVER` prints in a folder whose own packages end every program that imports them."""
    folder = tmp_path_factory.mktemp("users")
    for name in PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('the wrong package')\n")
    (folder.parent / "driver.py").write_text(_DRIVER)
    done = subprocess.run(
        [sys.executable, str(folder.parent / "driver.py"), json.dumps(scripts)],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(wheel)}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_wheel_holds_every_module_and_every_file_that_they_read(wheel):
    def files(root, *patterns):
        return {
            str(path.relative_to(root))
            for pattern in patterns
            for path in root.glob(pattern)
            if path.is_file() and "__pycache__" not in path.parts
        }

    patterns = [f"{name}/**/*.py" for name in PACKAGES] + [f"{name}/py.typed" for name in PACKAGES]
    patterns += ["experiments/checkpoints/**/*", "experiments/report/templates/**/*"]
    patterns += ["experiments/arithmetic/*.json"]
    expected = files(REPOSITORY, *patterns)
    assert {f"{name}/py.typed" for name in PACKAGES} <= expected
    assert "experiments/report/templates/report.html.j2" in expected
    assert "experiments/arithmetic/tellings.json" in expected
    assert "experiments/checkpoints/tiny_grpo/model.safetensors" in expected
    assert files(wheel, *patterns) == expected
    assert not list(wheel.glob("tests*"))


def test_the_metadata_names_nobody_and_holds_the_readme(wheel):
    (path,) = wheel.glob("*.dist-info/METADATA")
    found = email.message_from_bytes(path.read_bytes())
    for field in ("Author", "Author-email", "Maintainer", "Home-page", "Project-URL"):
        assert field not in found
    assert found["Description-Content-Type"] == "text/markdown"
    assert found.get_payload(decode=True) == (REPOSITORY / "README.md").read_bytes()


def test_there_is_a_script_for_each_program(scripts):
    assert {name: target.split(":")[0].removesuffix(".__main__") for name, target in
            scripts.items()} == SCRIPTS  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_the_same_program_as_its_module(script, endings):
    found = endings[script]
    assert found["defined at import"] == []
    code, text = found["script"]
    assert code == 0
    assert f"python -m {SCRIPTS[script]}" in text
    assert "flags:\n\nNAME:\n  --" in text
    # Above its flags, a module is named by its file.
    assert re.sub(r"(?m)^/.*\.py:$", "NAME:", found["module"][1]) == text


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_version_is_that_of_setup_py_and_needs_no_other_flag(script, endings):
    (line,) = [x for x in (REPOSITORY / "setup.py").read_text().splitlines() if "version=" in x]
    assert endings[script]["version"] == [0, f"eap-jax {line.split(chr(34))[1]}\n"]


def test_a_users_own_packages_are_not_in_the_way(endings, wheel):
    """Not even of the process that compares formulas, nor of the embedded models."""
    assert all(path.startswith(str(wheel)) for path in endings["files"].values())
    assert endings["graded"]
    assert endings["start"] == str(wheel / "experiments" / "checkpoints" / "tiny_start")


def test_every_extra_that_is_named_can_be_asked_for(wheel):
    """pip before 23.3 compares letter by letter, and leaves out what it does not find."""
    (path,) = wheel.glob("*.dist-info/METADATA")
    offered = set(email.message_from_string(path.read_text()).get_all("Provides-Extra"))
    sources = [REPOSITORY / "README.md", REPOSITORY / ".ci" / "run"]
    sources += [path for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py")]
    named = set()
    for source in sources:
        for extras in re.findall(r'"\.\[([\w,-]+)\]"', source.read_text()):
            named |= set(extras.split(","))
    assert {"test", "gpu-compile"} <= named <= offered
