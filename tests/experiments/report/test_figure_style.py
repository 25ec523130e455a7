"""Every figure takes any name, names its axes at any size, and has symmetric scales."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from toy_study import toy_cell

from experiments.report import figures, sweep_figures
from experiments.report.figure_style import png, score_norm, score_ticks, svg


def test_names_with_dollar_signs_and_markup_are_drawn_as_they_are():
    cell = toy_cell(num_layers=1, samples=2, pair="$\\frac$", dataset="<b>$x$ & é")
    for figure in (
        *figures.cell_figures(cell).values(),
        *sweep_figures.sweep_figures([cell] * 2).values(),
    ):
        assert png(figure)
        assert ElementTree.fromstring(svg(figure)) is not None


def test_a_model_of_32_layers_names_every_second_layer_where_its_row_is():
    axes = figures.heat_maps(toy_cell(num_layers=32, samples=2)).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:3] == ["input", "a2", "a4"]
    assert axes.get_xticklabels()[-1].get_text() == "logits"
    places = axes.get_yticks()
    assert [names[i] for i in range(1, len(names))] == [
        f"a{int(place - 1) // 2}" for place in places[1:]
    ]


def test_a_score_scale_is_symmetric_and_its_ticks_are_powers_of_ten_inside_it():
    norm = score_norm(np.array([0.0, -0.05]), np.array([0.02]))
    assert (norm.vmin, norm.vmax) == (-0.05, 0.05)
    assert norm([-0.05, 0.0, 0.05]).tolist() == pytest.approx([0, 0.5, 1])
    places, labels = score_ticks(norm)
    assert places == pytest.approx([-0.01, -0.001, -0.0001, 0, 0.0001, 0.001, 0.01])
    assert labels[-1] == "$10^{-2}$"
    assert score_norm(np.zeros(3)).vmax == 1
