"""One side of a cell: responses in, score matrices out."""

import dataclasses
import time

import jax
import numpy as np
from tqdm import tqdm

from converters.loading import Checkpoint
from eap_jax.attribution import attribute
from eap_jax.metrics import column_sum_residual
from eap_jax.sharding import place_batch
from experiments.batching import pad_into_batches
from experiments.numerics import Numerics, finish
from experiments.selection import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Score matrices of one model's responses, in the order of the texts.

    Attributes:
      scores_nWR: float32 [n, W, R], granularity qkv.
      losses_n: float32 [n], self-entropy in nats.
      health: column-sum residual of the scores before the published running sum.
      tokens: real tokens read.
      seconds: wall time, compilation included.
    """

    scores_nWR: np.ndarray
    losses_n: np.ndarray
    health: float
    tokens: int
    seconds: float


def score_texts(
    checkpoint: Checkpoint,
    texts: list[Text],
    *,
    numerics: Numerics,
    batch_tokens: int,
    mesh: jax.sharding.Mesh,
    description: str = "attribute",
) -> Scores:
    """Attribute all edges of every text.

    Args:
      checkpoint: the model, its parameters on the mesh.
      texts: what to read and predict.
      numerics: see numerics.py; the parameters already have its dtype.
      batch_tokens: about how many tokens go through the model at once.
      mesh: devices.
      description: label of the progress bar.

    Returns:
      `Scores`; they do not depend on `batch_tokens` or the mesh beyond rounding.
    """
    begin = time.perf_counter()
    batches = pad_into_batches(texts, batch_tokens=batch_tokens, multiple=mesh.shape["data"])
    scores_nWR, losses_n, tokens = None, np.empty(len(texts), np.float32), 0
    with tqdm(total=len(texts), desc=description, unit="sample") as progress:
        for padded in batches:
            found = attribute(
                checkpoint.params, place_batch(padded.batch, mesh), config=checkpoint.config
            )
            scores_BWR = np.asarray(found.scores_BWR)
            if scores_nWR is None:
                scores_nWR = np.empty((len(texts), *scores_BWR.shape[1:]), np.float32)
            rows = list(padded.indices)
            scores_nWR[rows] = scores_BWR[: len(rows)]
            losses_n[rows] = np.asarray(found.loss_B)[: len(rows)]
            tokens += padded.tokens
            progress.update(len(rows))
            progress.set_postfix_str(f"{tokens / (time.perf_counter() - begin):.0f} tokens/s")
    return Scores(
        scores_nWR=finish(scores_nWR, numerics),
        losses_n=losses_n,
        health=column_sum_residual(scores_nWR),
        tokens=tokens,
        seconds=time.perf_counter() - begin,
    )
