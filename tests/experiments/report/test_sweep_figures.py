"""Figures over cells show the comparisons they are made from."""

import dataclasses

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from toy_study import comparison, toy_cell

from experiments.report import sweep_figures
from experiments.report.figure_style import BASE_COLOUR, RL_COLOUR
from experiments.statistics.metrics import METRIC_BY_KEY, METRICS

DIVERSITY = METRIC_BY_KEY["sample_diversity"]


def sweep():
    changes = (0.10, -0.05, 0.01, 0.40)
    cells = []
    for alpha, change in zip((0.5, 0.03, 0.1, 0.3), changes, strict=True):
        made = toy_cell(num_layers=1, samples=3, alpha=alpha)
        found = comparison(DIVERSITY.key, 2.0, 2.0 * (1 + change), 0.06)
        cells.append(
            dataclasses.replace(made, comparisons=made.comparisons | {DIVERSITY.key: found})
        )
    return cells


def test_figure_3_bars_are_relative_changes_with_their_intervals_and_a_sum_in_the_title():
    axes = sweep_figures.change_figure(sweep(), DIVERSITY).axes[0]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], (0.10, -0.05, 0.01, 0.40))
    assert [bar.get_hatch() for bar in axes.patches] == [None, None, "////", None]
    colours = [bar.get_facecolor()[:3] for bar in axes.patches]
    expected = [RL_COLOUR, BASE_COLOUR, RL_COLOUR, RL_COLOUR]
    assert colours == [to_rgba(colour)[:3] for colour in expected]
    intervals = [tuple(line.get_xdata()) for line in axes.lines[:4]]
    np.testing.assert_allclose(intervals[0], (0.07, 0.13))
    np.testing.assert_allclose(intervals[2], (-0.02, 0.04))
    title = axes.get_title("left")
    assert title == "Inter-sample diversity rises in 75 % of 4 cells, by +11.5 % on average"


def test_alpha_figure_orders_alphas_and_shows_both_sides_of_every_metric():
    cells = sweep()
    panels = sweep_figures.alpha_figure(cells).axes
    ordered = sorted(cells, key=lambda cell: cell.alpha)
    assert [label.get_text() for label in panels[0].get_xticklabels()] == [
        "0.03", "0.1", "0.3", "0.5"
    ]  # fmt: skip
    for axes, key in zip(panels, cells[0].comparisons, strict=True):
        for line, side in zip(axes.lines, ("base", "rl"), strict=True):
            wanted = [getattr(cell.comparisons[key], side) for cell in ordered]
            np.testing.assert_allclose(line.get_ydata(), wanted)
            bars = axes.collections[("base", "rl").index(side)].get_segments()
            ends = [getattr(cell.comparisons[key], f"{side}_interval") for cell in ordered]
            np.testing.assert_allclose([bar[:, 1] for bar in bars], ends)


def test_undefined_changes_are_named_in_the_figure_and_left_out_of_the_sum():
    cells = sweep()
    nan = float("nan")
    found = dataclasses.replace(cells[0].comparisons[DIVERSITY.key], relative=nan)
    cells[0] = dataclasses.replace(
        cells[0], comparisons=cells[0].comparisons | {DIVERSITY.key: found}
    )
    axes = sweep_figures.change_figure(cells, DIVERSITY).axes[0]
    assert [text.get_text().strip() for text in axes.texts] == ["not defined"]
    assert "rises in 67 % of 3 cells" in axes.get_title("left")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([0.1], "rises in the one cell, by 10.0 %"),
        ([-0.05], "falls in the one cell, by 5.0 %"),
        ([0.0], "stays in the one cell, by 0.0 %"),
        ([float("nan")], "not defined in any cell"),
        ([0.1, -0.3], "rises in 50 % of 2 cells, by -10.0 % on average"),
    ],
)
def test_a_summary_counts_rises_and_averages_all_defined_changes(changes, text):
    made = toy_cell(num_layers=1, samples=3)
    cells = [
        dataclasses.replace(
            made, comparisons={DIVERSITY.key: dataclasses.replace(found, relative=change)}
        )
        for change in changes
        for found in [made.comparisons[DIVERSITY.key]]
    ]
    assert sweep_figures.change_summary(cells, DIVERSITY) == text


def test_every_figure_has_its_title_and_the_papers_figures_are_there():
    figures = sweep_figures.sweep_figures(sweep())
    assert list(figures) == list(sweep_figures.SWEEP_TITLES)
    for metric in METRICS:
        if metric.figure:
            (axes,) = figures[metric.figure.name].axes
            assert axes.get_title("left").startswith(f"{metric.label} rises in ")
