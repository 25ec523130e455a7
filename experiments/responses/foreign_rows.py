"""What a row of another program's file says, whatever its format calls it."""

import ast
import dataclasses
import json
import re
from typing import Any

from experiments.errors import InputError
from experiments.grading.boxes import extract_boxed
from experiments.responses.formats import Format, look, mentioned
from experiments.responses.questions import split_worked

Message = dict[str, str]

_ROLES = {
    "human": "user", "user": "user", "system": "system", "developer": "system", "gpt": "assistant",
    "bot": "assistant", "assistant": "assistant", "model": "assistant",
}  # fmt: skip
_SAID = {
    "true": True, "correct": True, "1": True, "1.0": True,
    "false": False, "incorrect": False, "wrong": False, "0": False, "0.0": False,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignRow:
    """One answer as a file has it.

    Attributes:
      place: `FILE: line N`, for errors.
      name: its own number or name, or None.
      question, truth, solution: text, or None where the row has none.
      text: the answer; None where only its ids are there.
      answer_ids, prompt_ids: token ids, or None.
      prompt: text or chat messages, or None.
      verdict: what the file says of the answer, or None.
      pred: the final answer that the file found in it, or None.
      finish: why the answer ended (`stop`, `length`), or None; `cut` where it ended at a text.
      stop: the id of the token that ended it, or None.
      samples: how many answers the row holds; `text` is the first.
      filter: of lm-evaluation-harness, which writes a row a filter.
    """

    place: str
    name: int | str | None
    question: str | None
    truth: str | None
    solution: str | None
    text: str | None
    answer_ids: list[int] | None
    prompt_ids: list[int] | None
    prompt: str | list[Message] | None
    verdict: bool | None
    pred: str | None
    finish: str | None
    stop: int | None
    samples: int
    filter: str | None


def read_row(fields: dict[str, Any], place: str, known: Format) -> ForeignRow | None:
    """A row, or None where it says that there is no answer (null).

    Raises:
      InputError: a field is missing or is not what the format has there; the message names the
        format and the field.
    """
    label = f"{place}: read as {known.name}"
    answer_ids = _ids(fields, known.answer_ids, label)
    given = look(fields, known.answer, blank=True)
    text = None if given is None else _text_of(_first(given))
    if text is None and answer_ids is None:
        where = known.answer or known.answer_ids
        if given is None and mentioned(fields, where):
            return None
        _refuse_answer(given, where, label, fields)
    if look(fields, known.elsewhere) is not None:
        raise InputError(
            f"{label}: expected the whole answer in {known.answer[0]}, found a part of it in "
            "reasoning_content; answer again without the server's reasoning parser"
        )
    truth, solution = _truth(fields, known, label)
    stop = look(fields, known.stop)
    finish = _first(look(fields, known.finish))
    prompt = look(fields, known.prompt)
    return ForeignRow(
        place=place,
        name=_name(look(fields, known.number), label),
        question=_plain(look(fields, known.question)),
        truth=truth,
        solution=solution,
        text=text,
        answer_ids=answer_ids,
        prompt_ids=_ids(fields, known.prompt_ids, label),
        prompt=None if prompt is None else _prompt(prompt, label),
        verdict=_verdict(fields, known.verdict),
        pred=_plain(_first(look(fields, known.pred))),
        finish="cut" if isinstance(stop, str) else finish if isinstance(finish, str) else None,
        stop=stop if type(stop) is int else None,
        samples=_samples(given),
        filter=_plain(fields.get("filter")),
    )


def _refuse_answer(given: Any, where: tuple[str, ...], label: str, fields: dict) -> None:
    if isinstance(_first(given), (int, float)):
        raise InputError(
            f"{label}: {where[0]}: expected an answer's text, found a number (log-likelihoods of "
            "choices are no generated answer); use a task that generates"
        )
    raise InputError(
        f"{label}: expected an answer's text in {' or '.join(where)}, found "
        f"{'none' if given is None else repr(given)[:40]}; the row has {', '.join(fields)[:120]}"
    )


def _first(value: Any) -> Any:
    """The first of several samples."""
    while isinstance(value, list) and value:
        if _is_chat(value):
            return value
        value = value[0]
    return value


def _samples(value: Any) -> int:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return len(value) if isinstance(value, list) and not _is_chat(value) else 1


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
    )


