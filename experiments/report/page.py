"""The report: one HTML file that opens offline, with figures, tables and an explorable edge matrix.

The template, its style and its script lie in templates/ and are put into the page, whose content
policy forbids it to fetch anything. Every text from outside is escaped.
"""

import base64
import dataclasses
import json
import math
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from eap_jax.graph import reader_names, writer_names
from experiments.report import published
from experiments.report.alpha_words import turns_at
from experiments.report.chain_page import ChainPage
from experiments.report.control_words import control_lines, control_sentences
from experiments.report.edge_data import edge_data
from experiments.report.examples import examples
from experiments.report.figure_style import png, svg
from experiments.report.figures import CELL_FIGURES, FIGURE_KINDS, cell_figures, figure_file
from experiments.report.formats import number, percent
from experiments.report.model_text_words import PART_LABELS, split_lines, texts_sentences
from experiments.report.results import Accuracy, CellResult, StudyResult, comparisons_of
from experiments.report.sweep_figures import SWEEP_TITLES, sweep_figures
from experiments.report.verdict import status, verdicts
from experiments.report.view_words import VIEW_LABELS, median_text
from experiments.statistics.across_cells import holm, rise_summary
from experiments.statistics.bootstrap import IN_WORDS, Interval
from experiments.statistics.metrics import METRIC_BY_KEY, METRICS, TABLE_METRICS
from experiments.statistics.trend import trend
from experiments.statistics.views import VIEWS
from experiments.store import write_text

# Figures and examples of more comparisons would make the page too large to open with ease.
DRAWN_CELLS = 12
_LARGEST_SVG = 400_000
Drawn = Mapping[str, Mapping[str, Figure]]
_TEMPLATES = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """A training whose snapshots are the study's pairs: what changes first, and its figure."""

    name: str
    first: str
    later: str
    figure: Figure


def write_page(
    study: StudyResult,
    directory: Path,
    drawn: Drawn | None = None,
    folders: Mapping[str, str] | None = None,
    training: Training | None = None,
    chain: ChainPage | None = None,
) -> Path:
    """Write report.html; returns its path. Arguments as in `render`."""
    path = directory / "report.html"
    write_text(path, render(study, drawn, folders, training, chain))
    return path


def render(
    study: StudyResult,
    drawn: Drawn | None = None,
    folders: Mapping[str, str] | None = None,
    training: Training | None = None,
    chain: ChainPage | None = None,
) -> str:
    """The whole page of a study.

    Args:
      study: what it shows.
      drawn: `cell_figures` of cells by the cell's name, where the caller has drawn them already.
      folders: folder of each cell by the cell's name, from the page's own; None: the page links to
        no file.
      training: what its pairs are snapshots of, if they are.
      chain: whose comparisons its pairs are, if they are.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "interval": _interval}
    several = len(study.cells) > 1
    figures = sweep_figures(study.cells, study.pairs) if several else {}
    folders = folders or {}
    return environment.get_template("report.html.j2").render(
        study=study,
        several=several,
        training=training,
        training_image=None if training is None else data_uri(training.figure),
        chain=chain,
        chain_image=None if chain is None else data_uri(chain.figure),
        verdicts=verdicts(study),
        table=[_row(cell, study.cells) for cell in study.cells],
        rises=_rises(study) if several else [],
        statistics=_statistics(study),
        intervals_in_words=IN_WORDS,
        table_metrics=TABLE_METRICS,
        metric_labels={key: metric.label for key, metric in METRIC_BY_KEY.items()},
        accuracies=[_accuracy(found) for found in study.accuracies],
        sweep=[
            {
                "title": SWEEP_TITLES[name],
                "text": "",
                "image": data_uri(figure),
                "file": f"figures/{name}" if folders else None,
            }
            for name, figure in figures.items()
        ],
        cells=[
            _cell(cell, (drawn or {}).get(cell.name), folders.get(cell.name))
            for cell in study.cells[:DRAWN_CELLS]
        ],
        control={
            "sentences": control_sentences(study.against_control),
            "lines": control_lines(study.against_control),
            "views": [VIEW_LABELS[view] for view in VIEWS],
        },
        figure_kinds=FIGURE_KINDS,
        texts={pair.key: texts_sentences(_of(study, pair.key)) for pair in study.pairs},
        splits={pair.key: split_lines(_of(study, pair.key)) for pair in study.pairs},
        part_labels=PART_LABELS,
        files=_files(folders),
        circuits=[cell for cell in study.cells if cell.faithfulness],
        edges=_script_json({"cells": edge_data(study.cells), "names": _names(study)}),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=(_TEMPLATES / "report.js").read_text(encoding="utf-8"),
    )


def _of(study: StudyResult, pair: str) -> list[CellResult]:
    return [cell for cell in study.cells if cell.pair == pair]


def data_uri(figure: Figure) -> str:
    """A figure as an image that the page itself holds: SVG, sharp at any size, or PNG if big."""
    drawn = svg(figure)
    if len(drawn) <= _LARGEST_SVG:
        return "data:image/svg+xml," + urllib.parse.quote(drawn, safe=" =:/,;()+*!$@?~'")
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode("ascii")


def _row(cell: CellResult, cells: Sequence[CellResult]) -> dict[str, Any]:
    """One line of table 1, of all the study's cells."""
    found = []
    for metric in TABLE_METRICS:
        comparison = cell.comparisons.get(metric.key)
        found.append(
            None if comparison is None else {
                "found": comparison,
                "agreement": status(cell, metric),
                "turns": turns_at(cell, cells, metric),
                "median": median_text(cell, metric.key),
                "published": cell.published.get(metric.key),
            }
        )  # fmt: skip
    return {"cell": cell, "metrics": found}


