r"""What post-training changed in the tiny family: accuracy and metrics of every arm and seed.

    python -m experiments.posttrain.family_results --families=experiments/checkpoints,DIR1,DIR2 \
        --output=experiments/checkpoints/results.json

Each family directory (made by `experiments.posttrain.family`, published or not) is one training
seed. Every arm is compared with its SFT start by the same study as `experiments.run`; the JSON file
keeps all figures, and the table that is printed is the one in README.md.
"""

import collections
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import NoReturn

from absl import flags

from experiments import store
from experiments.binary import run_main
from experiments.errors import InputError
from experiments.posttrain.family import ARMS
from experiments.responses.rows import rows_of
from experiments.scoring.cells import plan_cell, score_cells
from experiments.statistics.cell_metrics import measure_cell
from experiments.statistics.compare import Comparison
from experiments.statistics.metrics import METRICS
from experiments.statistics.trend import trend
from experiments.study.opened import open_study
from experiments.study.pairs import PAIRS, SIDES
from experiments.study.rule import Rule
from experiments.study.settings import QuestionSource, Study

_CONTROL = "tiny_sft"


def collect(families: list[Path], alpha: float, questions: int, workdir: Path) -> dict:
    """Figures of all arms: {arm: [one entry a seed]}; see `_arm` for an entry."""
    return {
        arm: [
            _arm(family, arm, alpha, questions, workdir / f"seed{number}")
            for number, family in enumerate(families)
        ]
        for arm in ARMS
    }


def _arm(family: Path, arm: str, alpha: float, questions: int, workdir: Path) -> dict:
    """Accuracy before and after, seconds of training, and each metric's comparison."""
    recipe, trained = family / arm / "recipe.json", family / arm / "model"
    # A published family has no recipe and no folder `model`: each arm is a checkpoint, and the start
    # lies beside the arms.
    start = family / "tiny_start"
    if recipe.exists():
        start = Path(store.read_json(recipe)["start_directory"])
    models = {"base": start, "rl": trained if trained.exists() else family / arm}
    figures = {side: _figures(model) for side, model in models.items()}
    pair = dataclasses.replace(PAIRS[arm], **{side: str(model) for side, model in models.items()})
    study = Study(
        pair=pair,
        workdir=workdir,
        datasets=("arithmetic",),
        rules=(Rule(alpha=alpha),),
        questions=QuestionSource(limit=questions),
        batch_tokens=4096,
        batch_answers=128,
    )
    opened = open_study(study, _silent)
    rows = rows_of(opened, "arithmetic", _silent)
    cell = plan_cell(opened, "arithmetic", study.rules[0], rows, _silent)
    for side in SIDES:
        score_cells(opened, [cell], side)
    measured = measure_cell(opened, cell)
    return {
        "accuracy": {side: figures[side]["accuracy"] for side in figures},
        "worked": {side: figures[side]["worked"] for side in figures},
        "training_seconds": figures["rl"]["seconds"],
        "samples": measured["samples"],
        "metrics": measured["metrics"],
    }


def _figures(model: Path) -> dict:
    """What the training of a model measured at its end; beside the model, or in its folder."""
    for directory in (model, model.parent):
        if (directory / "figures.json").exists():
            return store.read_json(directory / "figures.json")
    raise InputError(f"{model}: expected a finished training, found none")


def _silent(line: str) -> None:
    """Say nothing: fifteen studies would print too much."""


def table(results: dict) -> str:
    """Markdown: of each arm the accuracies, and of each metric the median relative change over the
    training seeds with the number of seeds in which it clearly rises or falls.

    A metric that some arm or seed lacks, since it is newer than the figures, is left out.
    """
    measured = [entry["metrics"] for entries in results.values() for entry in entries]
    shown = [metric for metric in METRICS if all(metric.key in found for found in measured)]
    lines = [
        "| arm | accuracy, % | " + " | ".join(metric.brief for metric in shown) + " |",
        "| --- | --- |" + " --- |" * len(shown),
    ]
    for arm, entries in results.items():
        after = ", ".join(f"{100 * entry['accuracy']['rl']:.0f}" for entry in entries)
        cells = [f"{100 * entries[0]['accuracy']['base']:.0f} → {after}"]
        for metric in shown:
            found = [Comparison.from_json(entry["metrics"][metric.key]) for entry in entries]
            middle = statistics.median(one.relative for one in found)
            seen = collections.Counter(map(trend, found))
            clear = ", ".join(
                f"{word} {seen[word]}/{len(found)}" for word in ("rises", "falls") if seen[word]
            )
            cells.append(f"{middle:+.0%} ({clear or 'unclear'})")
        name = f"{arm} (control)" if arm == _CONTROL else arm
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(_) -> None:
    families = [Path(name) for name in flags.FLAGS.families]
    with tempfile.TemporaryDirectory() as temporary:
        workdir = Path(flags.FLAGS.workdir or temporary)
        results = collect(families, flags.FLAGS.alpha, flags.FLAGS.num_questions, workdir)
    output = Path(flags.FLAGS.output)
    content = {"alpha": flags.FLAGS.alpha, "questions": flags.FLAGS.num_questions, "arms": results}
    store.write_json(output, content)
    print(table(results))
    print(f"results: {output}")


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_list("families", None, "Family directories, one a training seed.", required=True)
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_string("workdir", None, "Keep the studies here; none: discard them.")
    flags.DEFINE_float("alpha", 0.3, "Counted share of the mean answer length.")
    flags.DEFINE_integer("num_questions", 300, "Questions asked of each model.", lower_bound=1)


def run() -> NoReturn:
    """The program."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
