"""The figure of circuits shows the curves of faithfulness.json, and the page their areas."""

import dataclasses

import numpy as np
import pytest
from html_page import Page, rows
from toy_study import made_faithfulness, toy_cell, toy_study

from experiments.report import figures, page
from experiments.report.circuit_figure import circuits
from experiments.report.formats import number


@pytest.fixture(scope="module")
def cell():
    plain = toy_cell(num_layers=4, samples=3)
    return dataclasses.replace(plain, faithfulness=made_faithfulness(plain))


def test_every_curve_is_drawn_at_its_shares_in_percent(cell):
    panels = circuits(cell).axes
    assert len(panels) == 2
    for axes, (side, found) in zip(panels, cell.faithfulness.items(), strict=True):
        assert axes.get_title("left").startswith(side)
        curves = [*found["curves"]["random"], found["curve"]]
        curves += [found["curves"]["signed"], found["curves"]["transfer"]]
        for line, curve in zip(axes.lines, curves, strict=False):
            np.testing.assert_allclose(line.get_xdata(), [100 * one["share"] for one in curve])
            np.testing.assert_allclose(line.get_ydata(), [one["recovered"] for one in curve])
        labels = [line.get_label() for line in axes.lines[2:6]]
        assert [label for label in labels if not label.startswith("_")] == [
            "by |score|", "by signed score", "by the other model's |score|",
        ]  # fmt: skip


def test_a_cell_without_circuits_has_no_such_figure_nor_section(cell):
    without = dataclasses.replace(cell, faithfulness={})
    assert "circuits" in figures.cell_figures(cell)
    assert "circuits" not in figures.cell_figures(without)
    # One figure given, so that the page draws no other.
    drawn = {cell.name: {"circuits": circuits(cell)}}
    shown = rows(Page(page.render(toy_study([cell]), drawn)), "Circuits")
    expected = [
        pair
        for side, by_zero in cell.faithfulness.items()
        for pair in ((side, by_zero), (f"{side}, by the mean", by_zero["mean"]))
    ]
    for line, (name, found) in zip(shown[1:], expected, strict=True):
        assert line[:3] == [name, number(found["full_loss"]), number(found["empty_loss"])]
        assert line[3].split(" [")[0] == number(found["cpr"])
        assert line[5] == number(found["signed"]["cpr"])
        assert line[7] == ", ".join(map(number, found["random_cpr"]))
        assert line[8] == number(found["transfer_cpr"])
    assert 'id="circuits"' not in page.render(toy_study([without]), drawn)
