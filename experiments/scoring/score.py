"""One side of a cell: responses in, score matrices out."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from converters.load import Checkpoint
from converters.stored import StoredWeights
from eap_jax.attribution import attribute_prefixes
from eap_jax.batching import PaddedBatch, Text, pad_into_batches, put_rows
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_mask
from eap_jax.metrics import column_sum_residual
from eap_jax.sharding import layout, place_batch
from eap_jax.steps import Attribution
from eap_jax.streaming import Work, attribute_streamed
from experiments.scoring.distributed import gathered
from experiments.scoring.memory import fitting_batches
from experiments.study.footprint import Placed, activation_bytes, write_bytes
from experiments.study.numerics import Numerics, reported_scores, weight_dtype


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


class _Collected:
    """Scores and losses of each cut, filled in batch by batch, with a progress bar over texts."""

    def __init__(
        self, config: ModelConfig, count: int, cuts: int, description: str, patience: float = 0.0
    ):
        shape = (count, *edge_mask(config.num_layers).shape)
        self.scores_AnWR = [np.empty(shape, np.float32) for _ in range(cuts)]
        self.losses_An = [np.empty(count, np.float32) for _ in range(cuts)]
        self.progress = tqdm(total=count, desc=description, unit="sample", delay=patience)
        self._begin, self._tokens = time.perf_counter(), 0

    def add(self, padded: PaddedBatch, results: tuple[Attribution, ...]) -> None:
        filled = zip(results, self.scores_AnWR, self.losses_An, strict=True)
        for found, scores_nWR, losses_n in filled:
            put_rows(scores_nWR, padded, gathered(found.scores_BWR))
            put_rows(losses_n, padded, gathered(found.loss_B))
        self._tokens += padded.tokens
        self.progress.update(len(padded.indices))
        rate = self._tokens / (time.perf_counter() - self._begin)
        self.progress.set_postfix_str(f"{rate:.0f} tokens/s")

    def scores(self, numerics: Numerics) -> list[Scores]:
        self.progress.close()
        return [
            Scores(
                scores_nWR=reported_scores(scores_nWR, numerics),
                losses_n=losses_n,
                health=column_sum_residual(scores_nWR),
            )
            for scores_nWR, losses_n in zip(self.scores_AnWR, self.losses_An, strict=True)
        ]


def score_texts(
    checkpoint: Checkpoint,
    texts: list[Text],
    *,
    cuts: tuple[int, ...] = (),
    numerics: Numerics,
    batch_tokens: int,
    mesh: jax.sharding.Mesh,
    description: str = "attribute",
    patience: float = 0.0,
) -> list[Scores]:
    """Attribute all edges of every text, once for each number of targets that count.

    Args:
      checkpoint: the model, its parameters on the mesh.
      texts: what to read and predict.
      cuts: numbers of targets that count, one a result; they share the forward pass. Without any
        there is one result, in which every target counts.
      numerics: see numerics.py; the parameters already have its dtype.
      batch_tokens: the most tokens that go through the model at once; fewer where more do not fit.
      mesh: devices.
      description: label of the progress bar.
      patience: seconds before it appears.

    Returns:
      one `Scores` a cut; they do not depend on `batch_tokens`, the mesh or the other cuts beyond
      rounding.
    """
    dtype = jax.tree.leaves(checkpoint.params)[0].dtype.name
    model = Placed(config=checkpoint.config, dtype=dtype, mesh=mesh)
    fitting = fitting_batches(model, texts, batch_tokens=batch_tokens, cuts=cuts)
    collected = _Collected(checkpoint.config, len(texts), len(cuts) or 1, description, patience)
    for padded in fitting.batches:
        batch, weights_ABJ = place_batch((padded.batch, padded.weights_ABJ), mesh)
        results = attribute_prefixes(
            checkpoint.params,
            batch,
            weights_ABJ,
            lengths=padded.lengths,
            config=checkpoint.config,
            remat=fitting.remat,
            layout=layout(mesh, batch.tokens_BT.shape[1]),
            most_logits=fitting.most_logits,
        )
        collected.add(padded, results)
    return collected.scores(numerics)


def score_streamed(
    weights: StoredWeights,
    texts: list[Text],
    *,
    cuts: tuple[int, ...] = (),
    numerics: Numerics,
    batch_tokens: int,
    kept_bytes: int,
    description: str = "attribute",
) -> list[Scores]:
    """The same as `score_texts`, reading the weights layer by layer.

    Args:
      weights: the model on disk.
      texts, cuts, numerics, batch_tokens, description: see `score_texts`.
      kept_bytes: memory for what stays between the layers. As many batches share each reading of
        the weights as fit in it; what is left keeps activations, so that fewer layers are computed
        twice.

    Returns:
      see `score_texts`.
    """
    config = weights.config
    batches = pad_into_batches(texts, batch_tokens=batch_tokens, cuts=cuts)
    collected = _Collected(config, len(texts), len(cuts) or 1, description)
    itemsize = jnp.dtype(weight_dtype(numerics)).itemsize
    tokens = max(padded.batch.tokens_BT.size for padded in batches)
    writes = write_bytes(config, tokens, itemsize)
    activations = activation_bytes(config, tokens, itemsize)
    together = max(1, min(len(batches), kept_bytes // writes))
    room = kept_bytes - together * writes
    keep_layers = min(config.num_layers, max(0, room // (together * activations)))
    for first in range(0, len(batches), together):
        part = batches[first : first + together]
        work = [Work(batch=p.batch, weights_ABJ=p.weights_ABJ, lengths=p.lengths) for p in part]
        steps = tqdm(total=2 * config.num_layers, desc="layers there and back", leave=False)
        with steps:
            found = attribute_streamed(
                weights, work, config=config, keep_layers=keep_layers, progress=steps.update
            )
        for padded, results in zip(part, found, strict=True):
            collected.add(padded, results)
    return collected.scores(numerics)
