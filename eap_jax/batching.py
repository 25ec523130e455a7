"""Texts of unequal length -> padded batches of few shapes with little padding.

Each shape is compiled once, and that may take longer than its batches do. So texts are sorted by
length and cut into the fewest groups whose padding stays below a given share of the tokens, where
the devices allow it: of all cuts into so many groups, the one with the least padding. A group is as
wide as its longest text, rounded up, and has the fewest batches that the limit of tokens allows.
Texts that fit one batch share it, whatever its padding. `put_rows` and `in_order` bring results back
into the order of the texts.
"""

import dataclasses
import math
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
    texts: list[Text],
    *,
    batch_tokens: int,
    multiple: int = 1,
    cuts: tuple[int, ...] = (),
    most_padding: float = 0.1,
    longest: int | None = None,
) -> list[PaddedBatch]:
    """Batches of all texts.

    Args:
      texts: in any order.
      batch_tokens: the most tokens, padding included, that a batch holds; but it holds at least
        `multiple` texts.
      multiple: the number of rows is a multiple of this (the ways of the mesh's data axis).
      cuts: numbers of targets that count, one a loss; none: all targets, one loss.
      most_padding: share of the padded tokens, in [0, 1), for which no further shape is made.
      longest: tokens of the longest text that the model computes as it does shorter ones
        (`ModelConfig.longest_text`), or None; no batch is padded beyond.

    Raises:
      ValueError: a text is longer than that. Beyond it a text's rotary frequencies depend on its
        length, so texts of different lengths cannot share a batch, nor a text its losses.
    """
    for number, text in enumerate(texts):
        if longest is not None and len(text.tokens) > longest:
            raise ValueError(
                f"text {number}: expected at most {longest} tokens, beyond which the model's rotary "
                f"frequencies depend on a text's length, found {len(text.tokens)}"
            )
    num_targets = max(len(text.targets) for text in texts)
    cuts = cuts or (num_targets,)
    # The longest come first: the empty rows of the last batch are short, and a batch that is too
    # large for the memory fails at once.
    order = sorted(range(len(texts)), key=lambda index: (-len(texts[index].tokens), index))
    lengths = [len(texts[index].tokens) for index in order]
    batches = []
    most_width = math.inf if longest is None else longest
    for group in _groups(lengths, batch_tokens, multiple, most_padding):
        width = min(group.width, most_width)
        members = order[group.first : group.end]
        ends = [
            max(len(texts[i].tokens) - max(0, len(texts[i].targets) - cut) for i in members)
            for cut in cuts
        ]
        shape = _Shape(
            rows=group.rows,
            width=width,
            targets=num_targets,
            lengths=tuple(min(width, padded_length(end)) for end in ends),
        )
        batches += [
            _pad(texts, members[first : first + group.rows], cuts, shape)
            for first in range(0, len(members), group.rows)
        ]
    return batches


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


def split_rows(padded: PaddedBatch, rows: int) -> list[PaddedBatch]:
    """A batch in parts of `rows` rows and the same width; the last is filled with padding rows.

    Parts that would hold no text are left out.
    """
    parts = []
    for first in range(0, len(padded.indices), rows):

        def part(leaf: np.ndarray, first: int = first) -> np.ndarray:
            chosen = np.asarray(leaf)[first : first + rows]
            missing = rows - len(chosen)
            return np.pad(chosen, [(0, missing)] + [(0, 0)] * (chosen.ndim - 1))

        batch = padded.batch
        indices = padded.indices[first : first + rows]
        parts.append(
            dataclasses.replace(
                padded,
                batch=Batch(
                    tokens_BT=part(batch.tokens_BT),
                    positions_BJ=part(batch.positions_BJ),
                    targets_BJ=part(batch.targets_BJ),
                    weights_BJ=part(batch.weights_BJ),
                ),
                weights_ABJ=tuple(map(part, padded.weights_ABJ)),
                indices=indices,
                tokens=padded.tokens * len(indices) // len(padded.indices),
            )
        )
    return parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shape:
    """The shape of a batch: rows, width of a row, targets of a row, and the length of each loss."""

    rows: int
    width: int
    targets: int
    lengths: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Group:
    """Texts `first` to `end`, in falling order of length, in batches of `rows` rows of `width`."""

    first: int
    end: int
    rows: int
    width: int


def _groups(
    lengths: list[int], batch_tokens: int, multiple: int, most_padding: float
) -> list[_Group]:
    """The fewest groups with little padding, for lengths in falling order.

    A group ends where a width does, or fills its last rows with the texts after that. least[j] is
    the least number of padded tokens of the texts before edge j, in so many groups; one more group
    takes those between edges i and j.
    """
    padded_lengths = np.asarray([padded_length(length) for length in lengths])
    ends = np.append(np.flatnonzero(np.diff(padded_lengths)) + 1, len(lengths))
    edges = np.unique(np.append(0, np.minimum(-(-ends // multiple) * multiple, len(lengths))))
    widths = padded_lengths[edges[:-1]]
    most = np.maximum(1, batch_tokens // widths // multiple) * multiple
    rows, padded = _rows(
        edges[None, :] - edges[:-1, None], widths[:, None], most[:, None], multiple
    )
    least, before = padded[0], [np.zeros(len(edges), int)]
    found = before
    if len(lengths) > most[0]:
        goal, fewest = sum(lengths) / (1 - most_padding), least[-1]
        while fewest > goal and len(before) < len(widths):
            one_more = least[:-1, None] + padded
            least, before = one_more.min(axis=0), [*before, one_more.argmin(axis=0)]
            if least[-1] < fewest:
                fewest, found = least[-1], before
    groups, end = [], len(widths)
    for choice in reversed(found):
        first = int(choice[end])
        groups.append(
            _Group(
                first=int(edges[first]),
                end=int(edges[end]),
                rows=int(rows[first, end]),
                width=int(widths[first]),
            )
        )
        end = first
    return groups[::-1]


def _rows(
    texts: np.ndarray, widths: np.ndarray, most: np.ndarray, multiple: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows a batch of groups of so many texts, and their padded tokens; infinite without a text.

    As few batches as `most` rows allow, or up to two more where they leave fewer rows empty.
    """
    choices = []
    for more in range(3):
        batches = np.maximum(1, -(-texts // most) + more)
        rows = np.maximum(1, -(-texts // (batches * multiple))) * multiple
        choices.append((rows, -(-texts // rows) * rows * widths))
    rows, padded = (np.stack(values) for values in zip(*choices, strict=True))
    best = padded.argmin(axis=0)[None]
    rows, padded = (np.take_along_axis(values, best, axis=0)[0] for values in (rows, padded))
    return rows, np.where(texts > 0, padded, np.inf)


def padded_length(length: int) -> int:
    """The width of a batch whose longest text has `length` tokens.

    From 64 on in eights, as a GPU's products and a mesh want it; below by an eighth.
    """
    if length > 64:
        return -(-length // 8) * 8
    width = 8
    while width < length:
        width += width // 8
    return width


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
