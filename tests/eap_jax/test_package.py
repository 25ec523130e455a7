"""What `eap_jax` says about itself is true, and importing it costs nothing."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import eap_jax

PACKAGE = Path(eap_jax.__file__).parent
MODULES = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}


def offered() -> dict[str, list[str]]:
    """Names by module, as the docstring of the package lists them."""
    listed, inner = eap_jax.__doc__.split("Inside these:")
    lines = re.findall(r"^  (\w+) +([\w, ]+):", listed, re.MULTILINE)
    lines += re.findall(r"(\w+) \(([\w,\s]+)[:)]", inner)
    return {module: re.split(r",\s+", names) for module, names in lines}


def test_every_module_is_listed_with_names_that_it_has():
    assert set(offered()) == MODULES
    for module, names in offered().items():
        tree = ast.parse((PACKAGE / f"{module}.py").read_text())
        public = {node.name for node in tree.body if hasattr(node, "name")}
        public |= {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
        assert set(names) <= public, module
        assert hasattr(importlib.import_module(f"eap_jax.{module}"), names[0])


def test_every_module_has_its_test():
    tested = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert MODULES - tested == set()


def test_the_package_the_graph_and_the_metrics_load_without_jax():
    program = (
        "import sys, eap_jax.graph, eap_jax.metrics, eap_jax.axes; print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "False"
