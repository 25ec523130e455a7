"""The figure of a chain shows every comparison in every view, steps apart from the rest."""

import dataclasses

import pytest
from made_chain import change, made_chain

from experiments.report.chain_figure import chain_figure
from experiments.statistics.metrics import METRICS

FIRST = METRICS[0]


@pytest.fixture(scope="module")
def figure():
    accuracy = change("accuracy", base=0.25, rl=0.5, base_low=0.2, base_high=0.3, low=0.4, high=0.6)
    return chain_figure(
        made_chain(
            sft_dpo=[accuracy, change(FIRST.key, "falls", relative=-0.2)],
            dpo_rl=[
                dataclasses.replace(accuracy, base=0.5, rl=0.75),
                change(FIRST.key, relative=0.1),
                change(FIRST.key, "rises", view="exact", relative=0.3),
            ],
            sft_rl=[change(FIRST.key, "falls", relative=-0.4, low=float("nan"))],
        )
    )


def panel(figure, title):
    (axes,) = [one for one in figure.axes if title in (one.get_title(loc="left"), one.get_title())]
    return axes


def test_each_change_stands_at_its_comparison_and_only_clear_ones_are_filled(figure):
    axes = panel(figure, FIRST.label)
    marks = {
        (round(line.get_xdata()[0]), float(line.get_ydata()[0])): line.get_markerfacecolor()
        != "white"
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }
    assert marks == {(0, -0.2): True, (1, 0.1): False, (1, 0.3): True, (2, -0.4): True}
    assert len(axes.collections) == 3, "an interval of each but the one that has none"
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["sft\n→ dpo", "dpo\n→ rl", "sft\n→ rl"]
    between = [line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    assert between == [1.5], "the steps stand left of the line"


def test_models_stand_in_the_order_of_training_with_their_accuracy(figure):
    axes = panel(figure, "Right answers, of all questions asked")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["sft", "dpo", "rl"]
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert list(line.get_ydata()) == [0.25, 0.5, 0.75]
    assert len(figure.axes) == 1 + len(METRICS), "no panel of what was not measured"
    assert len(figure.legends[0].get_texts()) == 2
