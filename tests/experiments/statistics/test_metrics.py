"""Each metric is one object: its formula, its domain, and the one place where its key stands."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from paired_scores import FORMULAS, largest

from eap_jax.graph import edge_mask
from experiments.statistics.metrics import METRIC_BY_KEY, METRICS, TABLE_METRICS, FreeChoices

REPOSITORY = Path(__file__).resolve().parents[3]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)


def test_metrics_have_the_papers_directions_and_our_own_has_none():
    assert [(metric.key, metric.paper) for metric in METRICS] == [
        ("activation_intensity", "rises"),
        ("information_complexity", "rises"),
        ("distribution_kurtosis", "falls"),
        ("sample_diversity", "rises"),
        ("output_edge_entropy", "rises"),
        ("strength_entropy", None),
    ]


def test_the_papers_table_and_figures_name_their_metrics():
    assert [metric.short for metric in TABLE_METRICS] == [
        "Act.Intens.", "Info.Complex.", "Dist.Kurt.",
    ]  # fmt: skip
    figures = {metric.key: metric.figure.name for metric in METRICS if metric.figure}
    assert figures == {
        "sample_diversity": "figure_3a_diversity",
        "output_edge_entropy": "figure_3b_output_entropy",
    }


@pytest.mark.parametrize("key", FORMULAS)
def test_values_are_the_papers_formulas(key, sides):
    assert METRIC_BY_KEY[key].value(sides[0], FreeChoices()) == FORMULAS[key](sides[0])


@pytest.mark.parametrize("field", ["key", "label", "short", "brief"])
def test_no_two_metrics_share_a_name(field):
    names = [getattr(metric, field) for metric in METRICS]
    assert len(set(names)) == len(names)


@every_metric
def test_a_key_stands_in_one_source_file(metric):
    """In templates and tables of other programs it may stand; in the code it is an attribute."""
    sources = [
        path.relative_to(REPOSITORY).as_posix()
        for package in ("eap_jax", "converters", "experiments")
        for path in (REPOSITORY / package).rglob("*.py")
        if re.search(rf"\b{metric.key}\b", path.read_text(encoding="utf-8"))
    ]
    assert sources == ["experiments/statistics/metrics.py"]


@every_metric
def test_values_of_unlike_scores_lie_in_the_domain(metric):
    draw = np.random.default_rng(3)
    for bins in (2, 100):
        choices = FreeChoices(bins=bins)
        lowest, highest = metric.domain(choices)
        for scores in (
            draw.normal(size=(4, 5, 9)),
            draw.standard_t(2, size=(4, 5, 9)),
            np.sign(draw.normal(size=(4, 5, 9))),
            np.repeat([np.eye(5, 9), -np.eye(5, 9)], 2, axis=0),
        ):
            assert lowest - 1e-9 <= metric.value(scores, choices) <= highest + 1e-9


@every_metric
def test_the_functional_of_all_questions_is_the_value(metric, sides):
    """On every matrix, on real edges only, and with other bins and ranges."""
    mask = edge_mask(2)
    for choices in (
        FreeChoices(),
        FreeChoices(support_WR=mask),
        FreeChoices(bins=7, upper=2.5, output_upper=1.5),
    ):
        value = metric.value(sides[0], choices)
        found = metric.functional(sides[0], choices).resample(np.ones((1, 12))).values_Z
        assert found == pytest.approx([value], rel=1e-9)


@every_metric
def test_changes_of_equal_sides_are_none(metric, sides):
    both = np.concatenate([sides[0], sides[0]])
    changes = metric.changes(both, FreeChoices())
    assert len(changes.values_n) == 12
    assert np.abs(changes.values_n).max() <= 1e-12 * changes.size


def test_one_range_ends_at_the_largest_of_both_sides_where_none_is_given(sides):
    mask = np.zeros((5, 9), bool)
    mask[1:, :4] = True
    found = FreeChoices(support_WR=mask).with_one_range(*sides)
    assert found.upper == max(np.abs(side[:, 1:, :4]).max() for side in sides)
    assert found.output_upper == max(largest("output_edge_entropy", side) for side in sides)
    given = FreeChoices(upper=2.0, output_upper=3.0).with_one_range(*sides)
    assert (given.upper, given.output_upper) == (2.0, 3.0)
    zeros = np.zeros((2, 5, 9))
    assert FreeChoices().with_one_range(zeros, zeros) == FreeChoices()


def test_a_metric_holds_what_a_reader_is_told():
    for metric in METRICS:
        fields = dataclasses.asdict(dataclasses.replace(metric, figure=None))
        assert fields["paper"] in ("rises", "falls", None)
        assert all(fields[name] for name in ("key", "label", "short", "brief", "meaning"))
        assert math.isfinite(metric.domain(FreeChoices())[0])
