"""The explorer's whole numbers are a cell's means and intervals to a millionth of the largest."""

import dataclasses

import numpy as np
import pytest
from plain_means import LAYERS, READERS, WRITERS, means
from toy_study import toy_cell

from experiments.report.edge_data import edge_data


def test_numbers_follow_the_matrix_row_by_row_and_are_whole_multiples_of_the_unit():
    cell = toy_cell(num_layers=LAYERS, samples=6)
    (data,) = edge_data([cell])
    assert (data["name"], data["layers"], data["samples"]) == (cell.name, 3, 6)
    expected = means(cell)
    ends = {
        "low": [cell.edge_low_WR[WRITERS.index(w), READERS.index(r)] for w, r in expected],
        "high": [cell.edge_high_WR[WRITERS.index(w), READERS.index(r)] for w, r in expected],
    }
    exact = {
        "base": [base for base, _ in expected.values()],
        "rl": [rl for _, rl in expected.values()],
        **ends,
    }
    largest = max(abs(number) for numbers in exact.values() for number in numbers)
    assert data["unit"] == pytest.approx(largest / 1e6, rel=1e-9)
    for name, numbers in exact.items():
        assert all(isinstance(number, int) for number in data[name])
        found = np.array(data[name]) * data["unit"]
        np.testing.assert_allclose(found, numbers, rtol=0, atol=0.51 * data["unit"])


def test_without_intervals_both_ends_are_none_and_zeros_need_no_unit():
    cell = toy_cell(num_layers=1, samples=2)
    zeros = np.zeros_like(cell.base_nWR)
    cell = dataclasses.replace(
        cell, base_nWR=zeros, rl_nWR=zeros, edge_low_WR=None, edge_high_WR=None
    )
    (data,) = edge_data([cell])
    assert (data["low"], data["high"]) == (None, None)
    assert set(data["base"]) == set(data["rl"]) == {0}
