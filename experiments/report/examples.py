"""Example responses for the report, with the counted tokens of each answer set apart."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.report.results import CellResult
from experiments.study.pairs import SIDES

_LONGEST_TEXT = 1500


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownAnswer:
    """One side's answer: what is counted, what follows, and their lengths in tokens."""

    side: str
    prompt: str
    counted: str
    rest: str
    counted_tokens: int
    total_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One question with both answers."""

    idx: str
    question: str
    truth: str
    answers: tuple[ShownAnswer, ...]


def examples(cell: CellResult, count: int = 3) -> list[Example]:
    """The first `count` selected rows. Without a tokenizer, token ids stand for the text."""
    return [
        Example(
            idx=str(row.get("idx", "")),
            question=_shortened(str(row.get("question", ""))),
            truth=_shortened(str(row.get("gt", ""))),
            answers=tuple(_answer(row, side, cell) for side in SIDES),
        )
        for row in cell.rows[:count]
    ]


def split_text(
    tokens: Sequence[int], counted: int, decode: Callable[[Sequence[int]], str]
) -> tuple[str, str]:
    """Text of the first `counted` tokens and of the rest.

    The whole is decoded at once, since a character or a space may span two tokens; where the text
    of the beginning is not a beginning of the whole text, the parts are decoded on their own.
    """
    whole, beginning = decode(tokens), decode(tokens[:counted])
    if whole.startswith(beginning):
        return beginning, whole[len(beginning) :]
    return beginning, decode(tokens[counted:])


def _answer(row: Mapping[str, Any], side: str, cell: CellResult) -> ShownAnswer:
    tokens = list(row[f"{side}_answer_tokens"])
    decode = (cell.rl_decode if side == "rl" else None) or cell.decode or _ids
    counted, rest = split_text(tokens, cell.t_cut, decode)
    return ShownAnswer(
        side=side,
        prompt=_shortened(decode(list(row[f"{side}_prompt_tokens"]))),
        counted=_shortened(counted),
        rest=_shortened(rest),
        counted_tokens=min(cell.t_cut, len(tokens)),
        total_tokens=len(tokens),
    )


def _ids(tokens: Sequence[int]) -> str:
    return "".join(f"{token} " for token in tokens)


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_TEXT:
        return text
    left_out = len(text) - _LONGEST_TEXT
    return f"{text[:_LONGEST_TEXT]} \N{HORIZONTAL ELLIPSIS} ({left_out:,} more characters)"