def _rises(study: StudyResult) -> list[dict[str, Any]]:
    """One line a metric: in how many comparisons it rises, and by how much on average."""
    lines = []
    for metric in METRICS:
        found = comparisons_of(study.cells, metric)
        if found:
            trends = [trend(comparison) for comparison in found]
            lines.append(
                {
                    "metric": metric,
                    "summary": rise_summary(found),
                    "rises": trends.count("rises"),
                    "falls": trends.count("falls"),
                }
            )
    return lines


def _statistics(study: StudyResult) -> list[dict[str, Any]]:
    """One line a cell and metric, p-values corrected over all lines by Holm's method."""
    lines = [
        {
            "cell": cell,
            "metric": metric,
            "found": found,
            "trend": trend(found),
            "one_range": cell.one_range.get(metric.key),
        }
        for cell in study.cells
        for metric, found in cell.measured
    ]
    corrected = holm([line["found"].wilcoxon_p for line in lines])
    return [line | {"holm": float(p)} for line, p in zip(lines, corrected, strict=True)]


def _accuracy(found: Accuracy) -> dict[str, Any]:
    """A line of table 4, beside the paper's share where it is known."""
    sides = published.ACCURACIES.get((found.pair, found.dataset))
    in_paper = None if sides is None else sides[0 if found.side == "base" else 1]
    return {"found": found, "share": found.right / max(found.total, 1), "published": in_paper}


def _files(folders: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names and addresses of the files of numbers that the page links to."""
    if not folders:
        return []
    tables = [(name, name) for name in ("table.md", "table.csv")]
    return tables + [
        (f"{folder}/{name}", f"{folder}/{name}")
        for folder in folders.values()
        for name in ("edges.csv", "metrics.json")
    ]


def _cell(
    cell: CellResult, drawn: Mapping[str, Figure] | None, folder: str | None
) -> dict[str, Any]:
    drawn = drawn or cell_figures(cell)
    return {
        "cell": cell,
        "figures": [
            {
                "title": figure.title,
                "text": figure.text,
                "image": data_uri(drawn[figure.name]),
                "file": None if folder is None else figure_file(folder, figure.name),
            }
            for figure in CELL_FIGURES
            if figure.name in drawn
        ],
        "examples": examples(cell),
    }


def _interval(ends: Interval, scale: str = "number") -> str:
    """`[1.1, 1.3]`, or nothing where there is no interval; `percent` for shares."""
    if not all(map(math.isfinite, ends)):
        return ""
    written = percent if scale == "percent" else number
    return f"[{written(ends[0])}, {written(ends[1])}]"


def _names(study: StudyResult) -> dict[int, dict[str, list[str]]]:
    """Names of writers and readers for each number of layers that occurs."""
    return {
        layers: {"writers": writer_names(layers), "readers": reader_names(layers)}
        for layers in sorted({cell.num_layers for cell in study.cells})
    }


def _script_json(data: Any) -> str:
    """JSON that may stand inside a script element whatever its strings hold."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
