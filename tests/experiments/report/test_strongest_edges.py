"""The ranking of edges against a plain sort."""

import numpy as np
import pytest

from eap_jax.graph import edge_mask, num_edges
from experiments.report.strongest_edges import strongest_edges


@pytest.mark.parametrize("granularity", ["qkv", "block"])
@pytest.mark.parametrize("count", [0, 1, 7, 10_000])
def test_edges_are_sorted_by_strength_and_ties_by_place(granularity, count):
    """Whole numbers, so that many strengths are equal; where no edge is the matrix is largest."""
    mask_WR = edge_mask(3, granularity)
    strength_WR = np.random.default_rng(0).integers(0, 4, mask_WR.shape).astype(float)
    strength_WR[~mask_WR] = 100.0
    places = [
        (w, r) for w in range(mask_WR.shape[0]) for r in range(mask_WR.shape[1]) if mask_WR[w, r]
    ]
    expected = sorted(places, key=lambda place: (-strength_WR[place], place))[:count]
    assert strongest_edges(strength_WR, mask_WR, count) == expected


def test_an_edge_of_strength_zero_is_an_edge():
    mask_WR = edge_mask(2)
    found = strongest_edges(np.zeros(mask_WR.shape), mask_WR, num_edges(2))
    assert len(found) == mask_WR.sum()
    assert found == sorted(found)
