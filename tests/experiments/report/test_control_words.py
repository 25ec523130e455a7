"""Arms against the control: one plain sentence an arm, every number in arm_control.csv."""

import csv
import dataclasses
import io
import math

from html_page import Page, rows
from toy_study import toy_cell, toy_study

from experiments.report import page
from experiments.report.control_words import control_csv, control_lines, control_sentences
from experiments.statistics.against_control import AgainstControl
from experiments.statistics.metrics import METRICS
from experiments.statistics.views import VIEWS, View
from experiments.study.rule import Rule

FIRST, SECOND, *OTHERS = (metric.key for metric in METRICS)
LABELS = [metric.label.lower() for metric in METRICS]


def against(arm="tiny_grpo", alpha=0.3, samples=40, views=VIEWS, **seen):
    """Metrics change as `seen` says: a trend, or one for each view; the others do not clearly."""
    found = []
    for metric in METRICS:
        trends = seen.get(metric.key, "unclear")
        for view in views:
            trend = trends if isinstance(trends, str) else trends.get(view, "unclear")
            found.append(
                View(
                    view=view, metric=metric.key, base=2.0, rl=3.0, relative=0.5, low=math.nan,
                    high=0.75, trend=trend, samples=samples, difference_low=-0.25,
                    difference_high=1.5,
                )
            )  # fmt: skip
    return AgainstControl(
        arm=arm, control="tiny_sft", dataset="arithmetic", rule=Rule(alpha=alpha), samples=samples,
        cut=9, views=found,
    )  # fmt: skip


def test_the_sentence_says_what_every_view_has_and_what_scores_and_cuts_have():
    found = against(
        **{FIRST: "rises", SECOND: {"published": "falls"}, OTHERS[0]: {"exact": "falls"}}
    )
    assert control_sentences([found]) == [
        f"tiny_grpo against tiny_sft (40 questions, alpha 0.3): in every view {LABELS[0]} is higher; "
        f"by scores {LABELS[0]} is higher and {LABELS[1]} is lower; with edges really cut {LABELS[0]} "
        f"is higher and {LABELS[2]} is lower."
    ]


def test_nothing_clear_is_no_finding_and_uncut_edges_are_not_spoken_of():
    (sentence,) = control_sentences([against(views=("published", "per_loss"))])
    assert sentence == (
        "tiny_grpo against tiny_sft (40 questions, alpha 0.3): in every view no metric differs "
        "clearly; by scores no metric differs clearly."
    )


def test_an_arms_cells_must_agree_and_another_arm_has_its_own_sentence():
    cells = [
        against(alpha=0.1, samples=30, **{FIRST: "rises", SECOND: "falls"}),
        against(alpha=0.3, **{FIRST: "falls", SECOND: "falls"}),
        against(arm="tiny_ppo"),
    ]
    first, second = control_sentences(cells)
    assert first.startswith(
        "tiny_grpo against tiny_sft (30 to 40 questions, alpha 0.1, 0.3): in every"
    )
    assert f"in every view and all 2 comparisons {LABELS[1]} is lower; by scores" in first
    assert LABELS[0] not in first
    assert second.startswith("tiny_ppo against")


def test_the_table_holds_full_precision_and_nothing_where_not_defined():
    lines = list(csv.DictReader(io.StringIO(control_csv([against(**{FIRST: "rises"})]))))
    assert len(lines) == len(METRICS) * len(VIEWS)
    assert lines[0] == {
        "arm": "tiny_grpo", "control": "tiny_sft", "dataset": "arithmetic", "alpha": "0.3",
        "metric": FIRST, "view": "published", "control_value": "2.0", "arm_value": "3.0",
        "difference": "1.0", "difference_low": "-0.25", "difference_high": "1.5",
        "relative": "0.5", "relative_low": "", "relative_high": "0.75", "trend": "rises",
        "questions": "40", "selection": "",
    }  # fmt: skip


def test_a_view_that_was_not_measured_is_named_so():
    line = control_lines([against(views=("published",), **{FIRST: "rises"})])[0]
    assert line.views == ("+50.0 %, higher", *["not measured"] * (len(VIEWS) - 1))


def test_the_report_has_the_section_only_where_there_is_a_control():
    cells = [toy_cell(num_layers=1, samples=4)]
    study = toy_study(cells)
    assert "Arms against the control" not in page.render(study)
    found = [against(arm="<b>grown</b>", **{FIRST: "rises"})]
    made = Page(page.render(dataclasses.replace(study, against_control=found)))
    assert made.problems == []
    lines = rows(made, "Arms against the control")
    assert len(lines) == 1 + len(METRICS)
    assert lines[1][1:3] == [METRICS[0].label, "+50.0 %, higher"]
    assert "<b>grown</b> against tiny_sft (40 questions" in made.text("section", id="table")
