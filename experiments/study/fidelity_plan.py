"""How many texts and edges run together while edges are cut and circuits are run, from memory.

A batch is halved until its program fits with one edge cut. Then as many edges are cut together as
fit, and as a full batch has tokens for.
"""

import dataclasses
from collections.abc import Callable

from eap_jax.head import HEAD_LOGITS
from experiments.study.fidelity_footprint import (
    Run,
    circuit_needs,
    cut_needs,
    streamed_circuit_needs,
    streamed_cut_needs,
)
from experiments.study.footprint import Needs, Placed
from experiments.study.plan import halves, head_logits, room_for

# Bytes of a batch.
Count = Callable[[Run], Needs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs:
    """How texts run with edges cut.

    Attributes:
      batch: one batch.
      needs: what the program needs.
      fits: whether it fits.
    """

    batch: Run
    needs: Needs
    fits: bool


def plan_cuts(
    model: Placed,
    usable: int,
    *,
    length: int,
    targets: int,
    most_tokens: int,
    kept_bytes: int | None = None,
) -> Runs:
    """The batch that edges are cut in, and how many together.

    Args:
      model: in the precision of the scores.
      usable: bytes of a device that arrays may take.
      length, targets: of the longest text.
      most_tokens: upper limit of a batch; but a batch holds one text a way of the data axis.
      kept_bytes: between layers where the weights are streamed, or None.
    """
    count = count_of_cuts(model, kept_bytes)
    found = _plan_runs(
        model, count, usable,
        length=length, targets=targets, most_tokens=most_tokens, kept_bytes=kept_bytes,
    )  # fmt: skip
    edges = edges_together(count, found.batch, usable, most_tokens)
    batch = dataclasses.replace(found.batch, edges=edges)
    return dataclasses.replace(found, batch=batch, needs=count(batch))


def plan_circuits(
    model: Placed,
    usable: int,
    *,
    length: int,
    targets: int,
    most_tokens: int,
    kept_bytes: int | None = None,
) -> Runs:
    """The batch that circuits run in; arguments as in `plan_cuts`."""
    count = count_of_circuits(model, kept_bytes)
    return _plan_runs(
        model, count, usable,
        length=length, targets=targets, most_tokens=most_tokens, kept_bytes=kept_bytes,
    )  # fmt: skip


def count_of_cuts(model: Placed, kept_bytes: int | None) -> Count:
    """Bytes of cuts: in memory, or streamed with so many bytes kept."""
    if kept_bytes is None:
        return lambda run: cut_needs(model, run)
    return lambda run: streamed_cut_needs(model, run, kept_bytes)


def count_of_circuits(model: Placed, kept_bytes: int | None) -> Count:
    """Bytes of circuits: in memory, or streamed with so many bytes kept."""
    if kept_bytes is None:
        return lambda run: circuit_needs(model, run)
    return lambda run: streamed_circuit_needs(model, run, kept_bytes)


def logits_at_once(model: Placed, usable: int, kept_bytes: int | None) -> int:
    """Logits of the output head at once; streamed programs take few, whatever the memory."""
    return HEAD_LOGITS[False] if kept_bytes is not None else head_logits(usable, model.mesh.size)


def _plan_runs(
    model: Placed,
    count: Count,
    usable: int,
    *,
    length: int,
    targets: int,
    most_tokens: int,
    kept_bytes: int | None,
) -> Runs:
    ways, logits = model.mesh.shape["data"], logits_at_once(model, usable, kept_bytes)
    tried = [
        Run(
            rows=max(1, tokens // length // ways) * ways,
            length=length,
            targets=targets,
            most_logits=logits,
        )
        for tokens in halves(most_tokens, length * ways)
    ]
    room = room_for(usable)
    batch = next((run for run in tried if count(run).total <= room), tried[-1])
    needs = count(batch)
    return Runs(batch=batch, needs=needs, fits=needs.total <= usable)


def edges_together(count: Count, run: Run, usable: int, most_tokens: int) -> int:
    """The most edges whose copies of a batch fit, and have at most so many tokens; at least one."""
    low, high = 1, max(1, most_tokens // run.tokens)
    while low < high:  # needs grow with the edges
        middle = (low + high + 1) // 2
        fits = count(dataclasses.replace(run, edges=middle)).total <= room_for(usable)
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
