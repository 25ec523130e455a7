"""The numbers of a study as files for other programs: tables, edge lists and EAP-IG graphs.

table.md, table.csv     every cell's metrics with intervals, verdicts and published values
edges.csv               every edge of a cell: base, rl, difference and its 95 % interval, and whether
                        its score can measure what cutting it does
graph_{base,rl}.json    what EAP-IG's `Graph.from_json` reads
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eap_jax.attribution import Estimator, not_measurable
from eap_jax.graph import edge_mask, edge_name, reader_names, writer_names
from experiments.report.alpha_words import turns_at
from experiments.report.eap_ig import eap_ig_graph, faithful
from experiments.report.formats import number, percent
from experiments.report.results import CellResult, StudyResult
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
    "identical_texts", "model_part", "text_part", "interaction",
    "turns_with_alpha",
)  # fmt: skip
EDGE_COLUMNS = (
    "writer", "reader", "base", "rl", "difference", "difference_low", "difference_high",
    "measurable",
)  # fmt: skip
MARKDOWN_COLUMNS = (
    "Pair", "Dataset", "alpha", "Metric", "Base", "RL", "Change", "Here", "Paper", "Published",
)  # fmt: skip


def table_csv(study: StudyResult) -> str:
    """One line a cell and metric, numbers in full precision, empty where not defined."""
    return _csv(TABLE_COLUMNS, (line for line in _table_lines(study)))


def table_markdown(study: StudyResult) -> str:
    """The paper's table 1 with intervals, one line a cell and metric, for a README or an issue."""
    lines = ["| " + " | ".join(MARKDOWN_COLUMNS) + " |", "|" + " --- |" * len(MARKDOWN_COLUMNS)]
    for cell in study.cells:
        for metric, comparison in cell.measured:
            turns = turns_at(cell, study.cells, metric)
            lines.append("| " + " | ".join(_markdown_cells(cell, metric, comparison, turns)) + " |")
    note = (
        f"Brackets hold {IN_WORDS}. "
        "*Here* is `rises` or `falls` where the interval of the difference excludes zero and the "
        "signed-rank test agrees (p < 0.05), else `unclear`; a trend turns with alpha where it "
        "is clear and the clear opposite at another alpha; *Paper* is the direction after "
        "online RL. Metrics follow arXiv 2509.21044."
    )
    return "\n".join([*lines, "", note]) + "\n"


def edges_csv(cell: CellResult) -> str:
    """Every existing edge of a cell, mean score before and after, in the matrix's order."""
    return _csv(EDGE_COLUMNS, _edge_lines(cell))


def write_tables(study: StudyResult, directory: Path) -> tuple[Path, Path]:
    """Write table.md and table.csv; returns their paths."""
    markdown, table = directory / "table.md", directory / "table.csv"
    write_text(markdown, table_markdown(study))
    write_text(table, table_csv(study))
    return markdown, table


def write_edges(
    cell: CellResult,
    directory: Path,
    models: Mapping[str, Mapping[str, Any]],
    estimator: Estimator = "eap",
) -> tuple[Path, ...]:
    """Write a cell's edges.csv, graph_base.json and graph_rl.json; returns their paths.

    Args:
      cell: the cell.
      directory: where they go.
      models: by side the fields of its `ModelConfig`.
      estimator: what the scores are.
    """
    edges = directory / "edges.csv"
    write_text(edges, edges_csv(cell))
    written = [edges]
    for side, scores_WR in (("base", cell.base_WR), ("rl", cell.rl_WR)):
        path = directory / f"graph_{side}.json"
        graph = eap_ig_graph(
            scores_WR,
            models[side]["d_model"],
            models[side]["num_heads"],
            about={
                "estimator": estimator,
                "not_measurable": [
                    edge_name(*place, cell.num_layers)
                    for place in not_measurable(estimator, cell.num_layers)
                ],
                "faithfulness": faithful(cell, side),
            },
        )
        write_text(path, json.dumps(graph) + "\n")
        written.append(path)
    return tuple(written)


def _table_lines(study: StudyResult) -> Iterable[tuple]:
    for cell in study.cells:
        for metric, found in cell.measured:
            published = cell.published.get(metric.key, (None, None))
            split = cell.model_text.get(metric.key)
            parts = ("model", "text", "interaction")
            yield (
                cell.pair, cell.dataset, cell.alpha, metric.key,
                found.base, *found.base_interval, found.rl, *found.rl_interval,
                found.difference, *found.difference_interval,
                found.relative, *found.relative_interval,
                found.wilcoxon_p, found.sign_p, found.effect_size, found.samples,
                trend(found), metric.paper, *published, cell.variant, cell.identical_texts,
                *(None if split is None else split.parts[part].value for part in parts),
                "yes" if turns_at(cell, study.cells, metric) else "no",
            )  # fmt: skip


def _markdown_cells(cell: CellResult, metric: Metric, found: Comparison, turns: bool) -> list[str]:
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
        trend(found) + (", turns with alpha" if turns else ""),
        metric.paper or "",
        "" if published is None else f"{number(published[0])} → {number(published[1])}",
    ]


def _edge_lines(cell: CellResult) -> Iterable[tuple]:
    base_WR, rl_WR = cell.base_WR, cell.rl_WR
    writers, readers = writer_names(cell.num_layers), reader_names(cell.num_layers)
    hidden = set(cell.not_measurable)
    for w, r in np.argwhere(edge_mask(cell.num_layers)):
        interval = (None, None)
        if cell.edge_low_WR is not None:
            interval = (float(cell.edge_low_WR[w, r]), float(cell.edge_high_WR[w, r]))
        base, rl = float(base_WR[w, r]), float(rl_WR[w, r])
        yield (
            writers[w],
            readers[r],
            base,
            rl,
            rl - base,
            *interval,
            "no" if (w, r) in hidden else "yes",
        )


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
