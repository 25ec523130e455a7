"""Agreement of scores with effects, against numpy and loops over samples and edges."""

import math

import numpy as np
import pytest

from eap_jax.graph import edge_mask, reader_kinds
from experiments.fidelity.agreement import agreement

LAYERS, SAMPLES = 3, 40


@pytest.fixture(scope="module")
def pairs():
    """Heavy-tailed effects, scores that follow them with noise."""
    draw = np.random.default_rng(0)
    mask_WR = edge_mask(LAYERS)
    shape = (SAMPLES, *mask_WR.shape)
    effects = draw.normal(size=shape) * np.exp(draw.normal(size=shape))
    scores = (0.1 * effects + 0.05 * draw.normal(size=shape)) * mask_WR
    return scores.astype(np.float32), np.where(mask_WR, effects, np.nan).astype(np.float32)


def rank(values):
    return np.argsort(np.argsort(values))


def test_figures_over_all_pairs_are_those_of_the_definitions(pairs):
    scores, effects = pairs
    found = agreement(scores, effects)
    cut = edge_mask(LAYERS)
    s, e = scores[:, cut].astype(float), effects[:, cut].astype(float)
    assert (found["edges"], found["samples"], found["estimator"]) == (cut.sum(), SAMPLES, "eap")
    assert found["pearson"] == pytest.approx(np.corrcoef(s.ravel(), e.ravel())[0, 1])
    ranks = np.corrcoef(rank(s.ravel()), rank(e.ravel()))[0, 1]
    assert found["spearman"] == pytest.approx(ranks)
    assert found["sign"] == pytest.approx(np.mean(s * e > 0))
    assert found["size_ratio"] == pytest.approx(np.abs(s).mean() / np.abs(e).mean())
    tops = [
        len(set(np.argsort(-np.abs(a))[:10]) & set(np.argsort(-np.abs(b))[:10]))
        for a, b in zip(s, e, strict=True)
    ]
    assert found["top10"] == pytest.approx(np.mean(tops))
    means = np.corrcoef(s.mean(0), e.mean(0))[0, 1]
    assert found["of_means"]["pearson"] == pytest.approx(means)
    inside = np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(s, e, strict=True)])
    assert found["per_sample"]["pearson"] == pytest.approx(inside)


def test_groups_hold_their_own_pairs_only(pairs):
    scores, effects = pairs
    found = agreement(scores, effects)
    kinds, seen = np.array(reader_kinds(LAYERS)), edge_mask(LAYERS).sum(axis=0)
    for kind, group in found["by_reader"].items():
        places = [(w, r) for r in np.flatnonzero(kinds == kind) for w in range(seen[r])]
        s, e = (np.array([x[:, w, r] for w, r in places]).ravel() for x in (scores, effects))
        assert group["edges"] == len(places)
        assert group["pearson"] == pytest.approx(np.corrcoef(s, e)[0, 1], rel=1e-5)
    last = [(seen[r] - 1, r) for r in range(len(kinds))]
    assert found["by_distance"]["0"]["edges"] == len(last)
    assert set(found["by_reader"]) == {"q", "k", "v", "mlp", "logits"}


def test_edges_without_a_derivative_are_named_and_left_out_of_measurable(pairs):
    scores, effects = pairs
    found = agreement(scores, effects)
    assert found["not_measurable"] == ["input -> a0<q>", "input -> a0<k>", "input -> a0<v>"]
    assert agreement(scores, effects, estimator="branch")["not_measurable"] == []
    cut = edge_mask(LAYERS)
    cut[0, :3] = False
    expected = np.corrcoef(scores[:, cut].ravel(), effects[:, cut].ravel())[0, 1]
    assert found["measurable"]["pearson"] == pytest.approx(expected, rel=1e-5)


def test_intervals_hold_the_value_and_have_the_width_of_samples_drawn_anew(pairs):
    scores, effects = pairs
    found = agreement(scores, effects)
    for key, (low, high) in found["intervals"].items():
        assert low < found[key] < high
    draw, cut = np.random.default_rng(1), edge_mask(LAYERS)
    again = []
    for _ in range(300):
        rows = draw.integers(0, SAMPLES, SAMPLES)
        again.append(np.corrcoef(scores[rows][:, cut].ravel(), effects[rows][:, cut].ravel())[0, 1])
    low, high = np.quantile(again, (0.025, 0.975))
    assert np.subtract(*found["intervals"]["pearson"]) == pytest.approx(low - high, rel=0.25)


def test_sampled_edges_and_one_sample_are_enough(pairs):
    scores, effects = pairs
    few = np.full_like(effects[:1], np.nan)
    for place in [(0, 3), (1, 5), (2, 4)]:
        few[(0, *place)] = effects[(0, *place)]
    found = agreement(scores[:1], few)
    assert (found["edges"], found["samples"]) == (3, 1)
    assert math.isfinite(found["pearson"])
    assert all(map(math.isnan, found["intervals"]["pearson"]))


def test_scores_of_zero_correlate_with_nothing(pairs):
    _, effects = pairs
    found = agreement(np.zeros_like(effects), effects)
    assert math.isnan(found["pearson"])
    assert (found["sign"], found["size_ratio"]) == (0.0, 0.0)


def test_arrays_that_do_not_fit_are_refused(pairs):
    scores, effects = pairs
    with pytest.raises(ValueError, match="one shape"):
        agreement(scores[:3], effects)
    with pytest.raises(ValueError, match="at least one edge"):
        agreement(scores, np.full_like(effects, np.nan))
