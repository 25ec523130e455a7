"""Cells that differ in alpha only: which signs turn, in words, side by side and in the tables."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from html_page import Page, rows
from toy_study import comparison, toy_cell, toy_study

from experiments.report import alpha_words, exports, page
from experiments.report.verdict import verdicts
from experiments.statistics.concentration import Concentration
from experiments.statistics.metrics import TABLE_METRICS
from experiments.statistics.views import View

METRIC = TABLE_METRICS[2]


def cell_of(change, *, alpha, views=(), **fields):
    """A cell with one metric, which changes clearly if by more than 0.05, and made-up views."""
    found = {METRIC.key: comparison(METRIC.key, 1.0, 1.0 + change, 0.05)}
    made = [
        View(
            view=name, metric=METRIC.key, base=1.0, rl=1 + size, relative=size, low=size - 0.1,
            high=size + 0.1, trend=trend, samples=10,
        )
        for name, size, trend in views
    ]  # fmt: skip
    cell = toy_cell(num_layers=1, samples=4, alpha=alpha, **fields)
    return dataclasses.replace(cell, comparisons=found, views=made)


@pytest.mark.parametrize(
    ("changes", "text", "turns"),
    [
        ((0.3, -0.53), "rises by 30 % at alpha 0.1 and falls by 53 % at alpha 0.2", True),
        ((-0.3, -0.5, -0.1),
         "falls by 30 % at alpha 0.1, by 50 % at alpha 0.2 and by 10 % at alpha 0.3", False),
        ((0.3, 0.01), "rises by 30 % at alpha 0.1 and does not clearly change at alpha 0.2 (+1 %)",
         False),
        ((0.0, -0.01, 2.0), "does not clearly change at alpha 0.1 (+0 %), at alpha 0.2 (-1 %) and "
         "rises by 200 % at alpha 0.3", False),
    ],
)  # fmt: skip
def test_changes_are_told_in_the_order_of_alpha(changes, text, turns):
    cells = [cell_of(change, alpha=0.1 * (i + 1)) for i, change in enumerate(changes)]
    assert alpha_words.alpha_changes(alpha_words.ladders(cells[::-1])[0], METRIC) == text
    assert (alpha_words.alpha_turn(cells, METRIC) is not None) is turns
    assert [alpha_words.turns_at(cell, cells, METRIC) for cell in cells] == [turns] * len(cells)


def test_of_several_question_sets_the_one_that_turns_is_named():
    cells = [
        cell_of(change, alpha=alpha, dataset=dataset)
        for dataset, changes in (("math", (0.3, 0.3)), ("gsm8k", (0.3, -0.5)))
        for alpha, change in zip((0.1, 0.3), changes, strict=True)
    ]
    assert alpha_words.alpha_turn(cells, METRIC) == (
        "Distribution kurtosis rises by 30 % at alpha 0.1 and falls by 50 % at alpha 0.3 (gsm8k)"
    )
    turning = [alpha_words.turns_at(cell, cells, METRIC) for cell in cells]
    assert turning == [False, False, True, True]
    assert alpha_words.one_ladder(cells) is None


def test_views_stand_side_by_side_and_their_turns_are_told_by_alpha():
    few = [
        cell_of(-0.99, alpha=0.1, views=(("published", -0.99, "falls"), ("exact", 0, "unclear"))),
        cell_of(-0.58, alpha=0.3, views=(("published", -0.58, "falls"), ("per_loss", 4, "rises"))),
    ]
    table = alpha_words.alpha_views(few, METRIC)
    assert table.alphas == ("0.1", "0.3")
    assert [(name, [trend for _, trend in found]) for name, found in table.rows] == [
        ("scores, as published", ["falls", "falls"]),
        ("divided by the question's loss", ["", "rises"]),
        ("edges really cut", ["unclear", ""]),
    ]
    assert table.rows[1][1][0][0] == "not measured"
    assert "-58.0 % [-68, -48]" in table.rows[0][1][1][0]
    assert alpha_words.turning_in_cells(few, METRIC) == (
        "Distribution kurtosis: at alpha 0.1 it falls by 99 %, but does not clearly change when "
        "edges are really cut; at alpha 0.3 it falls by 58 %, but rises by 400 % per nat of loss."
    )
    many = [dataclasses.replace(few[0], dataset=name) for name in "abcde"] + [few[1]]
    assert alpha_words.turning_in_cells(many, METRIC) == (
        "Distribution kurtosis clearly changes in 6 of 6 comparisons: it turns with the view in 1 "
        "and is unclear in another view in 5 of these."
    )
    (verdict,) = verdicts(toy_study(few))
    assert verdict.turns == (alpha_words.turning_in_cells(few, METRIC),)
    found = rows(Page(page.render(toy_study(few))), f"{METRIC.label} in every view at each alpha")
    assert found[0] == ["View", "alpha 0.1", "trend", "alpha 0.3", "trend"]
    assert found[1][0::2] == ["scores, as published", "falls", "falls"]


def test_every_table_says_which_signs_turn():
    cells = [cell_of(0.3, alpha=0.1), cell_of(-0.5, alpha=0.3), cell_of(0.01, alpha=0.5)]
    study = toy_study(cells)
    lines = csv.DictReader(io.StringIO(exports.table_csv(study)))
    assert [line["turns_with_alpha"] for line in lines] == ["yes", "yes", "no"]
    markdown = exports.table_markdown(study).splitlines()[2:5]
    assert [line.split(" | ")[7] for line in markdown] == [
        "rises, turns with alpha", "falls, turns with alpha", "unclear",
    ]  # fmt: skip
    shown = rows(Page(page.render(study)), "Table 1")[1:]
    assert ["turns with alpha" in line[3] for line in shown] == [True, True, False]


def test_cautions_name_the_alpha_and_many_are_counted():
    where = Concentration(
        position_shares=(0.98, 0.02), effective_positions=1.1, top_questions=0.5, top_intensity=0.2
    )
    losses = {"base_losses_n": np.full(4, 0.1), "rl_losses_n": np.full(4, 0.1)}
    cells = [
        dataclasses.replace(cell_of(0.3, alpha=alpha), where_loss_is={"base": where}, **losses)
        for alpha in (0.1, 0.2, 0.3, 0.4, 0.5)
    ]
    first, second = alpha_words.cautions_of_cells(cells[:2])
    assert first.startswith("Alpha 0.1: 98 % of base's loss lies on answer token 1")
    assert second.startswith("Alpha 0.2: ")
    (counted,) = alpha_words.cautions_of_cells(cells)
    assert counted.startswith("In 5 of 5 comparisons")
