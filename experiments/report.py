"""A first, plain report: one self-contained page, and the same table as Markdown and CSV."""

import csv
import io
from pathlib import Path
from typing import Any

import jinja2

from experiments import store

_TITLES = {
    "activation_intensity": "Activation intensity",
    "information_complexity": "Information complexity (nats)",
    "distribution_kurtosis": "Distribution kurtosis",
    "sample_diversity": "Inter-sample diversity",
    "output_edge_entropy": "Output-edge entropy (nats)",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ pair }}: edges before and after post-training</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead { border-bottom: 1px solid; }
.wide { overflow-x: auto; }
</style></head><body>
<h1>{{ pair }}: edges before and after post-training</h1>
{% for cell in cells %}
<h2>{{ cell.dataset }}, alpha {{ cell.rule.alpha }}</h2>
<p>{{ cell.samples }} questions, the first {{ cell.cut }} answer tokens of each.
Column-sum health: base {{ number(cell.sides.base.health) }}, rl {{ number(cell.sides.rl.health) }}
(0 is perfect).</p>
<div class="wide"><table><thead><tr><th>metric</th><th>base</th><th>rl</th><th>difference</th>
<th>relative</th></tr></thead><tbody>
{% for name, m in cell.metrics.items() %}
<tr><td>{{ titles[name] }}</td><td>{{ number(m.base) }}</td><td>{{ number(m.rl) }}</td>
<td>{{ number(m.difference) }}</td><td>{{ percent(m.relative) }}</td></tr>
{% endfor %}</tbody></table></div>
<p>Selection: {% for step in cell.selection %}{{ step.name }} {{ step.rows }}
{%- if not loop.last %} &rarr; {% endif %}{% endfor %}.</p>
{% endfor %}
<p>Settings, versions and checkpoint hashes: manifest.json beside this page.</p>
</body></html>
"""


def write_report(directory: Path, cells: list[dict[str, Any]]) -> Path:
    """Write report.html, table.md and table.csv of a pair.

    Args:
      directory: the pair's directory.
      cells: contents of the cells' metrics.json.

    Returns:
      path of report.html.
    """
    rows = [
        (c["dataset"], c["rule"]["alpha"], c["samples"], _TITLES[name], m["base"], m["rl"],
         m["difference"], m["relative"])
        for c in cells
        for name, m in c["metrics"].items()
    ]  # fmt: skip
    head = ("dataset", "alpha", "samples", "metric", "base", "rl", "difference", "relative")
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([head, *rows])
    store.write_text(directory / "table.csv", table.getvalue())
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for dataset, alpha, samples, title, *numbers, relative in rows:
        cells_text = [dataset, f"{alpha:g}", str(samples), title, *map(_number, numbers)]
        lines.append("| " + " | ".join([*cells_text, _percent(relative)]) + " |")
    store.write_text(directory / "table.md", "\n".join(lines) + "\n")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_PAGE)
    path = directory / "report.html"
    text = page.render(
        pair=directory.name, cells=cells, titles=_TITLES, number=_number, percent=_percent
    )
    store.write_text(path, text)
    return path


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:+.1%}"
