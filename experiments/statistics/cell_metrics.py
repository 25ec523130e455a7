"""The metrics of one cell with their uncertainty, computed from its saved score files."""

import dataclasses
from typing import Any

import numpy as np

from eap_jax.graph import edge_mask, num_layers_of
from experiments import store
from experiments.errors import InputError
from experiments.fidelity.effects import effects_path
from experiments.fidelity.logit_difference import logit_difference_path
from experiments.scoring.cells import Cell, results_path
from experiments.statistics.compare import Comparison, compare, edge_intervals
from experiments.statistics.concentration import concentration, median_ratios
from experiments.statistics.metrics import HISTOGRAM_METRICS, FreeChoices
from experiments.statistics.sensitivity import sensitivities
from experiments.statistics.views import SideData, views_of
from experiments.study.opened import OpenStudy
from experiments.study.pairs import SIDES, Side


def measure_cell(opened: OpenStudy, cell: Cell) -> dict[str, Any]:
    """Compute and save a cell's metrics.json and, of 10 questions or more, edge_intervals.npz.

    Args:
      opened, cell: the study and its cell; the cell's score files exist.

    Returns:
      what metrics.json holds: pair, dataset, rule, cut, samples, the selection's steps,
      `identical_texts`, the share of questions in which both models have one counted text; health
      and mean loss of each side, and where that loss is; `metrics`, the paired comparison of every
      metric over the whole matrix as published; `one_range`, that of the histograms' entropies on
      one range for both sides; `median_ratios` of questions beside it; `views`, the same metrics in
      other views; `edges_only`, as published over real edges, without the structural zeros;
      `sensitivities` to bins, range and N.

    Raises:
      InputError: a file is missing, broken, or of another number of questions.
    """
    data, sides, places = {}, {}, {}
    for side in SIDES:
        data[side] = side_data(opened, cell, side)
        facts = store.read_json(cell.directory / f"losses_{side}.json")
        positions = facts.get("positions")
        health = {key: facts[key] for key in ("health", "health_without") if key in facts}
        sides[side] = health | {"loss": float(np.mean(facts["losses"]))}
        places[side] = concentration(
            data[side].scores_nWR,
            data[side].losses_n,
            None if positions is None else np.asarray(positions),
        )
    base_nWR, rl_nWR = data["base"].scores_nWR, data["rl"].scores_nWR
    mask_WR = edge_mask(num_layers_of(*base_nWR.shape[1:]))
    low_WR, high_WR = edge_intervals(base_nWR, rl_nWR)
    if low_WR is not None:
        store.write_arrays(cell.directory / "edge_intervals.npz", low=low_WR, high=high_WR)
    published = compare(base_nWR, rl_nWR)
    result = {
        "pair": opened.study.pair.key,
        "dataset": cell.dataset,
        "rule": dataclasses.asdict(cell.rule),
        "cut": cell.selection.cut,
        "samples": len(cell.selection.rows),
        "selection": [dataclasses.asdict(step) for step in cell.selection.steps],
        "identical_texts": cell.selection.identical_texts,
        "sides": sides,
        "where_loss_is": {side: dataclasses.asdict(found) for side, found in places.items()},
        "metrics": _plain(published),
        "median_ratios": median_ratios(base_nWR, rl_nWR),
        "views": [
            dataclasses.asdict(view) for view in views_of(data["base"], data["rl"], published)
        ],
        "one_range": _plain(compare(base_nWR, rl_nWR, one_range=True, metrics=HISTOGRAM_METRICS)),
        "edges_only": _plain(compare(base_nWR, rl_nWR, FreeChoices(support_WR=mask_WR))),
        "sensitivities": [
            dataclasses.asdict(row) for row in sensitivities(base_nWR, rl_nWR, cell=cell.name)
        ],
    }
    store.write_json(cell.directory / "metrics.json", result)
    return result


def side_data(opened: OpenStudy, cell: Cell, side: Side) -> SideData:
    """What one side's saved files hold; what was not computed is None.

    Raises:
      InputError: a file is missing, broken, or of another number of questions.
    """
    scores_nWR = store.read_results(results_path(opened, cell, side))
    path = cell.directory / f"losses_{side}.json"
    facts = store.read_json(path)
    norms = facts.get("gradient_norms")
    for name in ("losses", "gradient_norms"):
        if len(facts.get(name, scores_nWR)) != len(scores_nWR):
            raise InputError(
                f"{path}: {name}: expected {len(scores_nWR)}, one a question, found {len(facts[name])}"
            )
    lead, exact = logit_difference_path(cell, side), effects_path(cell, side)
    effects = store.read_effects(exact, scores_nWR.shape) if exact.exists() else None
    return SideData(
        scores_nWR=scores_nWR,
        losses_n=np.asarray(facts["losses"], np.float64),
        gradient_norms_n=None if norms is None else np.asarray(norms, np.float64),
        lead_nWR=store.read_results(lead) if lead.exists() else None,
        effects_mWR=None if effects is None else effects.effects_mWR,
    )


def _plain(comparisons: dict[str, Comparison]) -> dict[str, dict[str, Any]]:
    return {name: dataclasses.asdict(found) for name, found in comparisons.items()}
