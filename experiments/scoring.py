"""One side of a cell: responses in, score matrices out."""

import dataclasses
import time

import jax
import numpy as np
from tqdm import tqdm

from converters.loading import Checkpoint
from eap_jax.attribution import attribute_prefixes
from eap_jax.graph import edge_mask
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
    """

    scores_nWR: np.ndarray
    losses_n: np.ndarray
    health: float


def score_texts(
    checkpoint: Checkpoint,
    texts: list[Text],
    *,
    cuts: tuple[int, ...] = (),
    numerics: Numerics,
    batch_tokens: int,
    mesh: jax.sharding.Mesh,
    description: str = "attribute",
) -> list[Scores]:
    """Attribute all edges of every text, once for each number of targets that count.

    Args:
      checkpoint: the model, its parameters on the mesh.
      texts: what to read and predict.
      cuts: numbers of targets that count, one a result; they share the forward pass. None: all.
      numerics: see numerics.py; the parameters already have its dtype.
      batch_tokens: about how many tokens go through the model at once.
      mesh: devices.
      description: label of the progress bar.

    Returns:
      one `Scores` a cut; they do not depend on `batch_tokens`, the mesh or the other cuts beyond
      rounding.
    """
    begin = time.perf_counter()
    batches = pad_into_batches(
        texts, batch_tokens=batch_tokens, multiple=mesh.shape["data"], cuts=cuts
    )
    shape = (len(texts), *edge_mask(checkpoint.config.num_layers).shape)
    scores_AnWR = [np.empty(shape, np.float32) for _ in cuts or (0,)]
    losses_An = [np.empty(len(texts), np.float32) for _ in scores_AnWR]
    tokens = 0
    with tqdm(total=len(texts), desc=description, unit="sample") as progress:
        for padded in batches:
            batch, weights_ABJ = place_batch((padded.batch, padded.weights_ABJ), mesh)
            results = attribute_prefixes(
                checkpoint.params,
                batch,
                weights_ABJ,
                lengths=padded.lengths,
                config=checkpoint.config,
            )
            rows = list(padded.indices)
            for found, scores_nWR, losses_n in zip(results, scores_AnWR, losses_An, strict=True):
                scores_nWR[rows] = np.asarray(found.scores_BWR)[: len(rows)]
                losses_n[rows] = np.asarray(found.loss_B)[: len(rows)]
            tokens += padded.tokens
            progress.update(len(rows))
            progress.set_postfix_str(f"{tokens / (time.perf_counter() - begin):.0f} tokens/s")
    return [
        Scores(
            scores_nWR=finish(scores_nWR, numerics),
            losses_n=losses_n,
            health=column_sum_residual(scores_nWR),
        )
        for scores_nWR, losses_n in zip(scores_AnWR, losses_An, strict=True)
    ]
