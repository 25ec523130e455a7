"""A run directory's files -> `StudyResult`, what tables, figures and the report are made from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from converters.adapter_base import with_base
from converters.errors import CheckpointError
from experiments import store
from experiments.errors import InputError
from experiments.report import published
from experiments.report.formats import health_text, without_text
from experiments.report.results import (
    Accuracy,
    CellResult,
    HealthFigure,
    PairInfo,
    StudyResult,
)
from experiments.responses import generated
from experiments.responses.published_format import read_rows
from experiments.responses.tokenization import load_tokenizer
from experiments.scoring.cells import cell_name
from experiments.scoring.selection import Step
from experiments.statistics.bootstrap import FEWEST
from experiments.statistics.compare import Comparison, proportion_interval
from experiments.statistics.concentration import Concentration
from experiments.statistics.metrics import METRIC_BY_KEY
from experiments.statistics.model_text import LOSS, Split
from experiments.statistics.sensitivity import Sensitivity
from experiments.statistics.views import View
from experiments.study.pairs import SIDES, Side
from experiments.study.rule import Rule

# Largest sound column sum by numerics, see `eap_jax.metrics.column_sum_residual`: a missing writer
# gives a value of order 1.
_SOUND = {"float32": 1e-3, "bfloat16": 5e-2, "published": 5e-2}


def gather(directories: list[Path]) -> StudyResult:
    """Everything that the run directories of one or more pairs hold.

    Args:
      directories: <workdir>/<pair> of finished runs.

    Raises:
      InputError: a file is missing or broken.
    """
    manifests = [store.read_json(directory / "manifest.json") for directory in directories]
    studies = list(zip(directories, manifests, strict=True))
    accuracies = [_accuracies(*study) for study in studies]
    first = manifests[0]
    return StudyResult(
        pairs=[_pair(manifest) for manifest in manifests],
        cells=[
            cell
            for study, found in zip(studies, accuracies, strict=True)
            for cell in _cells(*study, found)
        ],
        command="\n".join(dict.fromkeys(manifest["command"] for manifest in manifests)),
        versions={
            "Python": first["python"],
            **first["packages"],
            "this program": first["git_commit"] or "not a git checkout",
        },
        hashes={
            f"{manifest['pair']['key']}, {side}": manifest["checkpoint_sha256"][side]
            for manifest in manifests
            for side in SIDES
        },
        settings={
            "device": first["device"],
            "platform": first["platform"],
            "numerics": first["numerics"],
            "estimator": first.get("estimator", "eap"),
            "mesh": first["mesh"],
            "seconds": ", ".join(f"{manifest['seconds']:g}" for manifest in manifests),
        },
        health=[figure for study in studies for figure in _health(*study)],
        accuracies=[accuracy for found in accuracies for accuracy in found],
        sensitivities=[row for study in studies for row in _sensitivities(*study)],
    )


def _pair(manifest: dict[str, Any]) -> PairInfo:
    pair = manifest["pair"]
    layers = f"{manifest['models']['base']['num_layers']} layers"
    count = manifest.get("parameters")  # a manifest of an earlier program does not say
    return PairInfo(
        key=pair["key"],
        base=pair["base"],
        rl=pair["rl"],
        method=pair["method"],
        size=layers if count is None else f"{layers}, {count:,} parameters",
    )


def _cells(
    directory: Path, manifest: dict[str, Any], accuracies: list[Accuracy]
) -> list[CellResult]:
    decode = {side: _decoder(manifest, side) for side in SIDES}
    asked = {found.dataset: _asked(found) for found in accuracies if found.side == "base"}
    rows: dict[str, dict] = {}  # by dataset, since all its cells choose from the same rows
    cells = []
    for name in manifest["cells"]:
        dataset = Path(name).parent.name
        if dataset not in rows:
            given = read_rows(directory / dataset / "all_correct.jsonl")
            rows[dataset] = {row.fields["idx"]: row for row in given}
        folder = directory / name
        cells.append(_cell(folder, manifest, decode, rows[dataset], asked.get(dataset, [])))
    return cells


def _cell(
    directory: Path, manifest: dict[str, Any], decode: dict, by_idx: dict, asked: list[Step]
) -> CellResult:
    found = store.read_json(directory / "metrics.json")
    pair, dataset, rule = manifest["pair"], found["dataset"], Rule(**found["rule"])
    chosen = store.read_json(directory / "cell.json")["rows"]
    missing = [idx for idx in chosen if idx not in by_idx]
    if missing:
        raise InputError(f"{directory.parent / 'all_correct.jsonl'}: expected idx {missing[0]}")
    scores, losses = {}, {}
    for side in SIDES:
        path = store.results_path(directory, pair["series"], dataset, side, rule.alpha)
        scores[side] = store.read_results(path)
        losses[side] = np.asarray(
            store.read_json(directory / f"losses_{side}.json")["losses"], np.float32
        )
    # The paper's values hold for its own rule of selection only.
    known = {} if rule.variant else published.cell_values(pair["key"], dataset, rule.alpha)
    ends = {}
    if len(chosen) >= FEWEST:
        ends = store.read_arrays(directory / "edge_intervals.npz", ("low", "high"))
    fidelity = directory / "fidelity.json"
    cut = [side for side in SIDES if (directory / f"effects_{side}.npz").exists()]
    return CellResult(
        pair=pair["key"],
        dataset=dataset,
        alpha=rule.alpha,
        base_nWR=scores["base"],
        rl_nWR=scores["rl"],
        rows=[by_idx[idx].fields for idx in chosen],
        t_cut=found["cut"],
        funnel=[*asked, *(Step(**step) for step in found["selection"])],
        comparisons=_comparisons(found["metrics"]),
        one_range=_comparisons(found.get("one_range", {})),
        base_losses_n=losses["base"],
        rl_losses_n=losses["rl"],
        edge_low_WR=ends.get("low"),
        edge_high_WR=ends.get("high"),
        faithfulness=_faithfulness(directory),
        published=known,
        variant=rule.variant,
        estimator=manifest.get("estimator", "eap"),
        decode=decode["base"],
        rl_decode=decode["rl"],
        fidelity=store.restored(store.read_json(fidelity)) if fidelity.exists() else {},
        effects={
            side: store.read_effects(directory / f"effects_{side}.npz", scores[side].shape)
            for side in (cut if len(cut) == len(SIDES) else ())
        },
        views=[
            View(**store.restored(row)) for row in found.get("views", ())
            if row["metric"] in METRIC_BY_KEY
        ],
        median_ratios=found.get("median_ratios", {}),
        where_loss_is={
            side: Concentration.from_json(fields)
            for side, fields in found.get("where_loss_is", {}).items()
        },
        identical_texts=found.get("identical_texts"),
        model_text=_model_text(directory),
    )  # fmt: skip


def _faithfulness(directory: Path) -> dict[str, dict[str, Any]]:
    """What faithfulness.json holds, if both sides' circuits were run."""
    path = directory / "faithfulness.json"
    found = store.restored(store.read_json(path)) if path.exists() else {}
    return found if all(side in found for side in SIDES) else {}


