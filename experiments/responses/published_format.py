"""Responses of both models in the published `all_correct.jsonl` format: one row a question."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.jsonl import read_objects
from experiments.study.pairs import Side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Response:
    """One model's answer to one question: token ids of the prompt and of the answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One question that both models answered.

    Attributes:
      base, rl: the two responses.
      fields: the row as read, with its other keys (idx, question, gt, pred, ...), so that writing
        gives back what was read.
    """

    base: Response
    rl: Response
    fields: dict[str, Any]

    def response(self, side: Side) -> Response:
        """The response of one side."""
        return self.base if side == "base" else self.rl


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a published-format file.

    Raises:
      InputError: no such file, no rows, or a broken line; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such responses file")
    rows, lines = [], {}
    for place, fields in read_objects(path, "responses"):
        row = row_of(fields, place)
        idx = row.fields["idx"]
        if idx in lines:
            raise InputError(f"{place}: idx {idx!r}: already on {lines[idx]}")
        lines[idx] = place.removeprefix(f"{path}: ")
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: expected one row a line, found none")
    return rows


def row_of(fields: dict[str, Any], place: str = "row") -> Row:
    """A checked row; `place` names it in errors."""
    idx = fields.get("idx")  # cells and reports name rows by it
    if type(idx) not in (int, str):
        raise InputError(f"{place}: idx: expected a number or a name, found {idx!r:.40}")
    return Row(base=_side(fields, "base", place), rl=_side(fields, "rl", place), fields=fields)


def format_rows(rows: list[Row]) -> str:
    """The published format: one JSON object a line."""
    return "".join(json.dumps(row.fields, ensure_ascii=False) + "\n" for row in rows)


def check_vocabulary(rows: list[Row], side: Side, vocab_size: int, path: str | Path) -> None:
    """Every token id of one side must exist in its model.

    Raises:
      InputError: an id is outside; the message names the row.
    """
    for row in rows:
        response = row.response(side)
        for kind, tokens in (("prompt", response.prompt), ("answer", response.answer)):
            largest = max(tokens)
            if largest >= vocab_size:
                raise InputError(
                    f"{path}: idx {row.fields['idx']}: {side}_{kind}_tokens: expected ids below "
                    f"the vocabulary size {vocab_size}, found {largest}"
                )


def _side(fields: dict[str, Any], side: Side, place: str) -> Response:
    prompt = _tokens(fields, f"{side}_prompt_tokens", place)
    answer = _tokens(fields, f"{side}_answer_tokens", place)
    expected = [len(prompt), len(prompt) + len(answer)]
    found = fields.get(f"{side}_answer_tokens_range", expected)
    if found != expected:
        raise InputError(
            f"{place}: {side}_answer_tokens_range: expected {expected} from the two token lists, "
            f"found {found}"
        )
    return Response(prompt=prompt, answer=answer)


def _tokens(fields: dict[str, Any], key: str, place: str) -> tuple[int, ...]:
    tokens = fields.get(key)
    if not isinstance(tokens, list):
        raise InputError(f"{place}: {key}: expected a list of token ids, found {tokens!r:.40}")
    if not tokens:
        raise InputError(f"{place}: {key}: expected at least one token, found none")
    for token in tokens:
        if type(token) is not int or token < 0:
            raise InputError(f"{place}: {key}: expected token ids from 0 on, found {token!r:.40}")
    return tuple(tokens)
