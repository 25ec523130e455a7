"""Areas and intervals of curves whose losses follow a rule that can be summed by hand."""

import math

import numpy as np
import pytest
from toy_study import scores

from eap_jax.graph import edge_mask
from experiments.fidelity.rankings import circuits_of
from experiments.fidelity.recovery import summary

LAYERS = 2
CIRCUITS = circuits_of(scores(LAYERS, 1, 1)[0], scores(LAYERS, 1, 2)[0], 0)


def losses(loss_of) -> dict:
    """The losses of every circuit by a rule on its mask."""
    return {kept_WR.tobytes(): loss_of(kept_WR) for kept_WR in CIRCUITS.different}


def falling(samples):
    """By this rule every circuit recovers its share of the edges, in every sample."""
    edges = edge_mask(LAYERS).sum()
    return losses(lambda kept_WR: np.full(samples, 4 - 3 * kept_WR.sum() / edges, np.float32))


def test_a_curve_on_the_diagonal_has_half_the_square_below():
    found = summary(CIRCUITS, falling(4), 0)
    assert found["cpr"] == pytest.approx(0.5, abs=0.02)
    assert found["cmd"] == pytest.approx(0.5, abs=0.02)
    for line in found["curve"]:
        assert line["recovered"] == pytest.approx(line["kept"] / found["edges"], abs=1e-6)


def test_intervals_resample_the_samples_not_the_circuits():
    """With one sample, or equal ones, there is nothing to resample."""
    assert all(map(math.isnan, summary(CIRCUITS, falling(1), 0)["cpr_interval"]))
    found = summary(CIRCUITS, falling(4), 0)
    assert found["cpr_interval"] == pytest.approx((found["cpr"],) * 2)


def test_nothing_is_recovered_of_a_loss_that_no_edge_changes():
    found = summary(CIRCUITS, losses(lambda kept_WR: np.ones(3, np.float32)), 0)
    assert math.isnan(found["cpr"])
    assert math.isnan(found["curve"][3]["recovered"])
