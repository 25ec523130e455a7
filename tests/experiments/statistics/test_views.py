"""Views are the published comparison of scores that were divided or replaced by hand."""

import dataclasses

import numpy as np
import pytest

from eap_jax.graph import edge_mask
from experiments.statistics.compare import compare
from experiments.statistics.metrics import METRICS
from experiments.statistics.trend import trend
from experiments.statistics.views import VIEWS, SideData, View, support, views_of

LAYERS, SAMPLES = 2, 12
MASK = edge_mask(LAYERS)


def side(seed: int, loss: float) -> SideData:
    """Scores proportional to a loss, over edges that do not change."""
    draw = np.random.default_rng(seed)
    shape = (SAMPLES, *MASK.shape)
    effects = draw.normal(size=shape) * np.exp(draw.normal(size=shape))
    losses = loss * draw.uniform(0.5, 2, SAMPLES)
    return SideData(
        scores_nWR=(losses[:, None, None] * effects * MASK).astype(np.float32),
        losses_n=losses,
        gradient_norms_n=losses**0.5,
        lead_nWR=(effects * MASK).astype(np.float32),
        effects_mWR=np.where(MASK, effects, np.nan).astype(np.float32),
    )


BASE, RL = side(0, 0.1), side(0, 0.01)


def by_view(base=BASE, rl=RL):
    published = compare(base.scores_nWR, rl.scores_nWR)
    return {(row.view, row.metric): row for row in views_of(base, rl, published)}


def test_each_view_compares_what_its_name_says():
    found = by_view()
    assert set(found) == {(view, metric.key) for view in VIEWS for metric in METRICS}
    stacks = {
        "published": [x.scores_nWR for x in (BASE, RL)],
        "per_loss": [x.scores_nWR / x.losses_n[:, None, None] for x in (BASE, RL)],
        "per_gradient": [x.scores_nWR / x.gradient_norms_n[:, None, None] for x in (BASE, RL)],
        "logit_difference": [x.lead_nWR for x in (BASE, RL)],
        "exact": [np.nan_to_num(x.effects_mWR) for x in (BASE, RL)],
    }
    for view, pair in stacks.items():
        for key, expected in compare(*pair).items():
            row = found[view, key]
            assert row.base == pytest.approx(expected.base, rel=1e-6)
            assert row.relative == pytest.approx(expected.relative, rel=1e-5, abs=1e-7)
            assert (row.low, row.high) == pytest.approx(
                expected.relative_interval, rel=1e-3, abs=1e-6, nan_ok=True
            )
            assert row.samples == SAMPLES
    intensity = METRICS[0].key
    assert found["published", intensity].trend == "falls"
    assert found["per_loss", intensity].trend == "unclear"  # the loss alone made the change


def test_a_question_without_loss_is_left_out_where_it_divides():
    losses = RL.losses_n.copy()
    losses[3] = 0
    found = by_view(rl=dataclasses.replace(RL, losses_n=losses))
    kept = np.arange(SAMPLES) != 3
    expected = compare(
        (BASE.scores_nWR / BASE.losses_n[:, None, None])[kept],
        RL.scores_nWR[kept] / losses[kept, None, None],
    )
    key = METRICS[2].key
    assert found["per_loss", key].rl == pytest.approx(expected[key].rl, rel=1e-5)
    assert found["per_loss", key].samples == SAMPLES - 1
    assert found["per_gradient", key].samples == SAMPLES


def test_views_that_were_not_measured_are_absent():
    effects = RL.effects_mWR.copy()
    effects[2, 0, 3] = np.nan  # one edge of one sample was not cut
    less = dataclasses.replace(RL, effects_mWR=effects, lead_nWR=None, gradient_norms_n=None)
    assert {view for view, _ in by_view(rl=less)} == {"published", "per_loss"}


def view(name, seen):
    return View(
        view=name, metric="m", base=1, rl=2, relative=1, low=0, high=2, trend=seen, samples=9
    )


@pytest.mark.parametrize(
    ("published", "others", "expected"),
    [
        ("rises", ("rises", "rises"), "found"),
        ("falls", ("falls", "rises"), "turns"),
        ("falls", ("unclear", "rises"), "turns"),
        ("falls", ("unclear", "falls"), "unclear elsewhere"),
        ("unclear", ("rises", "falls"), "unclear"),
        ("rises", (), "found"),
    ],
)
def test_a_change_is_found_only_where_every_view_has_it(published, others, expected):
    rows = [view("published", published), *map(view, ("per_loss", "exact"), others)]
    assert support(rows, "m") == expected


def test_a_views_trend_is_that_of_its_comparison():
    published = compare(BASE.scores_nWR, RL.scores_nWR)
    for row in views_of(BASE, RL, published):
        if row.view == "published":
            assert row.trend == trend(published[row.metric])
