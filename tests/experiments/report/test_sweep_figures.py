"""Figures over cells show the comparisons they are made from."""

import dataclasses

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from toy_study import comparison, toy_cell

from experiments.report import sweep_figures
from experiments.report.figure_style import BASE_COLOUR, RL_COLOUR
from experiments.report.results import PairInfo
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
    assert axes.get_title("left").splitlines() == [
        "Inter-sample diversity",
        "other training: clearly rises in 2 of 4 cells, falls in 1, unclear in 1",
    ]


def test_a_whisker_is_the_interval_by_which_its_bar_is_solid():
    """That of the difference; that of the relative change may disagree about zero."""
    cells = sweep()[:1]
    found = cells[0].comparisons[DIVERSITY.key]
    found = dataclasses.replace(found, relative_interval=(-0.5, 0.9))
    cells[0] = dataclasses.replace(cells[0], comparisons={DIVERSITY.key: found})
    (whisker, _) = sweep_figures.change_figure(cells, DIVERSITY).axes[0].lines
    ends = np.array(found.difference_interval) / abs(found.base)
    np.testing.assert_allclose(whisker.get_xdata(), ends)


def test_figure_3_sums_up_kinds_of_training_apart():
    cells = [dataclasses.replace(cell, pair=f"p{i}") for i, cell in enumerate(sweep())]
    pairs = [
        PairInfo(key=f"p{i}", base="", rl="", method=method)
        for i, method in enumerate(("GRPO", "SFT", "PPO", "DPO"))
    ]
    axes = sweep_figures.change_figure(cells, DIVERSITY, pairs).axes[0]
    assert axes.get_title("left").splitlines()[1:] == [
        "online RL: clearly rises in 1 of 2 cells, unclear in 1",
        "training that is not online: clearly rises in 1 of 2 cells, falls in 1",
    ]
    names = [label.get_text().split()[0] for label in axes.get_yticklabels()]
    assert names == ["p0", "p2", "p1", "p3"]


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
    assert "clearly rises in 1 of 3 cells, falls in 1, unclear in 1" in axes.get_title("left")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([0.1], "clearly rises in 1 of 1 cell"),
        ([-0.1], "clearly falls in 1 of 1 cell"),
        ([0.0], "unclear in 1 of 1 cell"),
        ([float("nan")], "not defined in any cell"),
        ([0.1, -0.3, 0.01], "clearly rises in 1 of 3 cells, falls in 1, unclear in 1"),
    ],
)
def test_a_summary_counts_clear_changes_and_leaves_undefined_ones_out(changes, text):
    made = toy_cell(num_layers=1, samples=3)
    cells = []
    for change in changes:
        found = comparison(DIVERSITY.key, 2.0, 2.0 + 2.0 * np.nan_to_num(change), 0.06)
        found = dataclasses.replace(found, relative=change)
        cells.append(dataclasses.replace(made, comparisons={DIVERSITY.key: found}))
    assert sweep_figures.change_summary(cells, DIVERSITY) == text


def test_every_figure_has_its_title_and_the_papers_figures_are_there():
    figures = sweep_figures.sweep_figures(sweep())
    assert list(figures) == list(sweep_figures.SWEEP_TITLES)
    for metric in METRICS:
        if metric.figure:
            (axes,) = figures[metric.figure.name].axes
            assert axes.get_title("left").splitlines()[0] == metric.label
