r"""Measure a grid of cells: pairs x datasets x alphas (x beta, gamma, delta, num_samples).

    python -m experiments.sweep --pairs=tiny_grpo,tiny_dpo --datasets=arithmetic --alpha=0.1,0.3,0.5

Several processes may work on one grid: start the same command again, here or on a machine that
shares the directory. Each cell is measured once; a killed process's cells are continued by whoever
comes next. A cell that fails is named at the end and does not stop the others (exit code 1). Last
line: sweep: <path of the report over all pairs>

--control=tiny_sft compares every other pair with that one, where both start from one checkpoint, and
writes arm_control.csv and arm_control.json (`statistics.against_control`).
"""

from pathlib import Path
from typing import NoReturn

from absl import flags

from experiments import study_flags
from experiments.binary import run_main
from experiments.control_grid import run_against_control, with_control
from experiments.grid import lock_in, run_grid
from experiments.report import report
from experiments.responses.questions import DATASETS
from experiments.study.pairs import DEFAULT_PAIR, PAIRS, find_pair


def main(_) -> int:
    f = flags.FLAGS
    pairs = [find_pair(key) for key in dict.fromkeys(f.pairs)]
    control = find_pair(f.control) if f.control is not None else None
    if control is not None:
        pairs = with_control(pairs, control)
    studies = study_flags.studies("experiments.sweep", pairs, f.datasets)
    outcome = run_grid(studies)
    against = run_against_control(studies, control, outcome) if control is not None else []
    for path in outcome.reports:
        print(f"report: {path}")
    print(f"{len(outcome.cells)} cells measured, {len(outcome.failures)} failed")
    if outcome.reports:
        directories = [path.parent for path in outcome.reports]
        workdir = Path(f.workdir)
        with lock_in(workdir, "report"):  # other processes end too
            print(f"sweep: {report.write_sweep_report(workdir, directories, against)}")
    return study_flags.report_failures(outcome.failures)


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_list("pairs", [DEFAULT_PAIR], f"Some of {', '.join(PAIRS)}.")
    flags.DEFINE_list("datasets", None, f"Some of {', '.join(DATASETS)}; default: each pair's.")
    flags.DEFINE_string("control", None, "Pair that the others are compared with.")
    study_flags.define_flags()


def run() -> NoReturn:
    """The console script eap-sweep."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
