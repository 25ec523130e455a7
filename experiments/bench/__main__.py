r"""How fast attribution is on this machine, against the bound of its matrix products.

    python -m experiments.bench --preset=mid
    python -m experiments.bench --preset=gpu --compile_for=h100:2 --mesh=data:2     no GPU needed

Random weights and texts. All programs run in one process, in turn, and medians are reported, so the
ratios hold on a noisy machine. Last line: one JSON object of figures. The bound is 4 * parameters *
tokens operations (forward 2, backward to activations 2) at the rate that this machine's matrix
products reach at the model's own shapes. Embedding and unused head positions need no products;
fraction_of_needed_matmuls counts only what the pass cannot avoid. With --compile_for nothing runs:
the programs of a study are compiled for cards that are not there, see `gpu_compile`.
"""

import json
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags

from experiments import child_python
from experiments.bench import gpu_compile, growth, measure, mixed_answers, streamed
from experiments.bench.programs import PRESETS, has_torch, random_batch
from experiments.binary import run_main
from experiments.devices import idle_accelerator
from experiments.errors import InputError
from experiments.study.numerics import NUMERICS
from experiments.study.pairs import OWN_PROMPT
from experiments.study.settings import Study

# Flags of what --compile_for compiles.
_OF_A_STUDY = ("pair", "mesh", "numerics", "layers")


def main(_) -> None:
    if flags.FLAGS.compile_for:
        print(json.dumps(_compiled()))
        return
    for name in _OF_A_STUDY:
        if flags.FLAGS[name].present:
            raise InputError(
                f"{name}: expected beside --compile_for, whose study has it, found without"
            )
    preset = PRESETS[flags.FLAGS.preset]
    if (flags.FLAGS.growth or flags.FLAGS.answers) and flags.FLAGS.preset == "7b":
        raise InputError("growth, answers: a preset that fits in memory is needed, found 7b")
    if flags.FLAGS.stream_from:
        figures = streamed.stream_once(Path(flags.FLAGS.stream_from), random_batch(preset))
    elif flags.FLAGS.preset == "7b":
        again = child_python.command("-m", "experiments.bench", "--preset=7b", "--stream_from")
        scratch = Path(flags.FLAGS.scratch)
        figures = streamed.bench_streamed(preset.config, scratch, again)
    elif flags.FLAGS.answers:
        figures = mixed_answers.bench_answers(preset, flags.FLAGS.repeats)
    elif flags.FLAGS.growth:
        figures = growth.growth(preset, flags.FLAGS.repeats)
    else:
        figures = measure.bench(preset, flags.FLAGS.repeats)
    if note := idle_accelerator():
        print(note)
    device = jax.devices()[0].device_kind
    print(f"device: {device}; preset: {flags.FLAGS.preset}")
    if not has_torch():
        print("torch is not installed: no comparison with PyTorch")
    print(json.dumps({name: float(f"{value:.4g}") for name, value in figures.items()}))


def _compiled() -> dict[str, Any]:
    """What `--compile_for` finds."""
    f = flags.FLAGS
    if f.preset != "gpu":
        raise InputError(f"compile_for: expected --preset=gpu, found {f.preset}")
    # The flags first: the compiler may be missing.
    study = gpu_compile.study_of(f.pair, f.mesh, f.numerics)
    target = gpu_compile.target_of(f.compile_for, f.mesh)
    return gpu_compile.compile_study(target, study, f.layers)


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_enum("preset", "small", list(PRESETS), "Model shape and batch.")
    flags.DEFINE_string("scratch", "bench_scratch", "7b: where 42 GB of checkpoints may lie.")
    flags.DEFINE_string(
        "stream_from", None, "Only attribute the preset's batch from this checkpoint."
    )
    flags.DEFINE_bool("growth", False, "Only how time and memory grow with tokens and layers.")
    flags.DEFINE_bool("answers", False, "Only decoding a workload of mixed lengths.")
    flags.DEFINE_string(
        "compile_for", None, "gpu: compile a study's programs for h100, a100 or h200, or h100:2."
    )
    flags.DEFINE_string(
        "pair", OWN_PROMPT, "compile_for: whose shape; a registered pair of the Hub."
    )
    flags.DEFINE_string("mesh", "", "compile_for: how the cards are used; default data:N.")
    flags.DEFINE_enum("numerics", Study.numerics, NUMERICS, "compile_for: precision of scores.")
    flags.DEFINE_integer("layers", None, "compile_for: another depth.", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "Measured runs of each program.", lower_bound=1)


def run() -> NoReturn:
    """The console script eap-bench."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
