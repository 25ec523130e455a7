r"""Compare two models edge by edge: the whole study of one pair.

    python -m experiments.run                      the embedded pair, on a CPU, offline
    python -m experiments.run --pair=tiny_ppo --alpha=0.1,0.3,0.5
    python -m experiments.run --base_checkpoint=DIR --rl_checkpoint=DIR --responses=all_correct.jsonl

Results go to WORKDIR/PAIR; a killed run continues where it stopped. Last line: report: <path>
"""

import dataclasses
import shlex
import sys
from pathlib import Path

import jax
from absl import flags

from eap_jax.sharding import parse_mesh
from experiments.errors import InputError, run_main
from experiments.numerics import NUMERICS
from experiments.pairs import DEFAULT_PAIR, PAIRS, Pair, find_pair
from experiments.questions import DATASETS
from experiments.selection import Rule
from experiments.study import Study, run_study


def define_flags() -> None:
    """The flags of this binary."""
    known = ", ".join(PAIRS)
    flags.DEFINE_string("pair", None, f"One of {known}; default {DEFAULT_PAIR}.")
    flags.DEFINE_string("base_checkpoint", None, "Model before post-training, instead of the pair's.")
    flags.DEFINE_string("rl_checkpoint", None, "Model after post-training, instead of the pair's.")
    flags.DEFINE_string("workdir", "runs", "Where results go.")
    flags.DEFINE_list("dataset", None, f"Some of {', '.join(DATASETS)}; default: the pair's.")
    flags.DEFINE_string("data_dir", None, "Folder of local question files.")
    flags.DEFINE_string("responses", None, "File of both models' answers (all_correct.jsonl).")
    flags.DEFINE_integer("num_questions", 300, "Most questions asked of a dataset.", lower_bound=1)
    flags.DEFINE_list("alpha", ["0.3"], "Counted shares of the mean answer length.")
    flags.DEFINE_float("beta", 0.5, "Shortest mean answer length, as a share of the mean.")
    flags.DEFINE_float("gamma", 1.5, "Longest mean answer length, as a share of the mean.")
    flags.DEFINE_float("delta", 0.5, "Largest difference of the two answer lengths, as a share.")
    flags.DEFINE_integer("num_samples", 100, "Most questions that count.", lower_bound=1)
    flags.DEFINE_integer("seed", 42, "Seed of the sampling of questions.")
    flags.DEFINE_enum("numerics", "float32", NUMERICS, "Precision; see experiments/numerics.py.")
    flags.DEFINE_string("mesh", "", "Devices, such as data:2 or data:2,model:2.")
    flags.DEFINE_integer("batch_tokens", 4096, "Tokens that go through the model at once.", 1)
    flags.DEFINE_integer("batch_answers", 128, "Answers decoded together.", lower_bound=1)


def study_from_flags() -> Study:
    """The study that the flags ask for.

    Raises:
      InputError: a flag's value is out of range, or flags contradict each other.
    """
    f = flags.FLAGS
    try:
        alphas = [float(alpha) for alpha in f.alpha]
        sizes = parse_mesh(f.mesh)
    except ValueError as error:
        raise InputError(f"flags: {error}") from None
    common = {n: getattr(f, n) for n in ("beta", "gamma", "delta", "num_samples", "seed")}
    pair = choose_pair(f.pair, f.base_checkpoint, f.rl_checkpoint)
    datasets = tuple(f.dataset or (("responses",) if f.responses else pair.datasets))
    if f.responses and len(datasets) > 1:
        raise InputError(f"dataset: one responses file belongs to one dataset, found {datasets}")
    # Only the CPU can be divided into as many devices as the mesh asks for.
    jax.config.update("jax_num_cpu_devices", max(1, sizes["data"] * sizes["model"]))
    return Study(
        pair=pair,
        workdir=Path(f.workdir),
        datasets=datasets,
        rules=tuple(Rule(alpha=alpha, **common) for alpha in alphas),
        responses=Path(f.responses) if f.responses else None,
        data_dir=Path(f.data_dir) if f.data_dir else None,
        num_questions=f.num_questions,
        numerics=f.numerics,
        mesh=f.mesh,
        batch_tokens=f.batch_tokens,
        batch_answers=f.batch_answers,
        command=shlex.join(["python", "-m", "experiments.run", *sys.argv[1:]]),
    )


def choose_pair(key: str | None, base: str | None, rl: str | None) -> Pair:
    """The registered pair, or one of two checkpoints named `<base>_<rl>` unless a key is given."""
    if (base is None) != (rl is None):
        raise InputError("--base_checkpoint and --rl_checkpoint go together")
    if base is None:
        return find_pair(key or DEFAULT_PAIR)
    if key in PAIRS:
        return dataclasses.replace(PAIRS[key], base=base, rl=rl)
    name = key or f"{Path(base).name}_{Path(rl).name}"
    if Path(name).name != name:
        raise InputError(f"pair: expected a plain name, found {name!r}")
    return dataclasses.replace(
        PAIRS["deepseek_math"], key=name, series=name, base=base, rl=rl, method="not stated"
    )


def main(_) -> None:
    print(f"report: {run_study(study_from_flags())}")


if __name__ == "__main__":
    define_flags()
    run_main(main)
