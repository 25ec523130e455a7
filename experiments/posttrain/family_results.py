r"""What post-training changed in the tiny family: accuracy, metrics in every view, and the control.

    python -m experiments.posttrain.family_results --families=experiments/checkpoints,DIR1,DIR2 \
        --output=experiments/checkpoints/results.json --workdir=DIR

Each family directory (made by `experiments.posttrain.family`, published or not) is one training
seed. Every arm is compared with its SFT start by the same study as `experiments.run`, every edge cut,
and with the control of its seed on the questions that all three answered right
(`statistics.against_control`). The JSON file keeps all figures; what is printed are README's tables.
With --workdir a killed run goes on. About 5 minutes a seed on two cores.
"""

import dataclasses
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from experiments import store
from experiments.binary import run_main
from experiments.errors import InputError
from experiments.fidelity.cell_fidelity import measure_fidelity
from experiments.posttrain.families import FAMILIES
from experiments.posttrain.family_tables import CONTROL, arms_table, control_table, views_table
from experiments.posttrain.seeds import over_seeds
from experiments.responses.rows import rows_of
from experiments.scoring.cells import plan_cell
from experiments.statistics.against_control import measure_against_control, measure_sides
from experiments.statistics.cell_metrics import side_data
from experiments.statistics.compare import compare
from experiments.statistics.views import View, views_of
from experiments.study.opened import open_study
from experiments.study.pairs import DEFAULT_PAIR, PAIRS, SIDES
from experiments.study.rule import Rule
from experiments.study.settings import QuestionSource, Study

_TINY = FAMILIES["tiny"]
_DIGITS = 6
_FIDELITY = ("samples", "edges", "pearson", "spearman", "sign", "top10", "size_ratio", "intervals")


def collect(
    families: list[Path], alpha: float, questions: int, workdir: Path, arms=tuple(_TINY.arms)
) -> dict[str, Any]:
    """Everything that results.json holds.

    Args:
      families: one directory a training seed.
      alpha: counted share of the mean answer length.
      questions: asked of each model.
      workdir: the studies' files; what is there is not made again.
      arms: which, the control among them.

    Returns:
      `alpha`, `questions`; `arms`, {arm: [one entry a seed]}, see `_arm`; `against_control`, the same
      of every other arm against the control, see `_against`; `over_seeds`, of both
      {arm: {view: {metric: fields of posttrain.seeds.OverSeeds}}}.
    """
    found: dict[str, Any] = {"arms": {}, "against_control": {}}
    views: dict[str, dict[str, list[list[View]]]] = {"arms": {}, "against_control": {}}
    for number, family in enumerate(families):
        studies = {
            arm: study_of(family, arm, alpha, questions, workdir / f"seed{number}") for arm in arms
        }
        for arm, study in studies.items():
            entry, seen = _arm(study)
            found["arms"].setdefault(arm, []).append(entry)
            views["arms"].setdefault(arm, []).append(seen)
        for arm in arms:
            if arm != CONTROL and CONTROL in arms:
                entry, seen = _against(studies[arm], studies[CONTROL])
                found["against_control"].setdefault(arm, []).append(entry)
                views["against_control"].setdefault(arm, []).append(seen)
    summed = {
        kind: {arm: _summed(of_seeds) for arm, of_seeds in by_arm.items()}
        for kind, by_arm in views.items()
    }
    return _rounded({"alpha": alpha, "questions": questions, **found, "over_seeds": summed})


def study_of(family: Path, arm: str, alpha: float, questions: int, workdir: Path) -> Study:
    """The study of one arm of a family, every edge cut.

    Raises:
      InputError: the arm's training is not finished.
    """
    recipe, trained = family / arm / "recipe.json", family / arm / "model"
    # A published family has no recipe and no folder `model`: each arm is a checkpoint, and the start
    # lies beside the arms.
    start = family / _TINY.start_name
    if recipe.exists():
        start = Path(store.read_json(recipe)["start_directory"])
    models = {"base": start, "rl": trained if trained.exists() else family / arm}
    for model in models.values():
        _figures(model)
    pair = dataclasses.replace(PAIRS[arm], **{side: str(model) for side, model in models.items()})
    return Study(
        pair=pair,
        workdir=workdir,
        datasets=(_TINY.task,),
        rules=(Rule(alpha=alpha),),
        questions=QuestionSource(limit=questions),
        batch_tokens=4096,
        batch_answers=128,
        fidelity="all",
    )


