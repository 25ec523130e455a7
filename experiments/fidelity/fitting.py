"""The batches that edges are cut in and circuits are run in, as large as the plan allows.

The same texts as attribution's, but other programs: nothing is kept for a way back, and each edge
that is cut together with others has a copy of the batch.
"""

import dataclasses

from eap_jax.batching import PaddedBatch, Text
from experiments.scoring.memory import padded_batches
from experiments.study.cards import usable_on
from experiments.study.fidelity_footprint import Run
from experiments.study.fidelity_plan import (
    Count,
    count_of_circuits,
    count_of_cuts,
    edges_together,
    logits_at_once,
)
from experiments.study.footprint import Placed
from experiments.study.plan import halves, room_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittingRuns:
    """Batches, and how much of them runs at once.

    Attributes:
      batches: of all texts.
      most_logits: of the output head at once.
      most_tokens: that the plan let go through the model at once.
      runs: one a shape of its batches, with the edges that are cut together.
    """

    batches: list[PaddedBatch]
    most_logits: int
    most_tokens: int
    runs: tuple[Run, ...]

    def rows(self, padded: PaddedBatch) -> int:
        """Rows that go through the model at once: those of a batch, once for each edge cut."""
        shape = padded.batch.tokens_BT.shape
        (edges,) = {run.edges for run in self.runs if (run.rows, run.length) == shape}
        return edges * shape[0]


def cut_batches(
    model: Placed,
    texts: list[Text],
    *,
    batch_tokens: int,
    cuts: tuple[int, ...],
    kept_bytes: int | None,
) -> FittingRuns:
    """The largest batches in which edges can be cut, and how many edges together.

    Args:
      model: on a mesh of devices.
      texts, cuts: see `batching.pad_into_batches`.
      batch_tokens: the most tokens of a batch.
      kept_bytes: between the layers where the weights are streamed, or None.
    """
    count = count_of_cuts(model, kept_bytes)
    found = _fitting(model, count, texts, batch_tokens, cuts, kept_bytes)
    # In memory no more tokens at once than the largest batch has: only small ones have copies.
    most = max(run.tokens for run in found.runs) if kept_bytes is None else found.most_tokens
    usable = usable_on(model.mesh)
    runs = tuple(
        dataclasses.replace(run, edges=edges_together(count, run, usable, most))
        for run in found.runs
    )
    return dataclasses.replace(found, runs=runs)


def circuit_batches(
    model: Placed, texts: list[Text], *, batch_tokens: int, kept_bytes: int | None
) -> FittingRuns:
    """The largest batches in which circuits can run; arguments as in `cut_batches`."""
    count = count_of_circuits(model, kept_bytes)
    return _fitting(model, count, texts, batch_tokens, (), kept_bytes)


def _fitting(
    model: Placed,
    count: Count,
    texts: list[Text],
    batch_tokens: int,
    cuts: tuple[int, ...],
    kept_bytes: int | None,
) -> FittingRuns:
    usable = usable_on(model.mesh)
    longest = model.mesh.shape["data"] * max(len(text.tokens) for text in texts)
    logits = logits_at_once(model, usable, kept_bytes)
    for tokens in halves(batch_tokens, longest):
        batches = padded_batches(model, texts, tokens, cuts)
        runs = {
            padded.batch.tokens_BT.shape: Run(
                rows=len(padded.batch.tokens_BT),
                length=padded.batch.tokens_BT.shape[1],
                targets=padded.batch.targets_BJ.shape[1],
                most_logits=logits,
            )
            for padded in batches
        }
        if max(count(run).total for run in runs.values()) <= room_for(usable):
            break
    return FittingRuns(
        batches=batches, most_logits=logits, most_tokens=tokens, runs=tuple(runs.values())
    )
