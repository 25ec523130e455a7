"""Memory planned before any work: from a model, a mesh and a device's memory the sizes of batches.

Answers: as many rows together as fit with the longest cache that they may come to need. Scores: the
activations are kept where a whole batch, or half of one, fits; otherwise they are computed twice,
and the batch is halved until it fits. A plan rests on the memory that a device has in all, not on
what is free just now, so a run that goes on after a kill chooses as before and rounds as before.
"""

import dataclasses

from eap_jax.decoding import ladder
from eap_jax.generation import refill_rows
from eap_jax.head import HEAD_LOGITS
from eap_jax.slots import cache_slots
from experiments.study.footprint import (
    Needs,
    Placed,
    Scored,
    attribution_needs,
    cache_bytes,
    decode_needs,
    move_needs,
    prefill_needs,
    streamed_needs,
)

# Left to what a plan cannot know: scattered free memory, and its own error.
_ROOM = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """How answers are generated.

    Attributes:
      rows: decoded together, a multiple of the mesh's data axis.
      entering: rows of which a prefill brings in so many.
      width: slots of the longest prompts.
      slots: of the cache at its largest.
      prefill, decode, move: what is needed while the cache is at its largest.
      most: bytes of the one that needs the most.
      fits: whether they fit.
    """

    rows: int
    entering: int
    width: int
    slots: int
    prefill: Needs
    decode: Needs
    move: Needs
    most: int
    fits: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """How texts are attributed.

    Attributes:
      batch: one batch.
      batch_tokens: the most tokens of a batch.
      needs: what the program needs.
      fits: whether it fits.
    """

    batch: Scored
    batch_tokens: int
    needs: Needs
    fits: bool


def room_for(usable: int) -> int:
    """Bytes that programs are planned for, of those that arrays may take."""
    return int((1 - _ROOM) * usable)


def shortage(what: str, needed: int, usable: int) -> str:
    """In words, what does not fit: bytes of a device that something needs, and that there are."""
    unit, name = (1e9, "GB") if min(needed, usable) >= 1e8 else (1e6, "MB")
    return f"{what} need {needed / unit:,.1f} {name} of {usable / unit:,.1f}"


def plan_answers(
    model: Placed, usable: int, *, width: int, new_tokens: int, most_rows: int
) -> Answers:
    """The most rows that can be decoded together until the longest answer ends.

    Args:
      model: in the precision of the answers.
      usable: bytes of a device that arrays may take (`cards`).
      width: tokens of the longest prompt.
      new_tokens: most tokens of an answer.
      most_rows: upper limit, about; there is at least one row a way of the data axis.
    """
    ways, width = model.mesh.shape["data"], ladder(width)
    slots, room = cache_slots(width, new_tokens), room_for(usable)

    def answers(groups: int) -> Answers:
        rows = groups * ways
        entering = refill_rows(rows, ways)
        prefill = prefill_needs(model, rows=entering, width=width)
        beside = cache_bytes(model, rows, slots)
        prefill = dataclasses.replace(prefill, cache=prefill.cache + beside)
        decode = decode_needs(model, rows=rows, slots=slots)
        move = move_needs(model, rows=rows, slots=slots)
        most = max(needs.total for needs in (prefill, decode, move))
        return Answers(
            rows=rows,
            entering=entering,
            width=width,
            slots=slots,
            prefill=prefill,
            decode=decode,
            move=move,
            most=most,
            fits=most <= usable,
        )

    low, high = 1, max(1, -(-most_rows // ways))
    while low < high:  # needs grow with the rows
        middle = (low + high + 1) // 2
        low, high = (middle, high) if answers(middle).most <= room else (low, middle - 1)
    return answers(low)


def plan_scores(
    model: Placed,
    usable: int,
    *,
    length: int,
    targets: int,
    most_tokens: int,
    losses: int = 1,
    remat: bool | None = None,
    branch: bool = False,
) -> Scores:
    """The batch that texts are attributed in.

    Args:
      model: in the precision of the scores.
      usable: bytes of a device that arrays may take.
      length, targets: of the longest text.
      most_tokens: upper limit of a batch; but a batch holds one text a way of the data axis.
      losses: of one pass.
      remat: compute activations twice, or not; None: as memory allows.
      branch: whether the estimator is `branch`.
    """
    ways = model.mesh.shape["data"]

    def scores(remat: bool, tokens: int) -> Scores:
        rows = max(1, tokens // length // ways) * ways
        batch = Scored(
            rows=rows,
            length=length,
            targets=targets,
            losses=losses,
            remat=remat,
            most_logits=head_logits(usable, model.mesh.size),
            branches=max(1, tokens // (rows * length)) if branch else 0,
        )
        needs = attribution_needs(model, batch)
        fits = needs.total <= usable
        return Scores(batch=batch, batch_tokens=tokens, needs=needs, fits=fits)

    order = choices(most_tokens, length * ways)
    if remat is not None:
        order = [(remat, tokens) for again, tokens in order if again]
    tried = [scores(*choice) for choice in order]
    room = room_for(usable)
    return next((found for found in tried if found.needs.total <= room), tried[-1])


def plan_streamed(
    model: Placed,
    usable: int,
    *,
    length: int,
    targets: int,
    most_tokens: int,
    kept_bytes: int,
    losses: int = 1,
    branch: bool = False,
) -> Scores:
    """The batch that texts are attributed in while the weights are read layer by layer.

    Args:
      kept_bytes: see `footprint.streamed_needs`.
      others: see `plan_scores`.
    """

    def scores(tokens: int) -> Scores:
        batch = Scored(
            rows=max(1, tokens // length),
            length=length,
            targets=targets,
            losses=losses,
            most_logits=HEAD_LOGITS[False],
            branches=int(branch),
        )
        needs = streamed_needs(model, batch, kept_bytes)
        return Scores(batch=batch, batch_tokens=tokens, needs=needs, fits=needs.total <= usable)

    tried = [scores(tokens) for tokens in halves(most_tokens, length)]
    room = room_for(usable)
    return next((found for found in tried if found.needs.total <= room), tried[-1])


def head_logits(usable: int, devices: int) -> int:
    """Logits that the output head holds at once on all devices: float32, they take 1/192 of what
    arrays may take.

    The head's matrix is read anew for each part of the positions. With 64 GB that part is large
    enough for a GPU to multiply as fast as it can.
    """
    return devices * (usable // 192 // 4)


def streamed_bytes(usable: int) -> int:
    """Bytes that stay between the layers of a streamed pass, unless its user says otherwise: a third.
    The rest is for the largest part of the weights and for the work on it."""
    return usable // 3


def choices(most_tokens: int, longest: int) -> list[tuple[bool, int]]:
    """Ways to score, the best first: whether activations are computed twice, tokens of a batch.

    Args:
      most_tokens: upper limit of a batch.
      longest: tokens of the longest text on every way of the data axis: no batch is smaller.
    """
    sizes = halves(most_tokens, longest)
    # Half a batch fills a device, nearly; computing twice takes half as long again.
    return [(False, tokens) for tokens in sizes[:2]] + [(True, tokens) for tokens in sizes]


def halves(most_tokens: int, longest: int) -> list[int]:
    """Tokens of a batch to try, the most first; none smaller than `longest` but the first."""
    sizes = [most_tokens]
    while sizes[-1] // 2 >= longest:
        sizes.append(sizes[-1] // 2)
    return sizes
