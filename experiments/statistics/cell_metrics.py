"""The metrics of one cell with their uncertainty, computed from its saved score files."""

import dataclasses
from typing import Any

import numpy as np

from eap_jax.graph import edge_mask, num_layers_of
from experiments import store
from experiments.scoring.cells import Cell, results_path
from experiments.statistics.compare import Comparison, compare, edge_intervals
from experiments.statistics.metrics import HISTOGRAM_METRICS, FreeChoices
from experiments.statistics.sensitivity import sensitivities
from experiments.study.opened import OpenStudy
from experiments.study.pairs import SIDES


def measure_cell(opened: OpenStudy, cell: Cell) -> dict[str, Any]:
    """Compute and save a cell's metrics.json and, of 10 questions or more, edge_intervals.npz.

    Args:
      opened, cell: the study and its cell; the cell's score files exist.

    Returns:
      what metrics.json holds: pair, dataset, rule, cut, samples, the selection's steps, health and
      mean loss of each side; `metrics`, the paired comparison of every metric over the whole matrix
      as published; `one_range`, that of the histograms' entropies on one range for both sides;
      `edges_only`, the same as published over real edges, without the structural zeros;
      `sensitivities` to bins, range and N.
    """
    scores, sides = {}, {}
    for side in SIDES:
        scores[side] = store.read_results(results_path(opened, cell, side))
        facts = store.read_json(cell.directory / f"losses_{side}.json")
        sides[side] = {"health": facts["health"], "loss": float(np.mean(facts["losses"]))}
    base_nWR, rl_nWR = scores["base"], scores["rl"]
    mask_WR = edge_mask(num_layers_of(*base_nWR.shape[1:]))
    low_WR, high_WR = edge_intervals(base_nWR, rl_nWR)
    if low_WR is not None:
        store.write_arrays(cell.directory / "edge_intervals.npz", low=low_WR, high=high_WR)
    result = {
        "pair": opened.study.pair.key,
        "dataset": cell.dataset,
        "rule": dataclasses.asdict(cell.rule),
        "cut": cell.selection.cut,
        "samples": len(cell.selection.rows),
        "selection": [dataclasses.asdict(step) for step in cell.selection.steps],
        "sides": sides,
        "metrics": _plain(compare(base_nWR, rl_nWR)),
        "one_range": _plain(compare(base_nWR, rl_nWR, one_range=True, metrics=HISTOGRAM_METRICS)),
        "edges_only": _plain(compare(base_nWR, rl_nWR, FreeChoices(support_WR=mask_WR))),
        "sensitivities": [
            dataclasses.asdict(row) for row in sensitivities(base_nWR, rl_nWR, cell=cell.name)
        ],
    }
    store.write_json(cell.directory / "metrics.json", result)
    return result


def _plain(comparisons: dict[str, Comparison]) -> dict[str, dict[str, Any]]:
    return {name: dataclasses.asdict(found) for name, found in comparisons.items()}
