"""A graph of scores as EAP-IG reads it: all heads of an edge, its ranking, its faithfulness."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from eap_jax.graph import edge_mask, num_layers_of, reader_names, writer_names
from experiments.fidelity.rankings import EXPORTED_EDGES, exported_circuit
from experiments.report.results import CellResult

# A graph of 32 layers with 32 heads has 1.6 million edges, 90 MB as text.
MOST_LISTED = 250_000


def eap_ig_graph(
    scores_WR: np.ndarray,
    d_model: int,
    num_heads: int,
    *,
    in_graph: int = EXPORTED_EDGES,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A score matrix as the object that EAP-IG's `Graph.from_json` reads.

    Attention is one node a layer here and one a head there, so an edge stands for the edges of all
    its heads: each of them has its score and is in the graph if it is. Kept or cut together they do
    what the one edge does, and ranked they stay together. Scores carry the same sign there: positive
    where removing the edge raises the loss. With `intervention="zero"`, `evaluate_graph` gives the
    loss of `eap_jax.circuit`, for a model without a bias on the attention's output, which belongs to
    no head there; the key and value reads of grouped heads are those of their query heads.

    Args:
      scores_WR: mean scores [1+2L, 4L+1].
      d_model: width of the residual stream; EAP-IG sizes its neuron tables by it.
      num_heads: query heads of an attention.
      in_graph: how many edges of the largest |score| are marked as the circuit. As in EAP-IG's
        pruning, an edge that no path from input to logits uses is then left out.
      about: further facts for people; EAP-IG does not read them.

    Returns:
      {"cfg": ..., "nodes": {name: {"in_graph": bool}}, "edges": {name: {"score", "in_graph"}},
      "about": ...}. Of a graph with more than `MOST_LISTED` edges between heads only those of the
      circuit are listed; the others have score 0 and are not in the graph, as EAP-IG takes it.

    Raises:
      ValueError: no model has a matrix of this shape.
    """
    num_layers = num_layers_of(*scores_WR.shape)
    writers = [_heads(name, num_heads) for name in writer_names(num_layers)]
    readers = [_heads(name, num_heads) for name in reader_names(num_layers)]
    mask_WR = edge_mask(num_layers)
    kept_WR = exported_circuit(scores_WR, in_graph)
    sizes_WR = np.outer([len(heads) for heads in writers], [len(heads) for heads in readers])
    every = int(sizes_WR[mask_WR].sum()) <= MOST_LISTED
    edges = {}
    for r, w in np.argwhere((mask_WR if every else kept_WR).T):
        info = {"score": float(scores_WR[w, r]), "in_graph": bool(kept_WR[w, r])}
        for reader in readers[r]:
            edges |= {f"{writer}->{reader}": info for writer in writers[w]}
    nodes = {
        name: {"in_graph": bool(kept_WR[w].any())}
        for w, heads in enumerate(writers)
        for name in heads
    }
    nodes["logits"] = {"in_graph": True}
    config = {
        "n_layers": num_layers,
        "n_heads": num_heads,
        "parallel_attn_mlp": False,
        "d_model": d_model,
    }
    facts = {
        "ranked_by": "absolute value of the mean score",
        "strongest_edges": min(in_graph, int(mask_WR.sum())),
        "edges_on_a_path": int(kept_WR.sum()),
        "all_edges": int(mask_WR.sum()),
        "edges_listed": "all" if every else "those in the graph",
    }
    return {"cfg": config, "nodes": nodes, "edges": edges, "about": facts | dict(about or {})}


def faithful(cell: CellResult, side: str) -> dict[str, Any] | str:
    """How much of the loss the exported circuit recovers, where circuits were run."""
    if not cell.faithfulness:
        return "not measured"
    found = cell.faithfulness[side]
    by_mean = {"mean": found["mean"]} if "mean" in found else {}
    return {
        "meaning": "recovered = (loss - empty_loss) / (full_loss - empty_loss), other edges cut; 1 is "
        "the whole model, 0 none of it. By the mean, a cut edge brings its writer's mean write over "
        "the samples and their tokens",
        **_recovered(found, "zero"),
        **{name: _recovered(figures, name) for name, figures in by_mean.items()},
    }


def _recovered(found: Mapping[str, Any], ablation: str) -> dict[str, Any]:
    """What one ablation says of the exported circuit and of the ranking that it is from."""
    low, high = (end if math.isfinite(end) else None for end in found["exported"]["interval"])
    return {
        "ablation": ablation,
        "samples": found["samples"],
        "full_loss": found["full_loss"],
        "empty_loss": found["empty_loss"],
        "circuit_loss": found["exported"]["loss"],
        "recovered": found["exported"]["recovered"],
        "recovered_interval": [low, high],
        "cpr_of_the_ranking": found["cpr"],
        "cmd_of_the_ranking": found["cmd"],
    }


def _heads(name: str, num_heads: int) -> list[str]:
    """`a3<q>` -> `a3.h0<q>`, `a3.h1<q>`, ...; a node that is no attention keeps its name."""
    if not name.startswith("a"):
        return [name]
    node, bracket, kind = name.partition("<")
    return [f"{node}.h{head}{bracket}{kind}" for head in range(num_heads)]
