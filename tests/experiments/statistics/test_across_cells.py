"""Statistics over cells by hand and over families of true nulls."""

import math

import numpy as np
import pytest
import scipy.stats

from experiments.statistics import across_cells
from experiments.statistics import compare as comparing

NAN = math.nan


def test_holm_by_hand_and_nan_passes_through():
    found = across_cells.holm([0.01, NAN, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, NAN, 0.06, 0.06, 0.02])
    assert across_cells.holm([0.9, 0.8]).tolist() == [1, 1]
    assert across_cells.holm([]).tolist() == []
    assert np.isnan(across_cells.holm([NAN])).all()
    with pytest.raises(ValueError, match="p-values"):
        across_cells.holm([0.5, 1.5])


def test_holm_keeps_the_family_wise_error():
    """10 true nulls: any rejection at 5 % in at most 5 % of 2,000 families."""
    families = np.random.default_rng(0).random((2000, 10))
    wrong = sum((across_cells.holm(family) < 0.05).any() for family in families)
    assert scipy.stats.binom.ppf(1e-4, 2000, 0.04) < wrong
    assert wrong < scipy.stats.binom.ppf(1 - 1e-4, 2000, 0.05)


def test_rise_summary_counts_cells_in_which_the_change_is_defined(sides):
    base, rl = sides
    twice = comparing.compare(base, 2 * base, resamples=20)["activation_intensity"]
    half = comparing.compare(base, 0.5 * base, resamples=20)["activation_intensity"]
    none = comparing.compare(0 * base, rl, resamples=20)["activation_intensity"]
    found = across_cells.rise_summary([twice, twice, half, none])
    assert found.cells == 3
    assert found.share == pytest.approx(2 / 3)
    assert found.mean_change == pytest.approx((1 + 1 - 0.5) / 3)
    same = comparing.compare(base, base, resamples=20)["activation_intensity"]
    assert same.relative == 0
    assert across_cells.rise_summary([twice, same]).share == 0.5, "what stays does not rise"
    empty = across_cells.rise_summary([none])
    assert empty.cells == 0
    assert math.isnan(empty.share)