def _text_of(value: Any) -> str | None:
    """An answer's text, whether bare, in a dictionary, the last message, or as Python prints a list."""
    if _is_chat(value):
        value = value[-1]
    if isinstance(value, dict):
        inner = next((value[k] for k in ("text", "content", "value", "prompt") if k in value), None)
        return _content(inner)
    if isinstance(value, str) and re.fullmatch(
        r"\s*\[\s*(['\"]).*\1\s*,?\s*\]\s*", value, re.DOTALL
    ):
        try:
            listed = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            return listed[0]
    return value if isinstance(value, str) else None


def _content(value: Any) -> str | None:
    """A message's text, which may lie in parts."""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        parts = [part.get("text") for part in value if part.get("type", "text") == "text"]
        return "".join(parts) if all(isinstance(part, str) for part in parts) else None
    return value if isinstance(value, str) else None


def _prompt(value: Any, label: str) -> str | list[Message] | None:
    """Text or messages; a list of one and messages written as JSON are what they hold."""
    while isinstance(value, list) and value and not _is_chat(value):
        value = value[0]
    if isinstance(value, str):
        if not re.match(r'\s*\[\s*\{\s*"', value):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if not _is_chat(found):
            return value
        value = found
    if isinstance(value, dict) and ("role" in value or "from" in value):
        value = [value]
    if not _is_chat(value):
        raise InputError(
            f"{label}: prompt: expected text or chat messages, found {str(value)[:40]!r}"
        )
    messages = []
    for turn in value:
        role = _ROLES.get(str(turn.get("role", turn.get("from"))).lower())
        content = _content(
            next((turn[k] for k in ("content", "prompt", "value") if k in turn), None)
        )
        if role is None or content is None:
            raise InputError(
                f"{label}: prompt: expected messages with a role and text, found {str(turn)[:40]!r}"
            )
        messages.append({"role": role, "content": content})
    # The answer itself, or the empty turn that it is to fill.
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        messages.pop()
    return messages


def _name(value: Any, label: str) -> int | str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # tables with gaps hold whole numbers so
    if isinstance(value, str):
        value = value.strip()
        return int(value) if re.fullmatch(r"0|[1-9]\d{0,17}", value) else value
    if value is not None and type(value) is not int:
        raise InputError(f"{label}: idx: expected a number or a name, found {str(value)[:40]!r}")
    return value


def _plain(value: Any) -> str | None:
    """A value as text, or None where it is none or no single value."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value != value:
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text if text.strip() else None


def _truth(fields: dict, known: Format, label: str) -> tuple[str | None, str | None]:
    """(right answer, worked solution)."""
    solution = _plain(look(fields, known.solution))
    if known.choices:
        listed = look(fields, (known.choices,))
        which = _first(look(fields, (known.choice,)))
        inside = isinstance(listed, list) and type(which) is int and 0 <= which < len(listed)
        found = listed[which] if inside else None
    else:
        found = _first(look(fields, known.truth))
    if isinstance(found, dict):
        found = _first(look(found, ("ground_truth", "answer", "value", "text")))
    truth = _plain(found)
    if truth is None:
        return None, solution
    bare, worked = split_worked(truth, label)
    if not worked and "\\boxed" in truth and (boxed := extract_boxed(truth)):
        bare, worked = boxed, truth
    return bare.strip(), worked or solution


def _verdict(fields: dict, places: tuple[str, ...]) -> bool | None:
    """What the row says: wrong where any of its fields says so."""
    said = [_said(look(fields, (place,))) for place in places]
    said = [one for one in said if one is not None]
    return all(said) if said else None


def _said(value: Any) -> bool | None:
    value = _first(value)
    if isinstance(value, str):
        return _SAID.get(value.strip().lower())
    if isinstance(value, (bool, int, float)) and value in (-1, 0, 1):
        return value == 1
    return None


def _ids(fields: dict, places: tuple[str, ...], label: str) -> list[int] | None:
    found = look(fields, places)
    if found is None:
        return None
    if isinstance(found, list) and found and isinstance(found[0], list):
        found = found[0]  # one of n samples
    sound = isinstance(found, list) and found
    if not sound or not all(type(token) is int and 0 <= token < 2**31 for token in found):
        raise InputError(
            f"{label}: {places[0]}: expected a list of token ids, found {str(found)[:40]!r}"
        )
    return found
