"""Texts of unequal length -> padded batches of few shapes with little padding.

Texts are sorted by length and cut into batches; a batch is as wide as the next rung of a ladder of
widths, which grows by a twelfth a rung, so padding stays below a tenth of the tokens and each rung
is compiled once.
"""

import dataclasses

import numpy as np

from eap_jax.objective import Batch
from experiments.selection import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaddedBatch:
    """A batch and where its rows came from.

    Attributes:
      batch: arrays for `attribution.attribute`; rows beyond the texts are padding of weight 0.
      weights_ABJ, lengths: for `attribution.attribute_prefixes`, one entry a cut.
      indices: for each real row, the number of its text.
      tokens: real tokens in the batch.
    """

    batch: Batch
    weights_ABJ: tuple[np.ndarray, ...]
    lengths: tuple[int, ...]
    indices: tuple[int, ...]
    tokens: int


def pad_into_batches(
    texts: list[Text], *, batch_tokens: int, multiple: int = 1, cuts: tuple[int, ...] = ()
) -> list[PaddedBatch]:
    """Batches of all texts.

    Args:
      texts: in any order.
      batch_tokens: about how many tokens, padding included, a batch may hold; at least one text.
      multiple: the number of rows is a multiple of this (the ways of the mesh's data axis).
      cuts: numbers of targets that count, one a loss; none: all targets, one loss.
    """
    num_targets = max(len(text.targets) for text in texts)
    cuts = cuts or (num_targets,)
    widest = _rung(max(len(text.tokens) for text in texts))
    # One number of rows for all batches: only widths differ between compiled shapes.
    rows = max(1, batch_tokens // widest // multiple) * multiple
    rows = min(rows, -(-len(texts) // multiple) * multiple)
    order = sorted(range(len(texts)), key=lambda index: (len(texts[index].tokens), index))
    return [
        _pad(texts, tuple(order[first : first + rows]), rows, num_targets, cuts)
        for first in range(0, len(order), rows)
    ]


def _rung(length: int) -> int:
    """The smallest width of the ladder that holds `length` tokens."""
    width = 8
    while width < length:
        width = max(width + 1, width + width // 12)
    return width


def _pad(texts: list[Text], indices, rows: int, num_targets: int, cuts) -> PaddedBatch:
    chosen = [texts[index] for index in indices]
    width = _rung(max(len(text.tokens) for text in chosen))
    tokens_BT = np.zeros((rows, width), np.int32)
    positions_BJ = np.zeros((rows, num_targets), np.int32)
    targets_BJ = np.zeros((rows, num_targets), np.int32)
    weights_ABJ = tuple(np.zeros((rows, num_targets), np.float32) for _ in cuts)
    lengths = [0] * len(cuts)
    for row, text in enumerate(chosen):
        length, count = len(text.tokens), len(text.targets)
        tokens_BT[row, :length] = text.tokens
        positions_BJ[row, :count] = np.arange(length - count, length)
        targets_BJ[row, :count] = text.targets
        for number, cut in enumerate(cuts):
            counted = min(cut, count)
            weights_ABJ[number][row, :counted] = 1 / counted
            lengths[number] = max(lengths[number], length - count + counted)
    return PaddedBatch(
        batch=Batch(
            tokens_BT=tokens_BT,
            positions_BJ=positions_BJ,
            targets_BJ=targets_BJ,
            weights_BJ=weights_ABJ[np.argmax(cuts)],
        ),
        weights_ABJ=weights_ABJ,
        lengths=tuple(min(width, _rung(length)) for length in lengths),
        indices=indices,
        tokens=sum(len(text.tokens) for text in chosen),
    )
