"""The programs of a study compiled for GPUs that are not there: what they need, and whether it fits.

    python -m experiments.bench --preset=gpu --compile_for=h100:2 --mesh=data:2 --pair=deepseek_math

No weights, no device, no driver: the compiler is given shapes and a description of the card. What
it makes is what would run there, but for two choices that need the card itself: which kernel is
fastest (autotuning), and with it the workspace of the matrix products. A program fits if arguments,
output and temporary arrays, what is changed in place counted once, are at most the share of the
card's memory that JAX takes. About half a minute a program on two cores. Needs the compiler of
`pip install ".[gpu-compile]"`.
"""

import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from converters import cuda_plugin
from eap_jax.sharding import make_mesh, parse_mesh
from experiments.bench.gpu_lowered import Lowered
from experiments.bench.gpu_programs import study_programs
from experiments.bench.gpu_targets import target_config
from experiments.errors import InputError
from experiments.study.cards import CARDS, Card, card_of
from experiments.study.numerics import Numerics
from experiments.study.pairs import SHAPES, find_pair
from experiments.study.rule import Rule
from experiments.study.settings import Study

# Both would time kernels on the card.
_WITHOUT_A_CARD = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Cards of one kind, and how a study lies on them.

    Attributes:
      text: as the user wrote it, `h100:2`.
      card: the kind.
      mesh: of all of them.
    """

    text: str
    card: Card
    mesh: jax.sharding.Mesh


def target_of(text: str, mesh: str) -> Target:
    """The cards that a flag names, `h100` or `h100:2`, laid out as `mesh` says (default data:N).

    Raises:
      InputError: an unknown card, a mesh of another size, or no compiler for GPUs.
    """
    name, _, number = text.partition(":")
    card, count = card_of(name), int(number) if number.isdecimal() else 0
    if card.key not in CARDS or ((number or ":" in text) and count < 1):
        raise InputError(
            f"compile_for: expected one of {', '.join(CARDS)} and perhaps a number, such as "
            f"h100:2, found {text!r}"
        )
    try:
        sizes = parse_mesh(mesh)
    except ValueError as error:
        raise InputError(f"flags: {error}") from None
    asked = sizes["data"] * sizes["model"]
    count = count or asked
    if mesh and asked != count:
        raise InputError(f"compile_for: {text} is {count} cards, the mesh {mesh} is {asked}")
    if not cuda_plugin.is_installed():
        raise InputError(
            'compile_for: no compiler for GPUs is installed; pip install ".[gpu-compile]" brings it'
        )
    cuda_plugin.take_in()
    jax.config.update("jax_platforms", "cpu")  # a card at hand is left alone
    described = topologies.get_topology_desc(
        platform="cuda", target_config=target_config(card.key), topology=f"1x1x{count}"
    )
    placed = make_mesh(mesh or f"data:{count}", devices=described.devices)
    return Target(text=text, card=card, mesh=placed)


def study_of(pair: str, mesh: str, numerics: Numerics) -> Study:
    """A study of a registered pair of the Hub at its default settings.

    Raises:
      InputError: another pair.
    """
    found = find_pair(pair)
    if pair not in SHAPES:
        raise InputError(f"pair: expected one of {', '.join(SHAPES)}, found {pair!r}")
    return Study(
        pair=found,
        workdir=Path(),
        datasets=found.datasets,
        rules=(Rule(alpha=0.3),),
        numerics=numerics,
        mesh=mesh,
    )


def compile_study(target: Target, study: Study, layers: int | None = None) -> dict[str, Any]:
    """Figures of every program of a study; see the contract of `--compile_for`.

    Args:
      target: the cards.
      study: a registered pair and its settings.
      layers: depth, instead of the pair's.
    """
    programs = study_programs(study, target.mesh, target.card.usable_bytes, layers)
    return compile_all(target, programs) | {"pair": study.pair.key, "mesh": study.mesh}


def compile_all(
    target: Target,
    programs: Iterable[Lowered],
    keep: Callable[[str, str], object] = lambda name, text: None,
) -> dict[str, Any]:
    """Figures of some programs, with a line for each as it is compiled.

    Args:
      target: the cards.
      programs: for its mesh.
      keep: called with the name of each and its text as compiled.
    """
    limit, found = target.card.usable_bytes, []
    for lowered in programs:
        figures, text = compile_program(lowered, limit)
        keep(lowered.program, text)
        found.append(figures)
        print(
            f"{figures['program']} {figures['rows']} x {figures['length']}, {figures['dtype']}: "
            f"{figures['needs_bytes'] / 1e9:.2f} GB, of these temporary "
            f"{figures['temporary_bytes'] / 1e9:.2f}; planned {figures['planned_bytes'] / 1e9:.2f}; "
            f"compiled in {figures['compile_seconds']:.0f} s",
            flush=True,
        )
    return {
        "target": target.text,
        "devices": target.mesh.size,
        "limit_bytes": limit,
        "fits": all(figures["fits"] for figures in found),
        "programs": found,
    }


def compile_program(lowered: Lowered, limit: int) -> tuple[dict[str, Any], str]:
    """A program's figures, one device's bytes, and its text as compiled."""
    begin, used = time.perf_counter(), time.process_time()
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compiled = lowered.lower().compile(compiler_options=_WITHOUT_A_CARD)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    memory, text = compiled.memory_analysis(), compiled.as_text()
    needs = memory.argument_size_in_bytes + memory.output_size_in_bytes
    needs += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return {
        "program": lowered.program,
        "rows": lowered.rows,
        "length": lowered.length,
        "dtype": lowered.dtype,
        "needs_bytes": needs,
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "in_place_bytes": memory.alias_size_in_bytes,
        "beside_bytes": lowered.beside,
        "planned_bytes": lowered.planned.total - lowered.beside,
        "collectives": dict(collectives(text)),
        "compile_seconds": round(seconds, 1),
        "compile_cpu_seconds": round(used, 1),
        "fits": needs + lowered.beside <= limit,
    }, text


def collectives(text: str) -> Iterator[tuple[str, int]]:
    """Kinds of exchanges between devices in a compiled program, and the number of each.

    A scanned layer stands in the text once, so these are exchanges a layer, and those outside.
    """
    for kind in _COLLECTIVES:
        number = len(re.findall(rf"\s{kind}(?:-start)?\(", text))
        if number:
            yield kind, number
