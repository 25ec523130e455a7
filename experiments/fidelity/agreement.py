"""How well scores predict what cutting an edge really does.

Over pairs of a score and an exact effect, one a sample and edge:
    pearson, spearman   correlations
    sign                share of pairs with the same sign
    top10               how many of a sample's 10 strongest effects are among its 10 strongest scores
    size_ratio          mean |score| / mean |effect|
Intervals come from resampling samples, since the edges of one sample are not independent. Ranks are
those of all pairs; a resample does not rank anew.

Axes: m samples, W writers, R readers, E edges that were cut, Z resamples.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats

from eap_jax.attribution import not_measurable
from eap_jax.graph import (
    edge_mask,
    edge_name,
    num_layers_of,
    reader_kinds,
)
from experiments.fidelity.choice import DISTANCE_STARTS, distance_groups, distance_label

_TOP = 10
_RESAMPLES = 1000


def agreement(
    scores_mWR: np.ndarray, effects_mWR: np.ndarray, *, estimator: str = "eap", seed: int = 0
) -> dict[str, Any]:
    """Agreement of scores with exact effects.

    Args:
      scores_mWR: finite scores of the samples whose edges were cut.
      effects_mWR: their effects, NaN where an edge was not cut; the same edges in every sample.
      estimator: what made the scores.
      seed: of the resampling.

    Returns:
      one side of fidelity.json: `estimator`; numbers of `edges` and `samples`; the five figures of
      the module's docstring over all pairs, their 95 % `intervals` and the `per_sample` medians;
      `of_means`, correlations of the edges' means over samples; `by_reader` (q, k, v, mlp, logits)
      and `by_distance` (parts that write between writer and reader), with the number of edges of
      each; `not_measurable`, edges that this estimator gives 0 by construction; and `measurable`,
      the figures without them. What is not defined is NaN.

    Raises:
      ValueError: the arrays do not have one shape, or no edge was cut.
    """
    if scores_mWR.shape != effects_mWR.shape or effects_mWR.ndim != 3:
        raise ValueError(
            f"expected scores and effects of one shape [m, W, R], found {scores_mWR.shape} and "
            f"{effects_mWR.shape}"
        )
    layers = num_layers_of(*effects_mWR.shape[1:])
    cut_WR = edge_mask(layers) & np.isfinite(effects_mWR).all(axis=0)
    if not cut_WR.any():
        raise ValueError("effects: expected at least one edge that was cut in every sample")
    kinds_WR = np.broadcast_to(np.array(reader_kinds(layers)), cut_WR.shape)
    groups_WR = distance_groups(layers)
    alone = not_measurable(estimator, layers)
    measurable_WR = cut_WR.copy()
    for place in alone:
        measurable_WR[place] = False

    def over(chosen_WR: np.ndarray, *, top: bool = False) -> dict[str, Any]:
        return _figures(scores_mWR[:, chosen_WR], effects_mWR[:, chosen_WR], seed, top=top)

    by_reader = {kind: cut_WR & (kinds_WR == kind) for kind in dict.fromkeys(reader_kinds(layers))}
    by_distance = {
        distance_label(group): cut_WR & (groups_WR == group)
        for group in range(len(DISTANCE_STARTS))
    }
    return {
        "estimator": estimator,
        "samples": len(effects_mWR),
        **over(cut_WR, top=True),
        "per_sample": _per_sample(scores_mWR[:, cut_WR], effects_mWR[:, cut_WR]),
        "of_means": dict(
            zip(
                ("pearson", "spearman"),
                _correlations(scores_mWR[:, cut_WR].mean(0), effects_mWR[:, cut_WR].mean(0)),
                strict=True,
            )
        ),
        "by_reader": {name: over(chosen) for name, chosen in by_reader.items() if chosen.any()},
        "by_distance": {name: over(chosen) for name, chosen in by_distance.items() if chosen.any()},
        "not_measurable": [edge_name(*place, layers) for place in alone],
        "measurable": over(measurable_WR, top=True) if measurable_WR.any() else {},
    }


def _figures(
    scores_mE: np.ndarray, effects_mE: np.ndarray, seed: int, *, top: bool
) -> dict[str, Any]:
    """The five figures of some edges, how many these are, and intervals over samples."""
    scores_mE, effects_mE = (np.asarray(x, np.float64) for x in (scores_mE, effects_mE))
    samples = len(scores_mE)
    pearson, spearman = _correlations(scores_mE.ravel(), effects_mE.ravel())
    ranks = [scipy.stats.rankdata(x).reshape(x.shape) for x in (scores_mE, effects_mE)]
    # The sample as it is, then resamples: how often each sample counts.
    weights_Zm = np.ones((1, samples))
    if samples > 1:
        drawn = np.random.default_rng(seed).multinomial(
            samples, np.full(samples, 1 / samples), size=_RESAMPLES
        )
        weights_Zm = np.concatenate([weights_Zm, drawn])
    same_m = (np.sign(scores_mE) == np.sign(effects_mE)).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes_Z = (weights_Zm @ np.abs(scores_mE).mean(axis=1)) / (
            weights_Zm @ np.abs(effects_mE).mean(axis=1)
        )
    resampled = {
        "pearson": _weighted_correlations(scores_mE, effects_mE, weights_Zm),
        "spearman": _weighted_correlations(*ranks, weights_Zm),
        "sign": weights_Zm @ same_m / samples,
        "size_ratio": sizes_Z,
    }
    if top:
        resampled["top10"] = weights_Zm @ _overlaps(scores_mE, effects_mE) / samples
    values = {name: float(values_Z[0]) for name, values_Z in resampled.items()}
    values |= {"pearson": pearson, "spearman": spearman}
    intervals = {name: _percentiles(values_Z[1:]) for name, values_Z in resampled.items()}
    return {"edges": scores_mE.shape[1], **values, "intervals": intervals}


def _correlations(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Pearson and Spearman; NaN where a side is constant or has fewer than two numbers."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan, math.nan
    # Scores may be as small as 1e-30, and their squares 0.
    one = one / np.abs(one).max()
    return (
        float(scipy.stats.pearsonr(one, other).statistic),
        float(scipy.stats.spearmanr(one, other).statistic),
    )


def _weighted_correlations(
    one_mE: np.ndarray, other_mE: np.ndarray, weights_Zm: np.ndarray
) -> np.ndarray:
    """Pearson's correlation over all pairs [Z], each sample counted as often as its weight says."""
    one_mE = one_mE / (np.abs(one_mE).max() or 1.0)
    one_mE, other_mE = one_mE - one_mE.mean(), other_mE - other_mE.mean()
    sums = np.stack([one_mE, other_mE, one_mE**2, other_mE**2, one_mE * other_mE], axis=0).mean(
        axis=2
    )
    one_Z, other_Z, ones_Z, others_Z, both_Z = sums @ weights_Zm.T / len(one_mE)
    with np.errstate(divide="ignore", invalid="ignore"):
        spreads_Z = np.sqrt((ones_Z - one_Z**2) * (others_Z - other_Z**2))
        return (both_Z - one_Z * other_Z) / spreads_Z


