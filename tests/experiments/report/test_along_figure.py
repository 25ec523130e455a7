"""The figure of a training shows each measure at its step, clear changes filled."""

import dataclasses

import pytest
from along_point import point

from experiments.report.along_figure import along_figure
from experiments.statistics.metrics import METRICS

FIRST = METRICS[0]


@pytest.fixture(scope="module")
def figure():
    points = [
        point(8, "accuracy", snapshot=0.5, start=0.25, low=0.4, high=0.6),
        point(16, "accuracy", "rises", snapshot=0.75, start=0.25, low=0.6, high=0.8),
        point(8, FIRST.key, choice="0.1", relative=-0.2),
        point(16, FIRST.key, "falls", choice="0.1", relative=-0.5),
        point(16, FIRST.key, "rises", choice="0.1", view="per_loss", relative=0.5),
    ]
    return along_figure([dataclasses.replace(p, label="label") for p in points])


def panel(figure, title):
    (axes,) = [
        axes for axes in figure.axes if axes.get_title(loc="left") + axes.get_title() == title
    ]
    return axes


def marks(axes):
    """(step, value) of the single markers, and whether each is filled."""
    return {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor() != "white"
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }


def test_values_stand_at_their_step_and_only_clear_changes_are_filled(figure):
    assert marks(panel(figure, "Right answers")) == {(8, 0.5): False, (16, 0.75): True}
    changes = panel(figure, FIRST.label)
    assert marks(changes) == {(8, -0.2): False, (16, -0.5): True, (16, 0.5): True}
    lines = [line for line in changes.lines if len(line.get_xdata()) == 3]
    assert [list(line.get_ydata()) for line in lines] == [[0, -0.2, -0.5]], "from the start on"
    assert list(changes.get_xticks()) == [0, 8, 16]


def test_there_is_a_panel_a_metric_and_none_of_what_was_not_measured(figure):
    assert len(figure.axes) == 1 + len(METRICS)
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert len(legend) == 2
