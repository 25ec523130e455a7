"""The layout of the code: import direction and the house rules that a syntax tree can show."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("eap_jax", "converters", "experiments")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
CODE = [path for path in SOURCES if path.read_text().strip()]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in CODE]
every_source = pytest.mark.parametrize("path", CODE, ids=IDS)

# Floors of the house, the ground first: a room imports from its own folder and from floors below.
# Folders and single files of `experiments/` on one floor do not know of each other.
FLOORS = (
    ("eap_jax",),
    ("converters",),
    ("errors", "compile_cache", "child_python"),
    ("devices", "out_of_memory"),
    ("binary", "jsonl", "store"),
    ("arithmetic", "grading"),
    ("study",),
    ("responses",),
    ("scoring",),
    ("fidelity",),
    ("statistics",),
    ("report", "bench", "posttrain"),
    ("manifest", "crosscheck", "study_flags", "labels"),
    ("grid",),
    ("shared_answers",),
    ("control_grid", "along_grid", "chain_grid"),
    ("run", "sweep", "api"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

MATHEMATICS = {"jax", "flax", "numpy", "scipy", "chex", "eap_jax"}
# The standard library without files, processes, logging, flags or the environment.
PURE = {"collections", "dataclasses", "functools", "itertools", "math", "typing", "enum", "types"}
TORCH = {"torch"}
UNDONE = ("TODO", "FIXME", "XXX", "HACK")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports_of(tree: ast.AST) -> set[str]:
    """Top-level names of all imported modules, function-local imports included."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module.split(".")[0])
    return names


