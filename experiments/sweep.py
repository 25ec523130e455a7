r"""Measure a grid of cells: pairs x datasets x alphas (x beta, gamma, delta, num_samples).

    python -m experiments.sweep --pairs=tiny_grpo,tiny_dpo --datasets=arithmetic --alpha=0.1,0.3,0.5
    python -m experiments.sweep --along=tiny_grpo
    python -m experiments.sweep --along=DIR --start=DIR --datasets=gsm8k --data_dir=DIR --prompt=chat
    python -m experiments.sweep --chain=tulu3 --data_dir=DIR
    python -m experiments.sweep --chain=DIR,DIR,DIR --datasets=gsm8k --data_dir=DIR --prompt=chat

Several processes may work on one grid: start the same command again, here or on a machine that
shares the directory. Each cell is measured once; a killed process's cells are continued by whoever
comes next. A cell that fails is named at the end and does not stop the others (exit code 1). Last
line: sweep: <path of the report over all pairs>

--control=tiny_sft compares every other pair with that one, where both start from one checkpoint, and
writes arm_control.csv and arm_control.json (`statistics.against_control`).

--along=DIR compares every checkpoint of DIR/snapshots with the start of the training, says what
changes first, and writes along.csv and along.json; results go to WORKDIR/along_NAME (`along_grid`).

--chain compares each checkpoint of a chain (SFT, DPO, RL, ...) with the one before it and with the
first, and writes chain.csv and chain.json; results go to WORKDIR/chain_NAME (`chain_grid`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags

from experiments import store, study_flags
from experiments.along_grid import run_along
from experiments.binary import run_main
from experiments.chain_grid import chain_directory, run_chain
from experiments.control_grid import run_against_control, with_control
from experiments.errors import InputError
from experiments.grid import Outcome, lock_in, run_grid
from experiments.report import report
from experiments.responses.questions import DATASETS
from experiments.statistics.against_control import AgainstControl
from experiments.study.chains import find_chain
from experiments.study.pairs import CHAT, DEFAULT_PAIR, PAIRS, find_pair
from experiments.study.public_chains import PUBLIC_CHAINS
from experiments.study.snapshots import find_snapshots

# Ways to say what is compared, of which one is given, and the flags that belong to some of them; of
# a registered pair, a prompt and its limit are the pair's own.
_WAYS = ("along", "chain", "control", "pairs")
_TOGETHER = {"control", "pairs"}
_BELONGS = {
    "start": ("along",), "prompt": ("along", "chain"), "max_new_tokens": ("along", "chain"),
}  # fmt: skip


def main(_) -> int:
    f = flags.FLAGS
    _check_ways()
    if f.along is not None:
        return _along()
    if f.chain is not None:
        return _chain()
    pairs = [find_pair(key) for key in dict.fromkeys(f.pairs)]
    control = find_pair(f.control) if f.control is not None else None
    if control is not None:
        pairs = with_control(pairs, control)
    studies = study_flags.studies("experiments.sweep", pairs, f.datasets)
    outcome = run_grid(studies)
    against = run_against_control(studies, control, outcome) if control is not None else []
    return _end(outcome, Path(f.workdir), against=against)


def _check_ways() -> None:
    """What is compared is said in one way, and flags belong to it.

    Raises:
      InputError: two flags contradict each other, or one would be ignored.
    """
    f = flags.FLAGS
    given = [name for name in _WAYS if f[name].present]
    if len(given) > 1 and not set(given) <= _TOGETHER:
        one, other = given[:2]
        raise InputError(f"{one}: expected --{one} or --{other}, found both; give one of them")
    for name, ways in _BELONGS.items():
        if f[name].value is not None and not set(given) & set(ways):
            of = " or ".join(f"--{way}" for way in ways)
            raise InputError(f"{name}: --{name} belongs to {of}, which was not given")


def _along() -> int:
    """Each snapshot of a training against its start."""
    f = flags.FLAGS
    found = find_snapshots(f.along, f.start, prompt=f.prompt, max_new_tokens=f.max_new_tokens)
    studies = study_flags.studies("experiments.sweep", list(found.pairs.values()), f.datasets)
    outcome, steps = run_along(found, studies)
    along = report.Along(name=found.name, steps=steps)
    return _end(outcome, Path(f.workdir) / f"along_{found.name}", along=along)


def _chain() -> int:
    """Each checkpoint of a chain against the one before and against the first."""
    f = flags.FLAGS
    chain = find_chain(f.chain, prompt=f.prompt, max_new_tokens=f.max_new_tokens)
    studies = study_flags.studies("experiments.sweep", list(chain.pairs.values()), f.datasets)
    outcome, directories = run_chain(chain, studies)
    runs = report.ChainRuns(chain=chain, directories=directories)
    return _end(outcome, chain_directory(Path(f.workdir), chain), chain=runs)


def _end(
    outcome: Outcome,
    workdir: Path,
    against: Sequence[AgainstControl] = (),
    along: report.Along | None = None,
    chain: report.ChainRuns | None = None,
) -> int:
    """Write the report over all pairs and say where everything is."""
    for path in outcome.reports:
        print(f"report: {path}")
    print(f"{len(outcome.cells)} cells measured, {len(outcome.failures)} failed")
    if outcome.reports:
        directories = [path.parent for path in outcome.reports]
        with lock_in(workdir, "report"):  # other processes end too
            path = report.write_sweep_report(workdir, directories, against, along, chain)
            if along is not None:
                print(f"{along.name}: {store.read_json(workdir / 'along.json')['first']}")
            if chain is not None:
                print(f"{chain.chain.name}: {store.read_json(workdir / 'chain.json')['headline']}")
        print(f"sweep: {path}")
    return study_flags.report_failures(outcome.failures)


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_list("pairs", [DEFAULT_PAIR], f"Some of {', '.join(PAIRS)}.")
    flags.DEFINE_list("datasets", None, f"Some of {', '.join(DATASETS)}; default: each pair's.")
    flags.DEFINE_string("control", None, "Pair that the others are compared with.")
    flags.DEFINE_string(
        "along", None, "A training: tiny_grpo, tiny_sft, or a directory with a folder snapshots/."
    )
    flags.DEFINE_string(
        "start", None, "along: the checkpoint that the training began with; default: step 0."
    )
    flags.DEFINE_list(
        "chain", None,
        f"One of {', '.join(PUBLIC_CHAINS)}; or checkpoints in the order of training, each a "
        "directory, .gguf file or Hub id.",
    )  # fmt: skip
    flags.DEFINE_string("prompt", None, f"along, chain: text with {{question}}, or {CHAT}.")
    flags.DEFINE_integer(
        "max_new_tokens", None, "along, chain: longest generated answer.", lower_bound=1
    )
    study_flags.define_flags()


def run() -> NoReturn:
    """The console script eap-sweep."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
