"""What is compiled for GPUs that are not there wastes no memory, and needs what the plan says.

All programs are compiled by one process (support/gpu_probe.py): this one's JAX has no CUDA plugin.
"""

import dataclasses
import json
import math
import re
import subprocess
import types

import gpu_probe
import pytest
from gpu_probe import BATCH, DECODED, NARROW, WIDE

from converters import cuda_plugin
from eap_jax.parameters import parameter_shapes
from experiments import child_python
from experiments.bench import __main__ as bench
from experiments.bench import gpu_compile, gpu_programs
from experiments.errors import InputError
from experiments.study.pairs import SHAPES

_ARRAY = re.compile(r"\b(pred|[su]\d+|bf16|f16|f32|f64)\[([\d,]*)\]")
_DEFINITION = re.compile(r"^\s*(?:ROOT )?(%[\w.\-]+) = (.+?) ([\w\-]+)\(([^)]*)\)", re.M)
STREAM = BATCH.rows * BATCH.length * NARROW.d_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One operation of a compiled program: its kind, and (dtype, numbers) of arrays."""

    kind: str
    results: list[tuple[str, int]]
    operands: list[tuple[str, int]]


def steps_of(text: str) -> list[Step]:
    """All operations, those inside fusions and loops too; library calls by their target."""
    text = re.sub(r", metadata=\{[^}]*\}", "", text)
    defined, lines = {}, []
    for line in text.splitlines():
        if found := _DEFINITION.match(line):
            name, types, kind, operands = found.groups()
            target = re.search(r'custom_call_target="([^"]+)"', line)
            defined[name] = [
                (dtype, math.prod(int(size) for size in sizes.split(",") if size))
                for dtype, sizes in _ARRAY.findall(types)
            ]
            kind = target[1] if target else kind
            lines.append((kind, defined[name], re.findall(r"%[\w.\-]+", operands)))
    return [
        Step(
            kind=kind,
            results=results,
            operands=[array for name in names for array in defined.get(name, [])],
        )
        for kind, results, names in lines
    ]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """{(mesh, program): (figures, operations)}, and the whole output under "outputs"."""
    if not cuda_plugin.is_installed():
        pytest.skip('the compiler for GPUs is not installed: pip install ".[gpu-compile]"')
    folder = tmp_path_factory.mktemp("compiled")
    done = subprocess.run(
        child_python.command(gpu_probe.__file__, str(folder)),
        capture_output=True,
        text=True,
        env=child_python.environment() | {"JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            output = json.loads(line)
            for figures in output["programs"]:
                text = (folder / f"{output['mesh']}_{figures['program']}.txt").read_text()
                found[output["mesh"], figures["program"]] = figures, steps_of(text)
    return found


def cache_bytes(rows: int) -> int:
    """Keys and values of the decoding program, by hand: bfloat16, two layers."""
    return 2 * 2 * 2 * rows * WIDE.num_kv_heads * DECODED["slots"] * WIDE.head_dim


def test_every_program_is_compiled_for_one_card_and_for_two(compiled):
    programs = {"prefill", "decode", "attribute", "attribute_remat", "attribute_alphas"}
    for meshes in ({"one"}, {"data", "model"}):
        assert {name for mesh, name in compiled if mesh in meshes} == programs
    keys = {"program", "rows", "length", "needs_bytes", "temporary_bytes", "argument_bytes"}
    for figures, _ in compiled.values():
        assert keys | {"collectives", "fits"} <= set(figures)


@pytest.mark.parametrize("mesh", ["one", "data", "model"])
def test_decoding_copies_neither_weights_nor_cache(compiled, mesh):
    figures, _ = compiled[mesh, "decode"]
    weights = 2 * WIDE.num_parameters // (2 if mesh == "model" else 1)
    cache = cache_bytes(DECODED["rows"]) // (1 if mesh == "one" else 2)
    assert figures["temporary_bytes"] <= 0.1 * weights
    assert cache <= figures["in_place_bytes"] <= 1.01 * cache
    assert 0 <= figures["argument_bytes"] - cache - weights <= 0.01 * weights


def test_on_data_2_each_card_decodes_half_of_the_rows(compiled):
    """No operation has the queries or the logits of all rows."""
    _, steps = compiled["data", "decode"]
    half = DECODED["rows"] // 2 * WIDE.vocab_size
    numbers = {numbers for step in steps for _, numbers in step.results}
    assert half in numbers
    assert 2 * half not in numbers


def test_cards_exchange_what_they_must_and_nothing_else(compiled):
    """On data:2 only how many rows are done; on model:2 the stream, after attention and MLP."""
    assert compiled["one", "decode"][0]["collectives"] == {}
    assert compiled["data", "attribute"][0]["collectives"] == {}
    assert compiled["data", "decode"][0]["collectives"] == {"all-reduce": 1}
    found = compiled["model", "decode"][0]["collectives"]
    # Two a layer, and one for the embedding; one all-gather for the choice of the token.
    assert found == {"all-reduce": 2 * WIDE.num_layers + 1, "all-gather": 1}
    _, steps = compiled["model", "attribute"]
    streams = [
        step for step in steps if step.kind.startswith("all-reduce") and "done" not in step.kind
        if step.results[0][1] >= STREAM
    ]  # fmt: skip
    # A scanned layer stands in the program once: forward 2, backward 4; and the embedding.
    assert len(streams) <= 2 + 4 + 1


def test_no_weight_is_gathered(compiled):
    smallest = min(
        math.prod(shape[1:])
        for name, shape in parameter_shapes(NARROW)["blocks"].items()
        if not name.endswith("norm")
    )
    assert smallest > STREAM
    for (mesh, _), (_, steps) in compiled.items():
        gathered = [step for step in steps if step.kind.startswith("all-gather")]
        assert mesh == "model" or not gathered
        assert all(numbers < smallest for step in gathered for _, numbers in step.results)


def test_no_large_product_is_of_float32_numbers(compiled):
    """The numerics are bfloat16, forward and backward; what is summed up is float32."""
    for key, (_, steps) in compiled.items():
        products = [
            step
            for step in steps
            if step.kind == "dot" or "matmul" in step.kind or "gemm" in step.kind
        ]
        operands = [array for step in products for array in step.operands]
        assert len(operands) >= 2 * 7 * (1 if key[1] != "decode" else WIDE.num_layers), key
        assert max(numbers for _, numbers in operands) >= NARROW.d_model**2, key
        large = [array for array in operands if array[0] == "f32" and array[1] > 2**14]
        assert not large, key


def test_the_plan_agrees_with_the_compiler(compiled):
    for key, (figures, _) in compiled.items():
        assert figures["planned_bytes"] == pytest.approx(figures["needs_bytes"], rel=0.15), key


@pytest.mark.parametrize(
    ("card", "mesh", "message"),
    [
        ("h100:2", "data:4", "h100:2 is 2 cards, the mesh data:4 is 4"),
        ("h100:0", "", "expected one of h100, a100, h200 and perhaps a number"),
        ("h100:", "", "expected one of h100"),
        ("b200", "", "device: expected h100, a100, h200, a800 or a number of GiB, found 'b200'"),
        ("40", "", "expected one of h100"),
    ],
)
def test_a_card_that_is_not_known_is_refused(card, mesh, message):
    with pytest.raises(InputError, match=message):
        gpu_compile.target_of(card, mesh)


def test_without_the_compiler_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cuda_plugin, "is_installed", lambda: False)
    with pytest.raises(InputError, match=r'pip install "\.\[gpu-compile\]"'):
        gpu_compile.target_of("h100:2", "")


def test_pairs_without_a_registered_shape_are_refused():
    with pytest.raises(InputError, match="expected one of deepseek_math, .*found 'tiny_grpo'"):
        gpu_compile.study_of("tiny_grpo", "", "float32")


def test_a_wrong_pair_is_named_before_the_compiler_is_looked_for(monkeypatch):
    """Whoever mistypes a name need not install the compiler to learn it."""
    monkeypatch.setattr(cuda_plugin, "is_installed", lambda: False)
    given = types.SimpleNamespace(
        preset="gpu", compile_for="h100:2", mesh="", pair="tiny_grpo", numerics="float32", layers=1
    )
    monkeypatch.setattr(bench.flags, "FLAGS", given)
    with pytest.raises(InputError, match="pair: expected one of .*found 'tiny_grpo'"):
        bench.main(None)


@pytest.mark.parametrize("layers", [1, 32, 40])
def test_another_depth_keeps_the_windows(layers):
    found = gpu_programs.of_depth(SHAPES["mistral"], layers)
    assert found.num_layers == layers
    assert found.layer_windows == (4096,) * layers
    assert gpu_programs.of_depth(SHAPES["qwen25"], layers).layer_windows is None


def test_a_flag_of_the_study_compiled_is_not_ignored_without_one(monkeypatch):
    """The bench of this machine knows no mesh, so --mesh=data:2 would be measured on one device."""

    class Given(dict):
        def __getattr__(self, name):
            return None

    flag = types.SimpleNamespace(present=0)
    given = Given(dict.fromkeys(("pair", "mesh", "numerics", "layers"), flag))
    given["mesh"] = types.SimpleNamespace(present=1)
    monkeypatch.setattr(bench.flags, "FLAGS", given)
    with pytest.raises(InputError, match="mesh: expected beside --compile_for"):
        bench.main(None)
