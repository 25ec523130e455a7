"""The numbers of a study as files for other programs: tables, edge lists and EAP-IG graphs.

table.md, table.csv     every cell's metrics with intervals, verdicts and published values
edges.csv               every edge of a cell: base, rl, difference and its 95 % interval
graph_{base,rl}.json    what EAP-IG's `Graph.from_json` reads
"""

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from eap_jax.graph import edge_mask, num_layers_of, reader_names, writer_names
from experiments.report.formats import number, percent
from experiments.report.results import CellResult, StudyResult
from experiments.report.strongest_edges import strongest_edges
from experiments.statistics.bootstrap import IN_WORDS
from experiments.statistics.compare import Comparison
from experiments.statistics.metrics import Metric
from experiments.statistics.trend import trend
from experiments.store import write_text

TABLE_COLUMNS = (
    "pair", "dataset", "alpha", "metric",
    "base", "base_low", "base_high", "rl", "rl_low", "rl_high",
    "difference", "difference_low", "difference_high",
    "relative", "relative_low", "relative_high",
    "wilcoxon_p", "sign_p", "effect_size", "samples",
    "trend", "paper", "published_base", "published_rl", "selection",
)  # fmt: skip
EDGE_COLUMNS = (
    "writer", "reader", "base", "rl", "difference", "difference_low", "difference_high",
)  # fmt: skip
MARKDOWN_COLUMNS = (
    "Pair", "Dataset", "alpha", "Metric", "Base", "RL", "Change", "Here", "Paper", "Published",
)  # fmt: skip
DEFAULT_CIRCUIT_EDGES = 200


def table_csv(study: StudyResult) -> str:
    """One line a cell and metric, numbers in full precision, empty where not defined."""
    return _csv(TABLE_COLUMNS, (line for line in _table_lines(study)))


def table_markdown(study: StudyResult) -> str:
    """The paper's table 1 with intervals, one line a cell and metric, for a README or an issue."""
    lines = ["| " + " | ".join(MARKDOWN_COLUMNS) + " |", "|" + " --- |" * len(MARKDOWN_COLUMNS)]
    for cell in study.cells:
        for metric, comparison in cell.measured:
            lines.append("| " + " | ".join(_markdown_cells(cell, metric, comparison)) + " |")
    note = (
        f"Brackets hold {IN_WORDS}. "
        "*Here* is `rises` or `falls` where the interval of the difference excludes zero and the "
        "signed-rank test agrees (p < 0.05), else `unclear`; *Paper* is the direction "
        "after online RL. Metrics follow arXiv 2509.21044."
    )
    return "\n".join([*lines, "", note]) + "\n"


def edges_csv(cell: CellResult) -> str:
    """Every existing edge of a cell, mean score before and after, in the matrix's order."""
    return _csv(EDGE_COLUMNS, _edge_lines(cell))


def eap_ig_graph(
    scores_WR: np.ndarray, d_model: int, *, in_graph: int = DEFAULT_CIRCUIT_EDGES
) -> dict[str, Any]:
    """A score matrix as the object that EAP-IG's `Graph.from_json` reads.

    Attention is one node a layer here, so the graph has one head, `a{l}.h0`. Scores carry the same
    sign there: positive where removing the edge raises the loss.

    Args:
      scores_WR: mean scores [1+2L, 4L+1].
      d_model: width of the residual stream; EAP-IG sizes its neuron tables by it.
      in_graph: how many edges of the largest |score| are marked as the circuit. As in EAP-IG's
        pruning, an edge that no path from input to logits uses is then left out.

    Returns:
      {"cfg": ..., "nodes": {name: {"in_graph": bool}}, "edges": {name: {"score", "in_graph"}}}.

    Raises:
      ValueError: no model has a matrix of this shape.
    """
    num_layers = num_layers_of(*scores_WR.shape)
    writers = [_one_head(name) for name in writer_names(num_layers)]
    readers = [_one_head(name) for name in reader_names(num_layers)]
    mask_WR = edge_mask(num_layers)
    kept_WR = np.zeros_like(mask_WR)
    for place in strongest_edges(np.abs(scores_WR), mask_WR, in_graph):
        kept_WR[place] = True
    kept_WR = _connected(kept_WR)
    edges = {
        f"{writers[w]}->{readers[r]}": {
            "score": float(scores_WR[w, r]),
            "in_graph": bool(kept_WR[w, r]),
        }
        for r in range(len(readers))
        for w in range(len(writers))
        if mask_WR[w, r]
    }
    nodes = {name: {"in_graph": bool(kept_WR[w].any())} for w, name in enumerate(writers)}
    nodes["logits"] = {"in_graph": True}
    config = {
        "n_layers": num_layers, "n_heads": 1, "parallel_attn_mlp": False, "d_model": d_model,
    }  # fmt: skip
    return {"cfg": config, "nodes": nodes, "edges": edges}


