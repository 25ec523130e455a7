"""One side of a cell: responses in, score matrices out."""

import collections
import dataclasses
import math
import time

import jax
import numpy as np
from tqdm import tqdm

from converters.load import Checkpoint
from converters.stored import StoredWeights
from eap_jax.attribution import Estimator, attribute_prefixes
from eap_jax.batching import PaddedBatch, Text, put_rows, split_rows
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_mask, reader_kinds
from eap_jax.metrics import column_sum_residual
from eap_jax.objective import Objective, self_entropy
from eap_jax.sharding import gathered, layout, make_mesh, place_batch
from eap_jax.steps import Attribution
from eap_jax.streaming import Work, attribute_streamed
from experiments.out_of_memory import Halving
from experiments.scoring.memory import fitting_batches, streamed_batches
from experiments.study.footprint import Placed, activation_bytes, write_bytes
from experiments.study.numerics import Numerics, reported_scores, weight_dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Score matrices of one model's responses, in the order of the texts.

    Attributes:
      scores_nWR: float32 [n, W, R], granularity qkv.
      losses_n: float32 [n], self-entropy in nats.
      loss_parts_nJ: float32 [n, J], each counted answer token's part of the loss.
      gradient_norms_n: float32 [n], see `eap_jax.steps.Attribution`.
      health: column-sum residual of the scores before the published running sum, without the
        readers of `ModelConfig.raw_reads`; NaN where the estimator's columns need not add up to
        zero.
    """

    scores_nWR: np.ndarray
    losses_n: np.ndarray
    loss_parts_nJ: np.ndarray
    gradient_norms_n: np.ndarray
    health: float


class _Collected:
    """Scores and losses of each cut, filled in batch by batch, with a progress bar over texts."""

    def __init__(
        self,
        config: ModelConfig,
        texts: list[Text],
        cuts: int,
        description: str,
        patience: float = 0.0,
    ):
        kinds = reader_kinds(config.num_layers)
        self._measured_R = np.asarray([kind not in config.raw_reads for kind in kinds])
        count, targets = len(texts), max(len(text.targets) for text in texts)
        shape = (count, *edge_mask(config.num_layers).shape)
        self.scores_AnWR = [np.empty(shape, np.float32) for _ in range(cuts)]
        self.losses_An = [np.empty(count, np.float32) for _ in range(cuts)]
        self.norms_An = [np.empty(count, np.float32) for _ in range(cuts)]
        self.parts_AnJ = [np.empty((count, targets), np.float32) for _ in range(cuts)]
        self.progress = tqdm(total=count, desc=description, unit="sample", delay=patience)
        self._description = description
        self._begin, self._tokens = time.perf_counter(), 0

    def add(self, padded: PaddedBatch, results: tuple[Attribution, ...]) -> None:
        for place, found in enumerate(results):
            for ordered, result in (
                (self.scores_AnWR, found.scores_BWR),
                (self.losses_An, found.loss_B),
                (self.norms_An, found.gradient_norm_B),
            ):
                put_rows(ordered[place], padded, gathered(result))
            losses_BJ = gathered(found.target_losses_BJ)
            put_rows(self.parts_AnJ[place], padded, losses_BJ * padded.weights_ABJ[place])
        self._tokens += padded.tokens
        self.progress.update(len(padded.indices))
        rate = self._tokens / (time.perf_counter() - self._begin)
        self.progress.set_postfix_str(f"{rate:.0f} tokens/s")

    def warn(self, shortage: str | None) -> None:
        """Say what the plan lacks: out of memory is an event, so the work goes on all the same."""
        if shortage is not None:
            self.progress.write(f"{self._description}: warning: {shortage}; the run goes on")

    def scores(self, numerics: Numerics, estimator: Estimator) -> list[Scores]:
        self.progress.close()
        return [
            Scores(
                scores_nWR=reported_scores(scores_nWR, numerics),
                losses_n=self.losses_An[place],
                loss_parts_nJ=self.parts_AnJ[place],
                gradient_norms_n=self.norms_An[place],
                health=column_sum_residual(scores_nWR, self._measured_R)
                if estimator == "eap"
                else math.nan,
            )
            for place, scores_nWR in enumerate(self.scores_AnWR)
        ]


def score_texts(
    checkpoint: Checkpoint,
    texts: list[Text],
    *,
    cuts: tuple[int, ...] = (),
    numerics: Numerics,
    batch_tokens: int,
    mesh: jax.sharding.Mesh,
    objective: Objective = self_entropy,
    estimator: Estimator = "eap",
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
      batch_tokens: the most tokens that go through the model at once; fewer where more do not fit,
        and a line says so where even one text does not.
      mesh: devices.
      objective: what is differentiated, instead of the loss.
      estimator: see `eap_jax.attribution.attribute_prefixes`.
      description: label of the progress bar.
      patience: seconds before it appears.

    Returns:
      one `Scores` a cut; they do not depend on `batch_tokens`, the mesh or the other cuts beyond
      rounding.

    Raises:
      OutOfMemoryError: a quarter of the first batch does not fit in memory, or one row.
    """
    dtype = jax.tree.leaves(checkpoint.params)[0].dtype.name
    model = Placed(config=checkpoint.config, dtype=dtype, mesh=mesh)
    fitting = fitting_batches(
        model, texts, batch_tokens=batch_tokens, cuts=cuts, branch=estimator == "branch"
    )
    collected = _Collected(checkpoint.config, texts, len(cuts) or 1, description, patience)
    collected.warn(fitting.shortage)
    most = max(padded.batch.tokens_BT.size for padded in fitting.batches)
    together = Halving(most, f"tokens of {description}", collected.progress.write)
    work, ways = collections.deque(fitting.batches), mesh.shape["data"]
    while work:
        padded = work.popleft()
        rows, width = padded.batch.tokens_BT.shape
        at_once = max(1, together.size // width // ways) * ways
        if rows > at_once:
            work.extendleft(reversed(split_rows(padded, at_once)))
            continue
        try:
            batch, weights_ABJ = place_batch((padded.batch, padded.weights_ABJ), mesh)
            results = attribute_prefixes(
                checkpoint.params,
                batch,
                weights_ABJ,
                lengths=padded.lengths,
                config=checkpoint.config,
                objective=objective,
                remat=fitting.remat,
                layout=layout(mesh, width),
                most_logits=fitting.most_logits,
                estimator=estimator,
                together=fitting.together(padded),
            )
            collected.add(padded, results)
        except Exception as error:
            together.after(error, failed=rows * width, least=ways * width)
            work.appendleft(padded)
    return collected.scores(numerics, estimator)


def score_streamed(
    weights: StoredWeights,
    texts: list[Text],
    *,
    cuts: tuple[int, ...] = (),
    numerics: Numerics,
    batch_tokens: int,
    kept_bytes: int,
    objective: Objective = self_entropy,
    estimator: Estimator = "eap",
    description: str = "attribute",
) -> list[Scores]:
    """The same as `score_texts`, reading the weights layer by layer.

    Args:
      weights: the model on disk.
      texts, cuts, numerics, batch_tokens, objective, estimator, description: see `score_texts`.
      kept_bytes: memory for what stays between the layers. As many batches share each reading of
        the weights as fit in it; what is left keeps activations, so that fewer layers are computed
        twice.

    Returns:
      see `score_texts`.
    """
    config = weights.config
    model = Placed(config=config, dtype=weight_dtype(numerics), mesh=make_mesh(""))
    fitting = streamed_batches(
        model,
        texts,
        batch_tokens=batch_tokens,
        cuts=cuts,
        kept_bytes=kept_bytes,
        branch=estimator == "branch",
    )
    collected, batches = _Collected(config, texts, len(cuts) or 1, description), fitting.batches
    collected.warn(fitting.shortage)
    itemsize = model.itemsize
    tokens = max(padded.batch.tokens_BT.size for padded in batches)
    writes = write_bytes(config, tokens, itemsize)
    activations = activation_bytes(config, tokens, itemsize)
    kept = Halving(kept_bytes >> 20, f"MiB kept for {description}", collected.progress.write)
    first = 0
    while first < len(batches):
        room = kept.size << 20
        together = max(1, min(len(batches), room // writes))
        keep_layers = min(
            config.num_layers, max(0, (room - together * writes) // (together * activations))
        )
        part = batches[first : first + together]
        work = [Work(batch=p.batch, weights_ABJ=p.weights_ABJ, lengths=p.lengths) for p in part]
        steps = tqdm(total=2 * config.num_layers, desc="layers there and back", leave=False)
        try:
            with steps:
                found = attribute_streamed(
                    weights,
                    work,
                    config=config,
                    objective=objective,
                    keep_layers=keep_layers,
                    estimator=estimator,
                    progress=steps.update,
                )
            for padded, results in zip(part, found, strict=True):
                collected.add(padded, results)
        except Exception as error:
            kept.after(error)
            continue
        first += together
    return collected.scores(numerics, estimator)
