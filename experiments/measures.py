"""The metrics of one cell, computed from its saved score files."""

import dataclasses
from typing import Any

import numpy as np

from eap_jax import metrics
from eap_jax.graph import edge_mask, num_layers_of
from experiments import store
from experiments.responses import SIDES

METRICS = {
    "activation_intensity": metrics.activation_intensity,
    "information_complexity": metrics.information_complexity,
    "distribution_kurtosis": metrics.distribution_kurtosis,
    "sample_diversity": metrics.sample_diversity,
    "output_edge_entropy": metrics.output_edge_entropy,
}


def measure(study, cell) -> dict[str, Any]:
    """Compute and save a cell's metrics.json.

    Args:
      study, cell: see study.py; the cell's score files exist.

    Returns:
      what was saved: pair, dataset, rule, cut, samples, the selection's steps, health and mean loss
      of each side, and for each metric base, rl, difference and relative change; `edges_only` holds
      the same over real edges, without the structural zeros.
    """
    scores, side_facts = {}, {}
    for side in SIDES:
        path = store.results_path(
            cell.directory, study.pair.series, cell.dataset, side, cell.rule.alpha
        )
        scores[side] = store.read_results(path)
        facts = store.read_json(cell.directory / f"losses_{side}.json")
        side_facts[side] = {"health": facts["health"], "loss": float(np.mean(facts["losses"]))}
    mask_WR = edge_mask(num_layers_of(*scores["base"].shape[1:]))
    whole, edges = {}, {}
    for name, function in METRICS.items():
        whole[name] = _change(*(function(scores[side]) for side in SIDES))
        if name != "output_edge_entropy":  # its column has an edge from every writer
            edges[name] = _change(*(function(scores[side], mask_WR) for side in SIDES))
    result = {
        "pair": study.pair.key,
        "dataset": cell.dataset,
        "rule": dataclasses.asdict(cell.rule),
        "cut": cell.selection.cut,
        "samples": len(cell.selection.rows),
        "selection": [dataclasses.asdict(step) for step in cell.selection.steps],
        "sides": side_facts,
        "metrics": whole,
        "edges_only": edges,
    }
    store.write_json(cell.directory / "metrics.json", result)
    return result


def _change(base: float, rl: float) -> dict[str, float]:
    return {
        "base": base,
        "rl": rl,
        "difference": rl - base,
        "relative": (rl - base) / base if base else float("nan"),
    }
