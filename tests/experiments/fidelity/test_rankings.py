"""Circuits hold the first edges of a plain sort, as many as a share of the edges rounded down."""

import math

import numpy as np
import pytest
from toy_study import scores

from eap_jax.graph import edge_mask, parse_edge
from experiments.fidelity.rankings import SHARES, circuits_of, edges_at, exported_circuit

BASE_WR, RL_WR = (scores(3, 1, seed)[0] for seed in (1, 2))


@pytest.mark.parametrize(
    ("name", "strength_WR"), [("size", abs(BASE_WR)), ("signed", BASE_WR), ("transfer", abs(RL_WR))]
)
def test_a_ranking_keeps_the_strongest_edges_first(name, strength_WR):
    ranking = circuits_of(BASE_WR, RL_WR, 0).rankings[name]
    places = [tuple(place) for place in np.argwhere(edge_mask(3))]
    ranked = sorted(places, key=lambda place: -strength_WR[place])
    for share, kept_WR in zip(SHARES, ranking, strict=True):
        kept = {tuple(place) for place in np.argwhere(kept_WR)}
        assert kept == set(ranked[: math.floor(share * len(places))])


def test_random_rankings_grow_differ_and_are_those_of_the_seed():
    found, again, other = (circuits_of(BASE_WR, RL_WR, seed).rankings for seed in (0, 0, 1))
    names = [name for name in found if name.startswith("random")]
    assert len(names) == 3
    for name in names:
        np.testing.assert_array_equal(found[name], again[name])
        assert not np.array_equal(found[name], other[name])
        for smaller_WR, larger_WR in zip(found[name], found[name][1:], strict=False):
            assert not (smaller_WR & ~larger_WR).any()
    assert not np.array_equal(found[names[0]], found[names[1]])


def test_a_share_that_is_a_whole_number_of_edges_keeps_them_all():
    """0.29 * 100 is 28.999999999999996 in floating point."""
    assert edges_at(0.29, 100) == 29
    assert edges_at(0.02, 77) == 1


def test_the_exported_circuit_leaves_out_what_no_path_uses():
    """a0 reads nothing that is kept, so what it tells m1 is in no circuit."""
    scores_WR = 1e-3 * BASE_WR / abs(BASE_WR).max()
    on_a_path = [parse_edge(edge, 3) for edge in ("input -> m0", "m0 -> logits")]
    for place in (*on_a_path, parse_edge("a0 -> m1", 3)):
        scores_WR[place] = -1.0
    kept_WR = exported_circuit(scores_WR, 3)
    assert [tuple(place) for place in np.argwhere(kept_WR)] == sorted(on_a_path)
