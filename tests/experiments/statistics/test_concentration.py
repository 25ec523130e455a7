"""Shares and medians of numbers that can be added up by hand."""

import math

import numpy as np
import pytest

from experiments.statistics.concentration import concentration, losses_ratio, median_ratios
from experiments.statistics.metrics import METRICS


def matrices(sizes):
    """One matrix of a single layer a question, entries +- its size."""
    signs = np.where(np.arange(15).reshape(3, 5) % 2, 1.0, -1.0)
    return np.array(sizes, float)[:, None, None] * signs


def test_shares_of_positions_and_of_five_questions():
    sizes = [10, 8, 6, 4, 2, 1, 1, 1, 1, 1]
    found = concentration(matrices(sizes), np.array(sizes[::-1]), np.array([0.6, 0.2, 0.2, 0.0]))
    assert found.position_shares == pytest.approx((0.6, 0.2, 0.2, 0.0))
    assert found.largest_position == 0
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.2))
    assert found.effective_positions == pytest.approx(math.exp(entropy))
    assert found.top_intensity == pytest.approx(30 / 35)
    assert found.top_questions == pytest.approx(30 / 35)


def test_what_was_not_saved_or_is_zero_is_not_defined():
    found = concentration(matrices([0, 0]), np.zeros(2), None)
    assert (found.position_shares, found.largest_position) == ((), -1)
    assert math.isnan(found.top_intensity)
    assert found.effective_positions == 0


def test_a_median_question_is_not_moved_by_one_that_explodes():
    base, rl = matrices([1, 1, 1, 1, 1]), matrices([0.5, 0.5, 0.5, 0.4, 100])
    found = median_ratios(base, rl)
    assert found[METRICS[0].key] == pytest.approx(0.5)


def test_the_losses_ratio_is_of_the_larger_to_the_smaller():
    assert losses_ratio(np.array([1.0, 3.0]), np.array([0.25, 0.75])) == pytest.approx(4)
    assert losses_ratio(np.array([0.25, 0.75]), np.array([1.0, 3.0])) == pytest.approx(4)
    assert losses_ratio(np.zeros(2), np.ones(2)) == math.inf
