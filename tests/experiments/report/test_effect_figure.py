"""The picture holds one point a sample and edge, and is left out where nothing was cut."""

import dataclasses

import numpy as np
from toy_study import toy_cell

from eap_jax.graph import num_edges
from experiments.report.effect_figure import scores_and_effects
from experiments.report.figure_style import png
from experiments.report.figures import cell_figures
from experiments.store import Effects


def test_every_cut_edge_is_a_point_on_each_side_at_its_score_and_effect():
    cell = toy_cell()
    rows = np.array([1, 4])
    effects = {
        side: Effects(effects_mWR=50 * scores_nWR[rows], rows_m=rows)
        for side, scores_nWR in (("base", cell.base_nWR), ("rl", cell.rl_nWR))
    }
    effects["base"].effects_mWR[0, 0, 3] = np.nan
    figure = scores_and_effects(dataclasses.replace(cell, effects=effects))
    for panel, less in zip(figure.axes, (1, 0), strict=True):
        points = [line for line in panel.get_lines() if line.get_marker() not in ("None", None)]
        scores, found = (np.concatenate([line.get_data()[i] for line in points]) for i in (0, 1))
        assert len(scores) == 2 * num_edges(4) - less
        np.testing.assert_allclose(found, 50 * scores, rtol=1e-5)
        assert panel.get_xscale() == panel.get_yscale() == "asinh"
    assert len(png(figure)) > 10_000


def test_a_cell_without_effects_has_no_such_picture():
    assert "effects" not in cell_figures(toy_cell())
