"""The paper's formulas on score matrices, one function a statistic (numpy, float64).

How a statistic is named, resampled, tested and shown: `experiments.statistics.metrics`.

All take `scores_nWR`: n score matrices [n, W, R], one a sample. `support_WR` chooses the entries
that count: None takes the whole matrix, the structural zeros included, as published; a boolean mask
such as `graph.edge_mask` takes the real edges only.

Shared behaviour: an input that is empty, not of rank 3, or holds a NaN or an infinity raises
ValueError. A statistic that is not defined for a valid input (the kurtosis of a constant matrix,
the diversity of one sample) is NaN. Source of every formula: arXiv 2509.21044; what the paper
leaves open is an argument.
"""

import math

import numpy as np
import scipy.stats


def intensity(scores_nWR: np.ndarray, support_WR: np.ndarray | None = None) -> float:
    """Act.Intens.: the mean of |W(k)_oi| over samples k, writers o and readers i."""
    return float(np.abs(_entries(scores_nWR, support_WR)).mean())


def complexity(
    scores_nWR: np.ndarray,
    support_WR: np.ndarray | None = None,
    *,
    bins: int = 100,
    upper: float | None = None,
    eps: float = 1e-12,
) -> float:
    """Info.Complex.: Shannon entropy, in nats, of the histogram of all |W(k)_oi| pooled.

    -sum_b p_b log(p_b + eps) over `bins` equal bins of [0, upper].

    Args:
      scores_nWR: score matrices.
      support_WR: entries that count.
      bins: number of bins. The paper does not state it; 100 gives values of the published size.
      upper: end of the last bin, or None for the largest |W|. Give both sides of a pair the same
        `upper` to compare shapes on one scale. Larger values are counted in the last bin.
      eps: keeps the logarithm finite in empty bins.

    Returns:
      Nats in [0, log(bins)]; 0 if every entry is zero.
    """
    return _histogram_entropy(_entries(scores_nWR, support_WR), bins, upper, eps)


def kurtosis(scores_nWR: np.ndarray, support_WR: np.ndarray | None = None) -> float:
    """Dist.Kurt.: mean over samples of the excess kurtosis of the entries of W(k).

    m4 / m2^2 - 3 with population moments, so 0 for a normal distribution. NaN if the entries of
    some sample are all equal.
    """
    return float(kurtosis_per_sample(scores_nWR, support_WR).mean())


def kurtosis_per_sample(scores_nWR: np.ndarray, support_WR: np.ndarray | None = None) -> np.ndarray:
    """Excess kurtosis of each sample's entries, [n]; NaN where they are all equal."""
    entries_nE = _entries(scores_nWR, support_WR)
    kurtosis_n = np.full(len(entries_nE), math.nan)
    # The variance of equal entries may be rounding instead of zero; their range is exactly zero.
    varied_n = np.ptp(entries_nE, axis=1) > 0
    if varied_n.any():
        # Scores can be as small as 1e-30; their fourth power would underflow.
        scaled = entries_nE[varied_n] / np.abs(entries_nE[varied_n]).max(axis=1, keepdims=True)
        kurtosis_n[varied_n] = scipy.stats.kurtosis(scaled, axis=1, fisher=True, bias=True)
    return kurtosis_n


def intensity_per_sample(
    scores_nWR: np.ndarray, support_WR: np.ndarray | None = None
) -> np.ndarray:
    """Mean |W(k)_oi| of each sample, [n]."""
    return np.abs(_entries(scores_nWR, support_WR)).mean(axis=1)


def diversity(scores_nWR: np.ndarray, support_WR: np.ndarray | None = None) -> float:
    """Inter-sample diversity (figure 3a): 1 - mean Pearson correlation over all pairs of samples.

    NaN for fewer than two samples, or if the entries of some sample are all equal.
    """
    entries_nE = _entries(scores_nWR, support_WR)
    if len(entries_nE) < 2 or not (np.ptp(entries_nE, axis=1) > 0).all():
        return math.nan
    centred = entries_nE / np.abs(entries_nE).max(axis=1, keepdims=True)
    centred -= centred.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    correlation_nn = centred @ centred.T
    return float(1 - correlation_nn[np.triu_indices(len(centred), k=1)].mean())