def write_tables(study: StudyResult, directory: Path) -> tuple[Path, Path]:
    """Write table.md and table.csv; returns their paths."""
    markdown, table = directory / "table.md", directory / "table.csv"
    write_text(markdown, table_markdown(study))
    write_text(table, table_csv(study))
    return markdown, table


def write_edges(cell: CellResult, directory: Path, d_model: int) -> tuple[Path, ...]:
    """Write a cell's edges.csv, graph_base.json and graph_rl.json; returns their paths."""
    edges = directory / "edges.csv"
    write_text(edges, edges_csv(cell))
    written = [edges]
    for side, scores_WR in (("base", cell.base_WR), ("rl", cell.rl_WR)):
        path = directory / f"graph_{side}.json"
        graph = eap_ig_graph(scores_WR, d_model)
        write_text(path, json.dumps(graph) + "\n")
        written.append(path)
    return tuple(written)


def _table_lines(study: StudyResult) -> Iterable[tuple]:
    for cell in study.cells:
        for metric, found in cell.measured:
            published = cell.published.get(metric.key, (None, None))
            yield (
                cell.pair, cell.dataset, cell.alpha, metric.key,
                found.base, *found.base_interval, found.rl, *found.rl_interval,
                found.difference, *found.difference_interval,
                found.relative, *found.relative_interval,
                found.wilcoxon_p, found.sign_p, found.effect_size, found.samples,
                trend(found), metric.paper, *published, cell.variant,
            )  # fmt: skip


def _markdown_cells(cell: CellResult, metric: Metric, found: Comparison) -> list[str]:
    published = cell.published.get(metric.key)
    change, low, high = (percent(share) for share in (found.relative, *found.relative_interval))
    sides = [
        f"{number(value)} [{number(first)}, {number(last)}]"
        for value, (first, last) in (
            (found.base, found.base_interval),
            (found.rl, found.rl_interval),
        )
    ]
    return [
        cell.pair.replace("|", "\\|"),
        cell.dataset.replace("|", "\\|"),
        cell.choice,
        metric.short,
        *sides,
        f"{change} % [{low}, {high}]",
        trend(found),
        metric.paper or "",
        "" if published is None else f"{number(published[0])} → {number(published[1])}",
    ]


def _edge_lines(cell: CellResult) -> Iterable[tuple]:
    base_WR, rl_WR = cell.base_WR, cell.rl_WR
    writers, readers = writer_names(cell.num_layers), reader_names(cell.num_layers)
    for w, r in np.argwhere(edge_mask(cell.num_layers)):
        interval = (None, None)
        if cell.edge_low_WR is not None:
            interval = (float(cell.edge_low_WR[w, r]), float(cell.edge_high_WR[w, r]))
        base, rl = float(base_WR[w, r]), float(rl_WR[w, r])
        yield (writers[w], readers[r], base, rl, rl - base, *interval)


def _csv(columns: tuple[str, ...], lines: Iterable[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for line in lines:
        writer.writerow(_field(value) for value in line)
    return text.getvalue()


def _field(value):
    if not isinstance(value, float):
        return value
    # A numpy float would be written as np.float64(0.5).
    return float(value) if math.isfinite(value) else ""


def _one_head(name: str) -> str:
    """`a3<q>` -> `a3.h0<q>`, `a3` -> `a3.h0`; other nodes keep their names."""
    if not name.startswith("a"):
        return name
    node, bracket, kind = name.partition("<")
    return f"{node}.h0{bracket}{kind}"


def _connected(kept_WR: np.ndarray) -> np.ndarray:
    """Edges on a path from input to logits, as EAP-IG's pruning leaves them."""
    while True:
        reads_W = np.concatenate([[True], _node_columns(kept_WR).any(axis=1)])
        used_W = reads_W & kept_WR.any(axis=1)
        reader_used_R = np.concatenate([_per_reader(used_W[1:]), [True]])
        remaining_WR = kept_WR & used_W[:, None] & reader_used_R[None, :]
        if (remaining_WR == kept_WR).all():
            return kept_WR
        kept_WR = remaining_WR


def _node_columns(kept_WR: np.ndarray) -> np.ndarray:
    """[2L, *]: for each node a0, m0, ... whether its reads have a kept edge."""
    reads_R = kept_WR.any(axis=0)[:-1].reshape(-1, 4)
    return np.stack([reads_R[:, :3].any(axis=1), reads_R[:, 3]], axis=1).reshape(-1, 1)


def _per_reader(nodes_2L: np.ndarray) -> np.ndarray:
    """[4L] from [2L]: q, k and v of an attention node share its value."""
    return np.repeat(nodes_2L.reshape(-1, 2), [3, 1], axis=1).ravel()