def _model_text(directory: Path) -> dict[str, Split]:
    """The splits of model_text.json by metric, and that of the loss; empty where nothing is split."""
    path = directory / "model_text.json"
    found = store.read_json(path) if path.exists() else {}
    splits = {
        key: Split.from_json(fields)
        for key, fields in found.get("metrics", {}).items()
        if key in METRIC_BY_KEY
    }
    return splits | {LOSS: Split.from_json(found["losses"])} if splits else {}


def _comparisons(found: dict[str, Any]) -> dict[str, Comparison]:
    """By metric; a metric that this program does not know is left out."""
    return {
        key: Comparison.from_json(fields) for key, fields in found.items() if key in METRIC_BY_KEY
    }


def _asked(base: Accuracy) -> list[Step]:
    """The funnel's first steps, where a dataset's answers were generated or imported here."""
    return [
        Step(name="questions", rows=base.total, reason="both models were asked"),
        Step(name="base right", rows=base.right, reason="the base model answered correctly"),
    ]


def _decoder(manifest: dict[str, Any], side: Side) -> Callable | None:
    """A side's tokenizer, or None where it is not at hand."""
    checkpoint = Path(manifest["checkpoints"][side])
    base = manifest.get("adapter_bases", {}).get(side)
    try:
        return load_tokenizer(checkpoint if base is None else with_base(checkpoint, base)).decode
    except (InputError, CheckpointError):
        return None


def _health(directory: Path, manifest: dict[str, Any]) -> list[HealthFigure]:
    bar = _SOUND[manifest["numerics"]]
    expected = f"below {bar:g}: what all writers send to a reader cancels out"
    # Runs of before there was a choice have published scores.
    if manifest.get("estimator", "eap") != "eap":
        expected = "nothing: scores of this estimator need not cancel out"
    figures = []
    for name in manifest["cells"]:
        found = store.read_json(directory / name / "metrics.json")
        label = f"{manifest['pair']['key']}, {cell_name(found['dataset'], Rule(**found['rule']))}"
        for side in SIDES:
            value = found["sides"][side]["health"]
            without = found["sides"][side].get("health_without")
            figures.append(
                HealthFigure(
                    name=f"Column sums, {label}, {side}",
                    value=health_text(value),
                    expected=expected + (without_text(without) if without else ""),
                    sound=None if value is None else value < bar,
                )
            )
    return figures


def _accuracies(directory: Path, manifest: dict[str, Any]) -> list[Accuracy]:
    """Of each dataset whose answers were generated or imported here."""
    figures = []
    for dataset in dict.fromkeys(Path(name).parent.name for name in manifest["cells"]):
        for side in SIDES:
            given = generated.read_answers(directory / dataset / f"responses_{side}.jsonl")
            if given:
                right = sum(answer.score for answer in given)
                figures.append(
                    Accuracy(
                        pair=manifest["pair"]["key"],
                        dataset=dataset,
                        side=side,
                        right=right,
                        total=len(given),
                        interval=proportion_interval(right, len(given)),
                    )
                )
    return figures


def _sensitivities(directory: Path, manifest: dict[str, Any]) -> list[Sensitivity]:
    found = []
    for name in manifest["cells"]:
        for row in store.read_json(directory / name / "metrics.json")["sensitivities"]:
            cell = f"{manifest['pair']['key']}, {row['cell']}"
            found.append(Sensitivity(**store.restored(row | {"cell": cell})))
    return found
