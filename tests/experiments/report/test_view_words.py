"""What the report says of views, of fidelity and of where the loss is."""

import dataclasses

import numpy as np
import pytest
from toy_study import toy_cell, toy_study

from experiments.fidelity.agreement import agreement
from experiments.report.verdict import verdicts
from experiments.report.view_words import (
    fidelity_sentence,
    loss_cautions,
    median_text,
    turning_sentence,
    view_lines,
)
from experiments.statistics.concentration import Concentration
from experiments.statistics.metrics import METRICS, TABLE_METRICS
from experiments.statistics.views import View
from experiments.store import Effects

INTENSITY = METRICS[0]


def view(name, relative, trend, metric=INTENSITY):
    return View(
        view=name, metric=metric.key, base=1.0, rl=1 + relative, relative=relative,
        low=relative - 0.1, high=relative + 0.1, trend=trend, samples=10,
    )  # fmt: skip


README_VIEWS = (
    view("published", -0.58, "falls"),
    view("per_loss", 4.31, "rises"),
    view("logit_difference", 0.0, "unclear"),
    view("exact", 0.004, "unclear"),
)


def cell(**fields):
    return dataclasses.replace(toy_cell(), **fields)


def where(position=0.98, intensity=0.2):
    return Concentration(
        position_shares=(0.0, position, 1 - position), effective_positions=1.1,
        top_questions=0.5, top_intensity=intensity,
    )  # fmt: skip


def test_a_sign_that_turns_is_said_with_its_views():
    assert turning_sentence(cell(views=README_VIEWS), INTENSITY) == (
        "Activation intensity falls by 58 %, but rises by 431 % per nat of loss and does not clearly "
        "change when edges are really cut."
    )
    doubtful = (*README_VIEWS[:1], README_VIEWS[2])
    assert turning_sentence(cell(views=doubtful), INTENSITY) == (
        "Activation intensity falls by 58 %, but does not clearly change for the logit difference to "
        "the runner-up."
    )
    several = (
        README_VIEWS[0],
        view("per_loss", 4.31, "rises"),
        view("per_gradient", 0.5, "rises"),
        view("exact", 0.2, "rises"),
    )
    assert turning_sentence(cell(views=several), INTENSITY) == (
        "Activation intensity falls by 58 %, but rises by 431 % per nat of loss and rises by 20 % "
        "when edges are really cut."
    )


@pytest.mark.parametrize(
    "views",
    [(), README_VIEWS[:1], (README_VIEWS[0], view("exact", -0.3, "falls")), README_VIEWS[2:]],
)
def test_a_sign_that_stands_or_was_never_clear_needs_no_sentence(views):
    assert turning_sentence(cell(views=views), INTENSITY) is None


def test_lines_hold_one_view_each_and_count_several_cells():
    one, other = cell(views=README_VIEWS), cell(views=(README_VIEWS[1],))
    lines = view_lines([one], INTENSITY)
    assert [line.change for line in lines][:2] == ["-58.0 % [-68, -48]", "+431.0 % [+421, +441]"]
    assert [line.trend for line in lines] == ["falls", "rises", "unclear", "unclear"]
    both = view_lines([one, other], INTENSITY)[1]
    assert (both.values, both.trend) == ("2 comparisons", "rises in 2")
    assert view_lines([cell()], INTENSITY) == ()


