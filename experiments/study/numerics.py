"""In what precision answers and scores are computed, and the published program's running sum.

Answers are generated in the checkpoint's own dtype, whatever the numerics: it is the model that its
users ask, and at 7B it is half the memory. The numerics below are those of scores.

float32     weights, activations and scores in float32, matrix products at full precision.
bfloat16    weights and activations in bfloat16, each sample's scores summed in float32.
published   as bfloat16, and each sample's scores are the difference of two running sums over the
            samples, held in bfloat16 as in the paper's program. The sum grows while its 8 bits of
            precision stay, so sample i loses about log2(i) bits: averages survive, the metrics that
            look at single samples do not.
"""

from typing import Literal

import jax
import ml_dtypes
import numpy as np

Numerics = Literal["float32", "bfloat16", "published"]
NUMERICS: tuple[Numerics, ...] = ("float32", "bfloat16", "published")


def weight_dtype(numerics: Numerics) -> str:
    """Dtype of weights and activations."""
    return "float32" if numerics == "float32" else "bfloat16"


def product_precision(dtype: str) -> str:
    """JAX's name for exact matrix products: GPUs round float32 operands unless told not to."""
    return "highest" if dtype == "float32" else "default"


def use_numerics(numerics: Numerics) -> None:
    """Set the precision of matrix products."""
    jax.config.update("jax_default_matmul_precision", product_precision(numerics))


def reported_scores(scores_nWR: np.ndarray, numerics: Numerics) -> np.ndarray:
    """Scores as the chosen numerics reports them, float32 [n, W, R], samples in selection order."""
    if numerics != "published":
        return scores_nWR
    return running_sum_differences(scores_nWR)


def running_sum_differences(scores_nWR: np.ndarray) -> np.ndarray:
    """Each sample's scores as the step of a running sum that is rounded to bfloat16.

    Args:
      scores_nWR: scores in the order in which the program met the samples.

    Returns:
      float32 [n, W, R] of bfloat16 values, as all entries of the paper's files are.
    """
    total = np.zeros(scores_nWR.shape[1:], ml_dtypes.bfloat16)
    steps = np.empty(scores_nWR.shape, np.float32)
    for number, scores_WR in enumerate(scores_nWR.astype(ml_dtypes.bfloat16)):
        # bfloat16 + bfloat16 rounds once, to bfloat16.
        grown = (total.astype(np.float32) + scores_WR.astype(np.float32)).astype(ml_dtypes.bfloat16)
        step = grown.astype(np.float32) - total.astype(np.float32)
        steps[number] = step.astype(ml_dtypes.bfloat16)
        total = grown
    return steps
