"""Every axis letter of the source stands in the glossary `eap_jax.axes.AXES`."""

import ast
import re
from pathlib import Path

import pytest

from eap_jax.axes import AXES
from eap_jax.config import ModelConfig
from eap_jax.parameters import axis_sizes, parameter_axes

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("eap_jax", "converters", "experiments")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Names of other libraries that look like axes (sympy's).
FOREIGN = {"is_Float", "is_Integer"}
# `scores_BWR`, `writes_2BTD`; `values_n`, `matrix_nn`: an n at the front needs no capital.
SUFFIX = re.compile(r"[a-z0-9]_((?=\w*[A-Z])[0-9A-Za-z]+|n[0-9a-z]?|[0-9]n\w{0,3})$")
EINSUM = re.compile(r"[.A-Za-z]+(,[.A-Za-z]+)*->[.A-Za-z]*$")
# One axis in a shape of a docstring, `[B or 1, 1, T, S]`.
AXIS = re.compile(r"(?:\d\+?|\d\+\d)?([A-Z])(?: or 1|[+-]\d)?$")


def letters_of(source: str) -> dict[str, set[str]]:
    """Axis letters of names, einsum strings and docstring shapes, each with where it was found."""
    tree, found = ast.parse(source), {}

    def add(letters, place):
        for letter in letters:
            if letter.isalpha():
                found.setdefault(letter, set()).add(place)

    for node in ast.walk(tree):
        names = [getattr(node, field, None) for field in ("id", "arg", "attr", "name")]
        for name in names:
            if isinstance(name, str) and not name.isupper() and name not in FOREIGN:
                match = SUFFIX.search(name)
                add(match[1] if match else "", name)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if EINSUM.match(node.value):
                add(node.value, node.value)
            elif SUFFIX.search(node.value) and node.value.isidentifier():
                add(SUFFIX.search(node.value)[1], node.value)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for shape in re.findall(r"\[([^\[\]]*)\]", ast.get_docstring(node) or ""):
                parts = [AXIS.match(part.strip()) for part in shape.split(",")]
                add("".join(part[1] for part in parts if part), f"[{shape}]")
    return found


def unknown(source: str) -> dict[str, set[str]]:
    """Letters outside the glossary."""
    return {letter: places for letter, places in letters_of(source).items() if letter not in AXES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_axis_letter_is_in_the_glossary(path):
    assert unknown(path.read_text()) == {}


def test_the_walk_finds_letters_wherever_they_stand():
    """The check above is not kept by looking at nothing: one new letter in each place is found."""
    for source in (
        "x_Bb = 1",
        "def f(x_bB): pass",
        "y = z.scores_BbR",
        "f(weights_bB=1)",
        "class A:\n  means_nb: int",
        "matrix_2n2b = 0",
        "jnp.einsum('Bb,bR->BR', x, y)",
        "jnp.einsum('...i,oi->...o', x, y)",
        "jax.jit(f, static_argnames='tokens_Bb')",
    ):
        assert set(unknown(source)) & {"b", "i", "o"}, source
    assert set(letters_of('def f():\n  "[B or 1, 1, 4L+1, T-1] -> [G, 3]"')) == {"B", "L", "T", "G"}
    for source in ("use_bias = is_Float", "log_p = head_in", "MOST_BYTES = 1", "'a -> b'"):
        assert letters_of(source) == {}, source


def test_the_glossary_holds_no_letter_without_use():
    used = {letter for path in SOURCES for letter in letters_of(path.read_text())}
    assert {letter for letter in AXES if letter.isupper()} <= used
    assert all(len(letter) == 1 and meaning for letter, meaning in AXES.items())
    assert len(set(AXES.values())) == len(AXES)


def test_the_declared_parameter_axes_are_in_the_glossary():
    config = ModelConfig(
        vocab_size=8, num_layers=1, d_model=4, d_ff=4, num_heads=1, num_kv_heads=1, head_dim=2,
        norm_eps=1e-6, rope_theta=1e4, qkv_bias=True, output_bias=True, mlp_bias=True,
        adapter_rank=2,
    )  # fmt: skip
    axes = parameter_axes(config)
    letters = "".join(
        [*axes["blocks"].values(), *(axes[name] for name in axes if name != "blocks")]
    )
    assert set(letters) == set(axis_sizes(config)) <= set(AXES)
