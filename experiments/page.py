"""The report: one HTML file that opens offline, with figures, tables and an explorable edge matrix.

The template, its style and its script lie in templates/ and are put into the page, so nothing is
fetched. Every text from outside is escaped.
"""

import base64
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from eap_jax.graph import num_edges, reader_names, writer_names
from experiments.across_cells import holm
from experiments.edge_data import edge_data
from experiments.examples import examples
from experiments.exports import measured, number, percent
from experiments.figure_style import png
from experiments.figures import CELL_FIGURES
from experiments.results import METRICS, TABLE_METRICS, CellResult, StudyResult, trend
from experiments.store import write_text
from experiments.sweep_figures import sweep_figures
from experiments.verdict import agreement, verdicts

_TEMPLATES = Path(__file__).parent / "templates"
_SWEEP_TITLES = {
    "figure_3a_diversity": "Change of diversity in every comparison (figure 3a of the paper)",
    "figure_3b_output_entropy": "Change of output-edge entropy (figure 3b of the paper)",
    "metrics_against_alpha": "Metrics against alpha, the counted share of the answer",
}


def write_page(study: StudyResult, directory: Path) -> Path:
    """Write report.html; returns its path."""
    path = directory / "report.html"
    write_text(path, render(study))
    return path


def render(study: StudyResult) -> str:
    """The whole page of a study."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    several = len(study.cells) > 1
    figures = sweep_figures(study.cells) if several else {}
    return environment.get_template("report.html.j2").render(
        study=study,
        verdicts=verdicts(study),
        table=[_row(cell) for cell in study.cells],
        statistics=_statistics(study),
        table_metrics=TABLE_METRICS,
        metrics=METRICS,
        sweep=[
            {"title": _SWEEP_TITLES[name], "image": _image(figure)}
            for name, figure in figures.items()
        ],
        cells=[_cell(cell) for cell in study.cells],
        edges=_script_json({"cells": edge_data(study.cells), "names": _names(study)}),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8")),
    )


def _row(cell: CellResult) -> dict[str, Any]:
    """One line of table 1."""
    found = []
    for metric in TABLE_METRICS:
        comparison = cell.comparisons.get(metric.key)
        found.append(
            None if comparison is None else {
                "metric": metric, "found": comparison, "trend": trend(comparison),
                "agreement": agreement(comparison, metric.paper),
                "published": cell.published.get(metric.key),
            }
        )  # fmt: skip
    return {"cell": cell, "metrics": found}


def _statistics(study: StudyResult) -> list[dict[str, Any]]:
    """One line a cell and metric, p-values corrected over all lines by Holm's method."""
    lines = [
        {"cell": cell, "metric": metric, "found": found, "trend": trend(found)}
        for cell in study.cells
        for metric, found in measured(cell)
    ]
    for line, corrected in zip(
        lines, holm([line["found"].wilcoxon_p for line in lines]), strict=True
    ):
        line["holm"] = float(corrected)
    return lines


def _cell(cell: CellResult) -> dict[str, Any]:
    return {
        "cell": cell,
        "edges": num_edges(cell.num_layers),
        "figures": [
            {"title": figure.title, "text": figure.text, "image": _image(figure.draw(cell))}
            for figure in CELL_FIGURES
        ],
        "examples": examples(cell),
    }


def _image(figure) -> str:
    return "data:image/png;base64," + base64.b64encode(png(figure, dpi=110)).decode("ascii")


def _names(study: StudyResult) -> dict[int, dict[str, list[str]]]:
    """Names of writers and readers for each number of layers that occurs."""
    return {
        layers: {"writers": writer_names(layers), "readers": reader_names(layers)}
        for layers in sorted({cell.num_layers for cell in study.cells})
    }


def _script_json(data: Any) -> Markup:
    """JSON that may stand inside a script element whatever its strings hold."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
