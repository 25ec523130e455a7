r"""Measure a grid of cells: pairs x datasets x alphas (x beta, gamma, delta, num_samples).

    python -m experiments.sweep --pairs=tiny_grpo,tiny_dpo --datasets=arithmetic --alpha=0.1,0.3,0.5
    python -m experiments.sweep --along=tiny_grpo
    python -m experiments.sweep --along=DIR --start=DIR --datasets=gsm8k --data_dir=DIR --prompt=chat

--along compares every checkpoint of DIR/snapshots with the start and says what changes first; results
go to WORKDIR/along_NAME.

Several processes may work on one grid: start the same command again, here or on a machine that
shares the directory. Each cell is measured once; a killed process's cells are continued by whoever
comes next. A cell that fails is named at the end and does not stop the others (exit code 1). Last
line: sweep: <path of the report over all pairs>
"""

import dataclasses
from pathlib import Path
from typing import NoReturn

from absl import flags

from experiments import store, study_flags
from experiments.binary import run_main
from experiments.errors import InputError
from experiments.grid import Outcome, lock_in, run_grid
from experiments.report import report
from experiments.responses.questions import DATASETS
from experiments.study.pairs import CHAT, DEFAULT_PAIR, PAIRS, find_pair
from experiments.study.settings import Study
from experiments.study.snapshots import find_snapshots


def main(_) -> int:
    f = flags.FLAGS
    if f.along is not None:
        return _along()
    for name in ("start", "prompt"):
        if f[name].value is not None:
            raise InputError(f"{name}: --{name} belongs to --along, which was not given")
    pairs = [find_pair(key) for key in dict.fromkeys(f.pairs)]
    outcome = run_grid(study_flags.studies("experiments.sweep", pairs, f.datasets))
    return _end(outcome, Path(f.workdir))


def _along() -> int:
    """Each snapshot of a training against its start."""
    f = flags.FLAGS
    if f["pairs"].present:
        raise InputError("along: --along and --pairs contradict each other; give one of them")
    found = find_snapshots(f.along, f.start, f.prompt)
    studies = study_flags.studies("experiments.sweep", list(found.pairs.values()), f.datasets)
    workdir = Path(f.workdir) / f"along_{found.name}"
    own = studies[0].workdir / f"along_{found.name}"
    total, steps, source = Outcome(), {}, None
    for step, study in zip(found.pairs, studies, strict=True):
        study = dataclasses.replace(study, workdir=own)
        if source is not None:
            _share_answers(source, study)
        outcome = run_grid([study])
        for ends in ("reports", "cells", "failures"):
            getattr(total, ends).extend(getattr(outcome, ends))
        if outcome.reports:
            steps[outcome.reports[0].parent] = step
            source = source or study
    return _end(total, workdir, steps, found.name)


def _share_answers(done: Study, study: Study) -> None:
    """The start answers each question once: its file of a finished step serves the next one."""
    for dataset in study.datasets:
        path = Path(dataset) / "responses_base.jsonl"
        with lock_in(study.directory, dataset):
            if (done.directory / path).exists() and not (study.directory / path).exists():
                store.write_bytes(study.directory / path, (done.directory / path).read_bytes())


def _end(
    outcome: Outcome, workdir: Path, along: dict[Path, int] | None = None, name: str = ""
) -> int:
    for path in outcome.reports:
        print(f"report: {path}")
    print(f"{len(outcome.cells)} cells measured, {len(outcome.failures)} failed")
    if outcome.reports:
        directories = [path.parent for path in outcome.reports]
        with lock_in(workdir, "report"):  # other processes end too
            path = report.write_sweep_report(workdir, directories, along, name)
        if along is not None:
            print(store.read_json(workdir / "along.json")["first"])
        print(f"sweep: {path}")
    return study_flags.report_failures(outcome.failures)


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_list("pairs", [DEFAULT_PAIR], f"Some of {', '.join(PAIRS)}.")
    flags.DEFINE_list("datasets", None, f"Some of {', '.join(DATASETS)}; default: each pair's.")
    flags.DEFINE_string(
        "along", None, "A training: tiny_grpo, tiny_sft, or a directory with a folder snapshots/."
    )
    flags.DEFINE_string("start", None, "along: the checkpoint that the training began with.")
    flags.DEFINE_string("prompt", None, f"along: text with {{question}}, or {CHAT}.")
    study_flags.define_flags()


def run() -> NoReturn:
    """The console script eap-sweep."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