def _overlaps(scores_mE: np.ndarray, effects_mE: np.ndarray) -> np.ndarray:
    """How many of the strongest effects are among the strongest scores, [m]."""
    first = [
        np.argsort(-np.abs(x), axis=1, kind="stable")[:, :_TOP] for x in (scores_mE, effects_mE)
    ]
    pairs = zip(*first, strict=True)
    return np.array([len(np.intersect1d(one, other)) for one, other in pairs], np.float64)


def _per_sample(scores_mE: np.ndarray, effects_mE: np.ndarray) -> Mapping[str, float]:
    """Medians over samples of the correlations within a sample."""
    found = [_correlations(*pair) for pair in zip(scores_mE, effects_mE, strict=True)]
    known = np.array([pair for pair in found if all(map(math.isfinite, pair))]).reshape(-1, 2)
    pearson, spearman = np.median(known, axis=0) if len(known) else (math.nan, math.nan)
    return {"pearson": float(pearson), "spearman": float(spearman)}


def _percentiles(values_Z: np.ndarray) -> tuple[float, float]:
    known_Z = values_Z[np.isfinite(values_Z)]
    if not len(known_Z):
        return math.nan, math.nan
    low, high = np.quantile(known_Z, (0.025, 0.975))
    return float(low), float(high)
