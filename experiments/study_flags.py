"""The flags that `experiments.run` and `experiments.sweep` share, and the studies they describe."""

import dataclasses
import itertools
import math
import shlex
import sys
from pathlib import Path

import jax
from absl import flags

from eap_jax.attribution import ESTIMATORS
from eap_jax.sharding import parse_mesh
from experiments import devices
from experiments.errors import InputError
from experiments.responses.questions import DATASETS
from experiments.study import distributed
from experiments.study.cards import Card, usable_bytes
from experiments.study.numerics import NUMERICS
from experiments.study.pairs import Pair, check_plain_name
from experiments.study.plan import streamed_bytes
from experiments.study.rule import DEFAULT_ALPHAS, Rule
from experiments.study.settings import QuestionSource, Study

_RULE = ("alpha", "beta", "gamma", "delta", "num_samples")


def define_flags() -> None:
    """The shared flags."""
    flags.DEFINE_string("workdir", "runs", "Where results go: WORKDIR/PAIR.")
    flags.DEFINE_string("data_dir", None, "Folder of local question files.")
    flags.DEFINE_integer("num_questions", 300, "Most questions asked of a dataset.", lower_bound=1)
    flags.DEFINE_list(
        "alpha", [*map(str, DEFAULT_ALPHAS)], "Counted shares of the mean answer length."
    )
    flags.DEFINE_list(
        "beta", [str(Rule.beta)], "Shortest mean answer length, as a share of the mean."
    )
    flags.DEFINE_list(
        "gamma", [str(Rule.gamma)], "Longest mean answer length, as a share of the mean."
    )
    flags.DEFINE_list(
        "delta", [str(Rule.delta)], "Largest difference of the two lengths, as a share."
    )
    flags.DEFINE_list("num_samples", [str(Rule.num_samples)], "Most questions that count.")
    flags.DEFINE_integer("seed", Rule.seed, "Seed of the sampling of questions.")
    flags.DEFINE_enum(
        "numerics", Study.numerics, NUMERICS, "Precision; see experiments/study/numerics.py."
    )
    flags.DEFINE_string("mesh", Study.mesh, "Devices, such as data:2 or data:2,model:2.")
    flags.DEFINE_integer(
        "simulated_devices", None, "Divide the CPU into so many devices, to try a mesh.", 1,
        devices.MOST_SIMULATED,
    )  # fmt: skip
    flags.DEFINE_integer(
        "card", None, "Number of the one card that this process uses, from 0.", lower_bound=0
    )
    flags.DEFINE_integer(
        "batch_tokens", Study.batch_tokens, "Most tokens that go through the model at once.", 1
    )
    flags.DEFINE_string(
        "coordinator", None,
        "host:port of process 0, or auto; see experiments/study/distributed.py.",
    )  # fmt: skip
    flags.DEFINE_integer("num_processes", None, "Processes that share the mesh.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0)
    flags.DEFINE_enum(
        "memory", "fit", ["fit", "stream"],
        "fit: the model is in memory. stream: score layer by layer, weights read as they are needed.",
    )  # fmt: skip
    flags.DEFINE_float(
        "stream_gib", None,
        "GiB kept between layers with --memory=stream; a quarter of the memory if not given.", 0,
    )  # fmt: skip
    flags.DEFINE_enum(
        "estimator", Study.estimator, ESTIMATORS,
        "What a score is: eap, as published, or branch, see eap_jax/branch.py.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "fidelity", Study.fidelity, ["auto", "all", "off"],
        "How much is ablated exactly: auto, at most four times what attribution costs; all; off.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "batch_answers", Study.batch_answers, "Most answers decoded together.", lower_bound=1
    )


def _stream_bytes(card: Card | None) -> int | None:
    """`Study.stream_bytes` of the flags. Only where neither they nor a card say it, JAX is asked for
    its devices, so it must know them all."""
    f = flags.FLAGS
    if f.memory == "fit":
        return None
    if f.stream_gib is not None:
        return int(f.stream_gib * 2**30)
    own = card.usable_bytes if card is not None else usable_bytes(jax.local_devices()[0])
    return streamed_bytes(own)


def studies(
    program: str,
    pairs: list[Pair],
    datasets: list[str] | None,
    questions: dict[str, str | None] | None = None,
    responses: str | None = None,
    imported: dict[str, Path] | None = None,
    card: Card | None = None,
) -> list[Study]:
    """One study a pair, with the settings of the shared flags.

    Args:
      program: name of the binary, for the manifest.
      pairs: the pairs.
      datasets: names of question sets, or None for each pair's own.
      questions: `file`, `question_field` and `answer_field` of `QuestionSource`.
      responses, imported: see `Study`.
      card: what is planned for, or None: the devices at hand, which are started then.

    Raises:
      InputError: a flag's value is out of range.
    """
    f = flags.FLAGS
    try:
        sizes = parse_mesh(f.mesh)
    except ValueError as error:
        raise InputError(f"flags: {error}") from None
    values = [_numbers(name) for name in _RULE]
    rules = [
        Rule(**dict(zip(_RULE, choice, strict=True)), seed=f.seed)
        for choice in itertools.product(*values)
    ]
    if not pairs or (datasets is not None and not datasets):
        raise InputError(f"{'dataset' if pairs else 'pairs'}: expected at least one, found none")
    for name in datasets or ():
        check_plain_name("dataset", name)
    unknown = sorted(set(datasets or ()) - set(DATASETS))
    own = f.data_dir or responses or imported or (questions and questions["file"])
    if unknown and not own:
        raise InputError(f"dataset: expected some of {', '.join(DATASETS)}, found {unknown[0]!r}")
    if not math.isfinite((f.stream_gib or 0) * 2**30):
        raise InputError(f"stream_gib: expected a number, found {f.stream_gib}")
    if f.memory == "stream" and sizes["data"] * sizes["model"] > 1:
        raise InputError(f"memory: stream runs on one device, found the mesh {f.mesh}")
    if f.memory == "stream" and f.coordinator is not None:
        raise InputError(
            f"memory: stream runs in one process, found the coordinator {f.coordinator}; give a mesh "
            "that divides the weights (--mesh=model:N), or leave --coordinator out"
        )
    if f.estimator == "branch" and f.numerics == "published":
        raise InputError(
            "estimator: branch is not what the published program computes; use --numerics=float32 "
            "or bfloat16"
        )
    if card is None:
        _start_devices(sizes["data"] * sizes["model"])
    source = QuestionSource(
        data_dir=Path(f.data_dir) if f.data_dir else None, limit=f.num_questions
    )
    if questions:
        file = questions["file"]
        source = dataclasses.replace(source, **questions | {"file": Path(file) if file else None})
    return [
        Study(
            pair=pair,
            workdir=distributed.own_workdir(Path(f.workdir)),
            datasets=tuple(dict.fromkeys(datasets or pair.datasets)),
            rules=tuple(dict.fromkeys(rules)),
            questions=source,
            responses=Path(responses) if responses else None,
            imported=imported,
            numerics=f.numerics,
            mesh=f.mesh,
            batch_tokens=f.batch_tokens,
            batch_answers=f.batch_answers,
            stream_bytes=_stream_bytes(card),
            estimator=f.estimator,
            fidelity=f.fidelity,
            command=shlex.join(["python", "-m", program, *sys.argv[1:]]),
        )
        for pair in pairs
    ]


def _start_devices(count: int) -> None:
    """Choose, join and count the devices, as the flags say; a run needs `count` of them."""
    f = flags.FLAGS
    if f.card is not None and (count > 1 or f.simulated_devices or f.coordinator):
        raise InputError(
            "card: a process with one card has no mesh, coordinator or simulated devices"
        )
    if f.simulated_devices:
        devices.simulate(f.simulated_devices)
    if f.card is not None:
        devices.take_card(f.card)
    distributed.start(f.coordinator, f.num_processes, f.process_id)
    devices.require(count, f.mesh, card=f.card)


def _numbers(name: str) -> list[float]:
    """A rule's flag as numbers."""
    number = int if name == "num_samples" else float
    texts = getattr(flags.FLAGS, name)
    if not texts:
        raise InputError(f"{name}: expected at least one number, found none")
    try:
        return [number(text) for text in texts]
    except ValueError:
        kind = "whole numbers" if number is int else "numbers"
        raise InputError(f"{name}: expected {kind}, found {','.join(texts)!r}") from None


def report_failures(failures: list[tuple[str, str]]) -> int:
    """Print one line for each failed task; returns the exit code."""
    for name, message in failures:
        print(f"error: {name}: {' '.join(message.split())}", file=sys.stderr)
    return 1 if failures else 0