def _arm(study: Study) -> tuple[dict[str, Any], list[View]]:
    """Accuracy before and after, seconds of training, each metric's comparison and views, and how
    well the scores predict the effects; and the views as they are."""
    figures = {side: _figures(Path(getattr(study.pair, side))) for side in SIDES}
    opened = open_study(study, _silent)
    rows = rows_of(opened, _TINY.task, _silent)
    cell = plan_cell(opened, _TINY.task, study.rules[0], rows, _silent)
    measure_sides(opened, [cell], _silent)
    base, rl = (side_data(opened, cell, side) for side in SIDES)
    published = compare(base.scores_nWR, rl.scores_nWR)
    views = views_of(base, rl, published)
    fidelity = measure_fidelity(opened, cell) or {}
    entry = {
        "accuracy": {side: figures[side]["accuracy"] for side in SIDES},
        "worked": {side: figures[side]["worked"] for side in SIDES},
        "training_seconds": figures["rl"]["seconds"],
        "samples": len(cell.selection.rows),
        "cut": cell.selection.cut,
        "losses": {"base": float(base.losses_n.mean()), "rl": float(rl.losses_n.mean())},
        "metrics": {key: dataclasses.asdict(one) for key, one in published.items()},
        "views": _by_view(views),
        "fidelity": {side: {name: of[name] for name in _FIDELITY} for side, of in fidelity.items()},
    }
    return entry, views


def _against(arm: Study, control: Study) -> tuple[dict[str, Any], list[View]]:
    """Questions, counted answer tokens and views of an arm (rl) against the control (base)."""
    (found,) = measure_against_control(arm, control, _silent)
    entry = {"samples": found.samples, "cut": found.cut, "views": _by_view(found.views)}
    return entry, list(found.views)


def _by_view(views: Sequence[View]) -> dict[str, dict[str, dict[str, Any]]]:
    """{view: {metric: its other fields}}."""
    found: dict[str, dict] = {}
    for view in views:
        fields = dataclasses.asdict(view)
        found.setdefault(fields.pop("view"), {})[fields.pop("metric")] = fields
    return found


def _summed(of_seeds: list[list[View]]) -> dict[str, dict[str, dict[str, Any]]]:
    """{view: {metric: over seeds}} of what every seed has."""
    by_key: dict[tuple[str, str], list[View]] = {}
    for views in of_seeds:
        for view in views:
            by_key.setdefault((view.view, view.metric), []).append(view)
    found: dict[str, dict] = {}
    for (view, metric), seen in by_key.items():
        if len(seen) == len(of_seeds):
            found.setdefault(view, {})[metric] = dataclasses.asdict(over_seeds(seen))
    return found


def _rounded(data: Any) -> Any:
    """Numbers to six digits, whose intervals are far wider; None where a number is not finite."""
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_rounded(value) for value in data]
    if isinstance(data, float):
        return float(f"{data:.{_DIGITS}g}") if math.isfinite(data) else None
    return data


def formatted(data: Any, depth: int = 0) -> str:
    """JSON with one line for each object of plain values, so that the file is small and readable."""
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    if not any(isinstance(value, dict | list) and _nested(value) for value in inner) and depth:
        return json.dumps(data)
    indent, end = "  " * (depth + 1), "\n" + "  " * depth
    if isinstance(data, dict):
        lines = [f"{json.dumps(key)}: {formatted(value, depth + 1)}" for key, value in data.items()]
    else:
        lines = [formatted(value, depth + 1) for value in data]
    opening, closing = "{}" if isinstance(data, dict) else "[]"
    return f"{opening}\n" + ",\n".join(indent + line for line in lines) + f"{end}{closing}"


def _nested(value: dict | list) -> bool:
    """Whether it is more than a list of plain values."""
    return isinstance(value, dict) or any(isinstance(one, dict | list) for one in value)


def _figures(model: Path) -> dict:
    """What the training of a model measured at its end; beside the model, or in its folder."""
    for directory in (model, model.parent):
        if (directory / "figures.json").exists():
            return store.read_json(directory / "figures.json")
    raise InputError(f"{model}: expected a finished training, found none")


def _silent(line: str) -> None:
    """Say nothing: dozens of studies would print too much."""


def main(_) -> None:
    families = [Path(name) for name in flags.FLAGS.families]
    with tempfile.TemporaryDirectory() as temporary:
        workdir = Path(flags.FLAGS.workdir or temporary)
        results = collect(families, flags.FLAGS.alpha, flags.FLAGS.num_questions, workdir)
    output = Path(flags.FLAGS.output)
    store.write_text(output, formatted(results) + "\n")
    saved = store.read_json(output)
    print(f"{arms_table(saved)}\n\n{control_table(saved)}\n")
    print(f"{DEFAULT_PAIR}, the first seed:\n\n{views_table(saved['arms'][DEFAULT_PAIR][0])}\n")
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