def calls_of(tree: ast.AST, name: str) -> list[ast.Call]:
    """Calls of a function or method by its last name."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and name == getattr(node.func, "attr", getattr(node.func, "id", None))
    ]


def docstring_needed(tree: ast.Module) -> list[str]:
    """Public functions, classes and methods without a docstring (a binary's main and flax's setup
    may do without)."""
    found = []

    def visit(body, inside):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                name = f"{inside}{node.name}"
                if node.name not in ("main", "setup") and not ast.get_docstring(node):
                    found.append(name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{name}.")

    visit(tree.body, "")
    return found


def parses(line: str) -> bool:
    """Whether a line is Python, as it is or with a body."""
    for text in (line, f"{line} pass", f"def f():\n {line}"):
        try:
            ast.parse(text)
        except SyntaxError:
            continue
        return True
    return False


def test_the_walk_sees_every_package():
    """The rules below are not kept by looking at nothing."""
    assert {path.relative_to(ROOT).parts[0] for path in CODE} == set(PACKAGES)
    assert len(CODE) > 20
    assert imports_of(ast.parse("import a.b\ndef f():\n  from c.d import e")) == {"a", "c"}
    assert parses("if x:")
    assert parses("return y")
    assert not parses("for each layer")
    assert docstring_needed(ast.parse("class A:\n  'x'\n  def f(self): pass")) == ["A.f"]


@every_source
def test_imports_go_one_way(path):
    """eap_jax <- converters <- experiments, and nobody imports the tests."""
    package = path.relative_to(ROOT).parts[0]
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    support = {file.stem for file in (ROOT / "tests" / "support").glob("*.py")}
    assert not imports_of(tree_of(path)) & (above | support | {"tests", "conftest"})


def module_of(path: Path) -> str:
    """`experiments/study/pairs.py` -> `experiments.study.pairs`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room that a module stands in, None for the package `experiments` itself."""
    package, *rest = module.split(".")
    return (rest[0] if rest else None) if package == "experiments" else package


def own_imports(tree: ast.AST) -> set[str]:
    """Modules of the three packages that a file imports, `from a import b` as a.b if it is one."""
    modules = {module_of(path) for path in SOURCES}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names}
    return found & modules


def wrong_imports(module: str, imported: set[str]) -> list[str]:
    """What a module imports from its own floor, other rooms, or from floors above."""
    room = room_of(module)
    here = FLOOR.get(room, len(FLOORS))
    return sorted(
        name
        for name in imported
        if room_of(name) not in (None, room) and FLOOR[room_of(name)] >= here
    )


def test_every_room_has_its_floor():
    """A folder or a file of `experiments/` that stands nowhere could import anything."""
    rooms = {room_of(module_of(path)) for path in SOURCES} - {None}
    assert rooms - set(FLOOR) == set()
    imported = {"experiments.grid", "experiments.store", "eap_jax.graph", "experiments.study.rule"}
    assert wrong_imports("experiments.scoring.cells", imported) == ["experiments.grid"]
    assert wrong_imports("eap_jax.graph", {"converters.load"}) == ["converters.load"]
    assert wrong_imports("experiments.report.page", {"experiments.bench.programs"})
    tree = ast.parse("from experiments.study import rule\nfrom experiments import errors")
    assert own_imports(tree) == {"experiments.study.rule", "experiments.errors"}


@every_source
def test_a_room_imports_from_the_floors_below_it(path):
    assert wrong_imports(module_of(path), own_imports(tree_of(path))) == []


def test_no_imports_form_a_loop():
    """Not even inside a folder: every file can be read after those that it imports."""
    arrows = {module_of(path): own_imports(tree_of(path)) for path in SOURCES}
    left = dict(arrows)
    while left:
        ready = {name for name, needs in left.items() if not needs & (left.keys() - {name})}
        assert ready, f"a loop among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in ready}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "eap_jax").rglob("*.py")), ids=lambda path: path.name
)
def test_the_mathematics_imports_arrays_only(path):
    """No files, flags, logging or processes in eap_jax; graph and metrics need no jax."""
    tree = tree_of(path)
    assert imports_of(tree) <= MATHEMATICS | PURE
    assert not calls_of(tree, "open")
    assert not calls_of(tree, "print")
    if path.name in ("graph.py", "metrics.py"):
        assert imports_of(tree) <= {"numpy", "scipy", "eap_jax"} | PURE


@every_source
def test_every_import_is_declared_and_torch_is_optional(path):
    """In setup.py, or behind an `except ImportError`; torch is imported inside a function only."""
    setup = (ROOT / "setup.py").read_text()
    tree = tree_of(path)
    optional = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(
            "ImportError" in ast.unparse(handler.type) for handler in node.handlers
        ):
            optional |= imports_of(ast.Module(node.body, []))
    distributions = {"absl": "absl-py", "orbax": "orbax-checkpoint", "math_verify": "math-verify"}
    for name in imports_of(tree) - set(sys.stdlib_module_names) - set(PACKAGES) - TORCH - optional:
        assert f'"{distributions.get(name, name)}' in setup, f"{name} is not in install_requires"
    at_import = {
        node for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and imports_of(node) & TORCH
    }  # fmt: skip
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    assert at_import <= inside


def test_only_the_checkpoint_module_touches_orbax():
    users = {
        path.relative_to(ROOT).as_posix() for path in CODE if "orbax" in imports_of(tree_of(path))
    }
    assert users <= {"converters/checkpoint.py", "experiments/manifest.py"}
    assert "converters/checkpoint.py" in users


def test_only_the_sharding_module_names_a_mesh_axis():
    """PartitionSpec is built there and nowhere else."""
    users = {
        path.relative_to(ROOT).as_posix() for path in CODE if "PartitionSpec" in path.read_text()
    }
    assert users == {"eap_jax/sharding.py"}


@every_source
def test_a_file_says_what_it_is_and_stays_readable(path):
    """A module docstring, docstrings of what is public, 80 to 300 lines as a rule."""
    text = path.read_text()
    tree = tree_of(path)
    assert path.name not in ("utils.py", "helpers.py", "misc.py", "common.py")
    assert ast.get_docstring(tree)
    assert docstring_needed(tree) == []
    assert len(text.splitlines()) <= 300


@pytest.mark.parametrize("path", CODE + TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_undone_or_switched_off(path):
    """No notes to finish later, no commented-out code, no breakpoint, no star import."""
    text = path.read_text()
    assert not re.search(rf"#.*\b({'|'.join(UNDONE)})\b", text)
    tree = tree_of(path)
    assert not calls_of(tree, "breakpoint")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.names[0].name != "*"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: an except of everything"
    for number, line in enumerate(text.splitlines(), 1):
        comment = re.match(r"\s*#\s*((?:def|return|import|from|if|for|assert|print)\b.*)$", line)
        assert not comment or not parses(comment[1]), f"line {number} is commented-out code"


@every_source
def test_dataclasses_are_frozen_and_keyword_only(path):
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            if "dataclasses.dataclass" in ast.unparse(decorator):
                assert isinstance(decorator, ast.Call), f"{node.name} is not frozen"
                keywords = {
                    keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords
                }
                assert keywords.get("frozen") == keywords.get("kw_only") == "True", node.name


@every_source
def test_no_checkpoint_can_run_code(path):
    """No remote code, no pickle, torch.load with weights_only, no eval."""
    tree = tree_of(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            assert ast.unparse(node.value) == "False"
    assert not imports_of(tree) & {"pickle", "dill", "cloudpickle", "joblib"}
    for name in ("eval", "exec"):
        assert not [call for call in calls_of(tree, name) if isinstance(call.func, ast.Name)]
    for call in calls_of(tree, "load"):
        if ast.unparse(call.func) == "torch.load":
            assert any(
                keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True"
                for keyword in call.keywords
            )


@every_source
def test_a_binarys_main_only_calls_the_library(path):
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            assert node.end_lineno - node.lineno < 60


def test_pyproject_holds_the_build_backend_and_tool_settings_only():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(settings) == {"build-system", "tool"}


def test_warnings_are_errors_and_every_exception_has_its_reason():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    settings = tomllib.loads("\n".join(lines))["tool"]["pytest"]["ini_options"]
    assert settings["filterwarnings"][0] == "error"
    for number, line in enumerate(lines):
        if line.strip().startswith('"ignore'):
            assert lines[number - 1].strip().startswith(("#", '"ignore')), f"{line}: why?"


def test_every_python_module_of_the_packages_is_installed():
    """setup.py finds every folder that holds code."""
    from setuptools import find_packages

    found = set(find_packages(str(ROOT), include=[f"{name}*" for name in PACKAGES]))
    assert found == {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES}


def test_ci_runs_exactly_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in script if "pytest" in line and not line.startswith("#")]
    assert len(commands) == 1
    # A code block is indented.
    assert f"    {commands[0]}" in (ROOT / "README.md").read_text().splitlines()
