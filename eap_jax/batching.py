"""Texts of unequal length -> padded batches of few shapes with little padding.

Texts are sorted by length and cut into batches of one number of rows. A batch is as wide as the next
rung of a ladder of widths, each an eighth wider than the one below. The number of rows is the
largest whose padding stays below a tenth of the tokens, where the devices allow it. Each width is
compiled once, which takes longer than a batch does, so texts that fit one batch share it, whatever
its padding. `put_rows` and `in_order` bring results back into the order of the texts.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from eap_jax.objective import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """What a model reads and must predict for one row.

    Attributes:
      tokens: the prompt and all but the last counted answer token.
      targets: the counted answer tokens, predicted at the last len(targets) places of `tokens`.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]


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
      batch_tokens: the most tokens, padding included, that a batch holds; but it holds at least
        `multiple` texts.
      multiple: the number of rows is a multiple of this (the ways of the mesh's data axis).
      cuts: numbers of targets that count, one a loss; none: all targets, one loss.
    """
    num_targets = max(len(text.targets) for text in texts)
    cuts = cuts or (num_targets,)
    # The longest come first: the empty rows of the last batch are short, and a batch that is too
    # large for the memory fails at once.
    order = sorted(range(len(texts)), key=lambda index: (-len(texts[index].tokens), index))
    rows = _rows([len(texts[index].tokens) for index in order], batch_tokens, multiple)
    batches = [order[first : first + rows] for first in range(0, len(order), rows)]
    ends: dict[int, list[int]] = {}
    for chosen in batches:
        width, found = _width(texts, chosen), _ends(texts, chosen, cuts)
        ends[width] = list(map(max, ends.get(width, found), found))
    shapes = {
        # One a width, not one a batch: the lengths are part of what is compiled.
        width: _Shape(
            rows=rows,
            width=width,
            targets=num_targets,
            lengths=tuple(min(width, _rung(end)) for end in found),
        )
        for width, found in ends.items()
    }
    return [_pad(texts, chosen, cuts, shapes[_width(texts, chosen)]) for chosen in batches]


def in_order(batches: Sequence[PaddedBatch], results: Sequence[np.ndarray]) -> np.ndarray:
    """Results of batches, row by row, in the order of the texts.

    Args:
      batches: all that `pad_into_batches` returned, in any order.
      results: one array a batch, [B, ...], its rows those of the batch; rows beyond the batch's
        texts are left out.

    Returns:
      [number of texts, ...] in the results' dtype.

    Raises:
      ValueError: a batch has no result or a result has too few rows.
    """
    if len(batches) != len(results) or not batches:
        raise ValueError(f"results: expected one a batch, {len(batches)}, found {len(results)}")
    first = np.asarray(results[0])
    count = sum(len(padded.indices) for padded in batches)
    ordered = np.empty((count, *first.shape[1:]), first.dtype)
    for padded, result in zip(batches, results, strict=True):
        put_rows(ordered, padded, result)
    return ordered


def put_rows(ordered: np.ndarray, padded: PaddedBatch, result: np.ndarray) -> None:
    """Write one batch's results, [B, ...], to the places of its texts in `ordered`.

    Raises:
      ValueError: the result has fewer rows than the batch has texts.
    """
    result = np.asarray(result)
    if len(result) < len(padded.indices):
        raise ValueError(f"result: expected {len(padded.indices)} rows, found {len(result)}")
    ordered[list(padded.indices)] = result[: len(padded.indices)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shape:
    """The shape of a batch: rows, width of a row, targets of a row, and the length of each loss."""

    rows: int
    width: int
    targets: int
    lengths: tuple[int, ...]


def _rows(lengths: list[int], batch_tokens: int, multiple: int) -> int:
    """Rows of every batch, for lengths in falling order."""
    most = max(1, batch_tokens // _rung(lengths[0]) // multiple) * multiple
    if most >= len(lengths):
        return -(-len(lengths) // multiple) * multiple

    def padded(rows: int) -> int:
        return rows * sum(_rung(length) for length in lengths[::rows])

    choices = range(most, 0, -multiple)
    few = (rows for rows in choices if 0.9 * padded(rows) <= sum(lengths))
    return next(few, None) or min(choices, key=padded)


def _rung(length: int) -> int:
    """The smallest width of the ladder that holds `length` tokens."""
    width = 8
    while width < length:
        # From 64 on in fours, so that a mesh can divide long texts.
        width += width // 8 if width < 64 else width // 32 * 4
    return width


def _width(texts: list[Text], indices: Sequence[int]) -> int:
    return _rung(max(len(texts[index].tokens) for index in indices))


def _ends(texts: list[Text], indices: Sequence[int], cuts: tuple[int, ...]) -> list[int]:
    """For each cut, the number of tokens that the longest text's counted targets depend on."""
    chosen = [texts[index] for index in indices]
    return [
        max(len(text.tokens) - max(0, len(text.targets) - cut) for text in chosen) for cut in cuts
    ]


def _pad(
    texts: list[Text], indices: Sequence[int], cuts: tuple[int, ...], shape: _Shape
) -> PaddedBatch:
    tokens_BT = np.zeros((shape.rows, shape.width), np.int32)
    positions_BJ = np.zeros((shape.rows, shape.targets), np.int32)
    targets_BJ = np.zeros((shape.rows, shape.targets), np.int32)
    weights_ABJ = tuple(np.zeros((shape.rows, shape.targets), np.float32) for _ in cuts)
    for row, text in enumerate(texts[index] for index in indices):
        length, count = len(text.tokens), len(text.targets)
        tokens_BT[row, :length] = text.tokens
        positions_BJ[row, :count] = np.arange(length - count, length)
        targets_BJ[row, :count] = text.targets
        for weights_BJ, cut in zip(weights_ABJ, cuts, strict=True):
            counted = min(cut, count)
            weights_BJ[row, :counted] = 1 / counted
    return PaddedBatch(
        batch=Batch(
            tokens_BT=tokens_BT,
            positions_BJ=positions_BJ,
            targets_BJ=targets_BJ,
            weights_BJ=weights_ABJ[np.argmax(cuts)],
        ),
        weights_ABJ=weights_ABJ,
        lengths=shape.lengths,
        indices=tuple(indices),
        tokens=sum(len(texts[index].tokens) for index in indices),
    )