def output_entropy(
    scores_nWR: np.ndarray, *, bins: int = 100, upper: float | None = None, eps: float = 1e-12
) -> float:
    """Output-edge entropy (figure 3b): histogram entropy, in nats, of |W| in the `logits` column.

    The last column, in which every writer has an edge. Arguments as in `complexity`.
    """
    return _histogram_entropy(_entries(scores_nWR, None, column=-1), bins, upper, eps)


def entropy_of_strengths(scores_nWR: np.ndarray, support_WR: np.ndarray | None = None) -> float:
    """Mean over samples of the entropy, in nats, of |W(k)| / sum |W(k)|.

    How evenly a sample's strength is spread over its edges, whatever its scale: no histogram, no
    range. The exponential of it is the number of equally strong edges that would be as even. Not in
    the paper. NaN if every score of some sample is zero.
    """
    return float(entropy_of_strengths_per_sample(scores_nWR, support_WR).mean())


def entropy_of_strengths_per_sample(
    scores_nWR: np.ndarray, support_WR: np.ndarray | None = None
) -> np.ndarray:
    """Entropy of |W(k)| / sum |W(k)| of each sample, nats, [n]; NaN where all scores are zero."""
    magnitudes_nE = np.abs(_entries(scores_nWR, support_WR))
    totals_n1 = magnitudes_nE.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares_nE = magnitudes_nE / totals_n1
    return scipy.stats.entropy(shares_nE, axis=1)


def column_sum_residual(scores_nWR: np.ndarray, readers_R: np.ndarray | None = None) -> float:
    """Health of the scores: sum over columns of |column sum| / sum of |score|, 0 at best.

    The writers before a reader sum to what it reads, and RMSNorm does not change with its input's
    scale, so each column sums to zero up to the norm's epsilon and rounding. About 1e-6 in float32
    and 3e-3 in bfloat16; a missing, doubled or misplaced writer gives a value of order 1. NaN if
    every score is zero.

    Args:
      scores_nWR: score matrices.
      readers_R: bool, columns that are looked at: those of `ModelConfig.raw_reads` say nothing.
        None: all.
    """
    if readers_R is not None:
        scores_nWR = np.asarray(scores_nWR)[:, :, readers_R]
    entries_nE = _entries(scores_nWR, None)
    total = np.abs(entries_nE).sum()
    if total == 0:
        return math.nan
    return float(np.abs(entries_nE.reshape(np.shape(scores_nWR)).sum(axis=1)).sum() / total)


def _entries(scores_nWR, support_WR, column: int | None = None) -> np.ndarray:
    """Checked entries that count, one row a sample: [n, E] float64."""
    scores_nWR = np.asarray(scores_nWR, np.float64)
    if scores_nWR.ndim != 3 or scores_nWR.size == 0:
        raise ValueError(f"scores: expected [n, W, R], none of them 0, found {scores_nWR.shape}")
    if not np.isfinite(scores_nWR).all():
        sample, writer, reader = np.argwhere(~np.isfinite(scores_nWR))[0]
        raise ValueError(
            f"scores: expected finite numbers, found {scores_nWR[sample, writer, reader]} in "
            f"sample {sample}, writer {writer}, reader {reader}"
        )
    if column is not None:
        return scores_nWR[:, :, column]
    if support_WR is None:
        return scores_nWR.reshape(len(scores_nWR), -1)
    support_WR = np.asarray(support_WR)
    if support_WR.dtype != bool or support_WR.shape != scores_nWR.shape[1:]:
        raise ValueError(
            f"support: expected a boolean mask {scores_nWR.shape[1:]}, found {support_WR.dtype} "
            f"{support_WR.shape}"
        )
    if not support_WR.any():
        raise ValueError("support: no entry is left")
    return scores_nWR[:, support_WR]


def _histogram_entropy(entries: np.ndarray, bins: int, upper: float | None, eps: float) -> float:
    if bins < 1 or eps <= 0 or (upper is not None and not upper > 0):
        raise ValueError(f"histogram: bins {bins}, upper {upper} and eps {eps} must be positive")
    magnitudes = np.abs(entries).ravel()
    upper = magnitudes.max() if upper is None else upper
    if upper == 0:
        return 0.0
    counts, _ = np.histogram(np.minimum(magnitudes / upper, 1.0), bins=bins, range=(0.0, 1.0))
    shares = counts / magnitudes.size
    return float(max(0.0, -(shares * np.log(shares + eps)).sum()))