def test_the_verdict_does_not_count_what_turns():
    first, second, third = TABLE_METRICS
    views = [*README_VIEWS]
    for metric, trend in ((second, "rises"), (third, "falls")):
        views += [view("published", 0.2, trend, metric), view("exact", 0.2, trend, metric)]
    shown = cell(views=views)
    comparisons = dict(shown.comparisons)
    for metric, way in ((first, -1), (second, 1), (third, -1)):
        comparisons[metric.key] = dataclasses.replace(
            comparisons[metric.key], difference_interval=tuple(sorted((0.1 * way, 0.2 * way))),
            wilcoxon_p=0.01, effect_size=float(way),
        )  # fmt: skip
    (found,) = verdicts(toy_study([dataclasses.replace(shown, comparisons=comparisons)]))
    assert [finding.status for finding in found.findings[:3]] == [
        "turns with the view", "as in the paper", "as in the paper",
    ]  # fmt: skip
    assert found.headline == (
        "Partly: after GRPO, 2 of the paper's 3 signs of online RL show here."
    )
    assert found.turns == (turning_sentence(shown, INTENSITY),)
    everywhere = [dataclasses.replace(v, trend="falls") for v in views if v.metric == third.key]
    only = dataclasses.replace(
        shown,
        comparisons=comparisons,
        views=[*README_VIEWS, view("published", 0.2, "rises", second),
               view("exact", -0.2, "falls", second), *everywhere[:1],
               view("exact", 0, "unclear", third)],
    )  # fmt: skip
    (found,) = verdicts(toy_study([only]))
    assert found.headline.startswith("Cannot tell: after GRPO, none of the paper's 3 signs")


def test_fidelity_is_one_sentence_of_both_sides():
    shown = toy_cell()
    effects = {
        side: Effects(effects_mWR=gain * scores_nWR[:4], rows_m=np.arange(4))
        for side, scores_nWR, gain in (("base", shown.base_nWR, 2), ("rl", shown.rl_nWR, -4))
    }
    fidelity = {
        side: agreement(scores_nWR[:4], effects[side].effects_mWR)
        for side, scores_nWR in (("base", shown.base_nWR), ("rl", shown.rl_nWR))
    }
    text = fidelity_sentence(dataclasses.replace(shown, effects=effects, fidelity=fidelity))
    assert "77 edges were really cut on 4 questions" in text
    # The three edges of a reader with one writer are 0 on both sides.
    assert "in 100 and 4 % of cases" in text
    assert "a correlation of 1.00 and -1.00" in text
    assert (
        "they name 10.0 and 10.0 of its 10 strongest edges, and are 0.500 and 0.250 times" in text
    )
    assert "input -> a0<q>, input -> a0<k>, input -> a0<v> cannot be measured" in text
    assert fidelity_sentence(shown) is None


def test_cautions_name_the_position_the_ratio_and_the_few_questions():
    losses = {"base_losses_n": np.full(12, 0.03), "rl_losses_n": np.full(12, 0.001)}
    shown = dataclasses.replace(
        toy_cell(samples=12), where_loss_is={"base": where(), "rl": where(0.3, 0.75)}, **losses
    )
    position, ratio, few = loss_cautions(shown)
    assert position.startswith("98 % of base's loss lies on answer token 2 and 70 % of rl's")
    assert "differ 30 times (0.0300 and 1.00e-3 nats a token)" in ratio
    assert few.startswith("5 of 12 questions hold 75 % of rl's activation intensity")
    even = Concentration(
        position_shares=(0.4, 0.3, 0.3), effective_positions=3,
        top_questions=0.4, top_intensity=0.4,
    )  # fmt: skip
    quiet = dataclasses.replace(
        shown, where_loss_is={"base": even, "rl": even}, rl_losses_n=np.full(12, 0.011)
    )
    assert loss_cautions(quiet) == []


def test_what_holds_of_any_one_token_or_ten_questions_is_no_caution():
    """All of the loss is on the only token that counts, and half of ten questions hold a half."""
    rl = Concentration(
        position_shares=(1.0,), effective_positions=1, top_questions=0.8, top_intensity=0.8
    )
    for samples, t_cut, said in ((10, 1, 0), (10, 2, 1), (11, 1, 1), (11, 2, 2)):
        shown = dataclasses.replace(
            toy_cell(samples=samples), t_cut=t_cut, where_loss_is={"rl": rl}
        )
        assert len(loss_cautions(shown)) == said


def test_the_median_questions_change_stands_beside_the_means():
    assert median_text(cell(median_ratios={INTENSITY.key: 0.05}), INTENSITY.key) == "-95.0 %"
    assert median_text(cell(), INTENSITY.key) == ""
