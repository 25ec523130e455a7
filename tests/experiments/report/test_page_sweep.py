"""The report page of many comparisons and of large models: sums, limits, size and time."""

import numpy as np
from html_page import Page, edges_of, rows
from toy_study import toy_cell, toy_study

from experiments.report import page
from experiments.report.results import Accuracy
from experiments.report.sweep_figures import SWEEP_TITLES
from experiments.statistics.metrics import METRICS


def test_several_comparisons_are_summed_up_and_compared():
    cells = [toy_cell(num_layers=1, samples=4, alpha=alpha, seed=i) for i, alpha in
             enumerate((0.1, 0.3, 0.5))]  # fmt: skip
    made = Page(page.render(toy_study(cells)))
    assert made.problems == []
    lines = rows(made, "Over all comparisons")
    relative = [cell.comparisons["activation_intensity"].relative for cell in cells]
    share = 100 * sum(change > 0 for change in relative) / 3
    assert lines[1][:3] == [
        "Activation intensity", f"{share:.0f} % of 3", f"{100 * np.mean(relative):+.1f} %"
    ]  # fmt: skip
    assert len(made.all("img")) == len(SWEEP_TITLES) + 3 * 5
    assert len(rows(made, "All metrics and tests")) == 1 + 3 * len(METRICS)
    assert [cell["name"] for cell in edges_of(made)["cells"]] == [cell.name for cell in cells]


def test_of_a_large_sweep_the_first_comparisons_are_drawn_and_the_page_says_so(monkeypatch):
    monkeypatch.setattr(page, "DRAWN_CELLS", 1)
    cells = [toy_cell(num_layers=1, samples=2, alpha=alpha) for alpha in (0.1, 0.3)]
    made = Page(page.render(toy_study(cells)))
    assert len(made.all("img")) == len(SWEEP_TITLES) + 5
    assert "examples of the first 1 of 2 comparisons" in made.text("section", id="figures")
    assert len(rows(made, "Table 1")) == 3
    assert len(edges_of(made)["cells"]) == 2


def test_published_accuracies_stand_beside_measured_ones_where_known():
    cell = toy_cell(num_layers=1, samples=2, pair="mistral", dataset="math")
    found = [
        Accuracy(pair="mistral", dataset=dataset, side=side, right=3, total=8, interval=(0.2, 0.6))
        for dataset in ("math", "gsm8k")
        for side in ("base", "rl")
    ]
    made = Page(page.render(toy_study([cell], accuracies=found)))
    assert [line[-1] for line in rows(made, "Right answers")[1:]] == ["29.1", "32.6", "–", "–"]
