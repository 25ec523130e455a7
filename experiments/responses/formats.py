"""Formats of other programs' answers, as data: how a row is recognised, and where each fact lies.

A place is a path of names and numbers, `outputs.0.text`; `*` is whatever comes first, -1 the last
of a list. Of several places the first that says anything counts. What each fact may be:

* answer: text, a list of samples (the first counts), `{"text": ...}`, or chat messages;
* prompt: text, chat messages (also as JSON text), or OpenCompass's turns;
* verdict: true, false, 1, 0, -1, or a list of these; other numbers say nothing.
"""

import dataclasses
from typing import Any

_QUESTION = ("question", "problem", "query", "instruction", "Question", "extra_info.question")
_TRUTH = ("gt", "gold", "gts", "answer", "target", "reference", "ground_truth", "final_answer")
_NUMBER = ("idx", "doc_id", "index", "id", "custom_id", "uuid", "question_id", "task_id")
_VERDICT = (
    "score", "correct", "is_correct", "exact_match", "acc", "accuracy", "correctness", "math_verify",
)  # fmt: skip
_SOLUTION = ("solution", "gt_cot", "doc.solution")
_PROMPT = ("prompt", "messages", "conversation")
_TEXT = (
    "response", "output", "generated_text", "completion", "text", "outputs", "resps", "code",
    "responses", "generation", "model_output", "prediction", "predictions", "model_answer",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """One program's rows.

    Attributes:
      name: the program's, for messages.
      marks: a row is of this format where it has all of these places; `a|b`: one of them.
      answer, answer_ids: the answer's text; its token ids, which are used where they are given.
      prompt, prompt_ids: what the model read, likewise.
      number, question, truth, solution, verdict, pred: see `foreign_rows.ForeignRow`.
      choices, choice: a list, and the place in it of the right answer.
      finish, stop: why the answer ended, and at which token or text.
      elsewhere: parts of the answer that its text lacks.
      special_tokens_lost: the prompt was written without its special tokens.
      verdict_stands: the verdict counts as it is; elsewhere a right answer must be right here too.
    """

    name: str
    marks: tuple[str, ...]
    answer: tuple[str, ...]
    answer_ids: tuple[str, ...] = ()
    prompt: tuple[str, ...] = _PROMPT
    prompt_ids: tuple[str, ...] = ("prompt_token_ids",)
    number: tuple[str, ...] = _NUMBER
    question: tuple[str, ...] = _QUESTION
    truth: tuple[str, ...] = _TRUTH
    solution: tuple[str, ...] = _SOLUTION
    verdict: tuple[str, ...] = _VERDICT
    pred: tuple[str, ...] = ("pred", "extracted")
    choices: str = ""
    choice: str = ""
    finish: tuple[str, ...] = ("finish_reason",)
    stop: tuple[str, ...] = ("stop_reason",)
    elsewhere: tuple[str, ...] = ()
    special_tokens_lost: bool = False
    verdict_stands: bool = False


def _choices_of(place: str) -> dict[str, tuple[str, ...]]:
    """Where OpenAI's completion, of a chat or of a text, lies behind a place."""
    first = f"{place}choices.0"
    return {
        "answer": (f"{first}.message.content", f"{first}.text"),
        "finish": (f"{first}.finish_reason",),
        "elsewhere": (f"{first}.message.reasoning_content", f"{first}.message.reasoning"),
    }


_IDS = ("token_ids", "output_token_ids", "response_token_ids", "completion_token_ids")
_DOC = ("question", "problem", "query", "Question", "input", "prompt")
PLAIN = Format(
    name="text answers",
    marks=(),
    answer=_TEXT,
    question=(*_QUESTION, *(f"doc.{name}" for name in _DOC)),
    truth=(*_TRUTH, "doc.answer", "doc.target"),
)
FORMATS = (
    Format(
        name="token ids of the Qwen2.5-Math harness",
        marks=("generate_token_ids",),
        answer=(),
        answer_ids=("generate_token_ids",),
        verdict_stands=True,
    ),
    Format(
        name="lm-evaluation-harness",
        marks=("resps|filtered_resps", "doc|arguments|doc_id"),
        answer=("resps",),
        prompt=(
            "arguments.gen_args_0.arg_0",
            "arguments.0.0",
            "arguments.0",
            "arguments",
            "prompt",
        ),
        number=("doc_id", "idx"),
        question=tuple(f"doc.{name}" for name in _DOC),
        truth=("target", "doc.answer_number", "doc.answer", "doc.gold", "doc.target", "answer"),
        pred=("filtered_resps",),
    ),
    Format(
        name="vLLM",
        marks=("outputs.0.token_ids|outputs.0.text",),
        answer=("outputs.0.text",),
        answer_ids=("outputs.0.token_ids",),
        finish=("outputs.0.finish_reason",),
        stop=("outputs.0.stop_reason",),
    ),
    Format(
        name="token ids beside text (vLLM, SGLang)",
        marks=("|".join(_IDS),),
        answer=("text", "output", "response", "generated_text", "completion"),
        answer_ids=_IDS,
    ),
    Format(
        name="OpenAI batch",
        marks=("custom_id", "response"),
        number=("custom_id",),
        **_choices_of("response.body."),
    ),
    Format(
        name="OpenAI chat completions",
        marks=("choices.0.message|choices.0.text",),
        prompt=(*_PROMPT, "request.messages", "body.messages"),
        # Its own id is another for every request.
        number=("custom_id", "idx", "index", "question_id"),
        **_choices_of(""),
    ),
    Format(
        name="verl generations",
        marks=("responses", "reward_model"),
        answer=("responses",),
        number=("extra_info.index", *_NUMBER),
        truth=("reward_model.ground_truth",),
    ),
    Format(
        name="verl dump",
        marks=("input", "output", "gts|gt|score|acc|step"),
        answer=("output",),
        prompt=("input",),
        special_tokens_lost=True,
    ),
    Format(
        name="lighteval",
        marks=("model_response", "doc"),
        answer=("model_response.text",),
        answer_ids=("model_response.output_tokens",),
        prompt=("model_response.input", "doc.query"),
        prompt_ids=("model_response.input_tokens",),
        number=("doc.id",),
        question=("doc.specific.question", "doc.specific.problem"),
        choices="doc.choices",
        choice="doc.gold_index",
        verdict=("metric.extractive_match", "metric.exact_match", "metric.em", "metric.*"),
    ),
    Format(
        name="lighteval (before 0.10)",
        marks=("predictions", "gold", "full_prompt|instruction|example"),
        answer=("predictions",),
        prompt=("full_prompt",),
        question=("specifics.question", "specifics.problem"),
        truth=("gold",),
        verdict=("metrics.extractive_match", "metrics.exact_match", "metrics.*"),
    ),
    Format(
        name="OpenCompass",
        marks=("prediction", "origin_prompt"),
        answer=("prediction",),
        prompt=("origin_prompt",),
    ),
    Format(
        name="Open-R1",
        marks=("generations",),
        answer=("generations",),
        prompt=("prompt",),
        number=("uuid", *_NUMBER),
        truth=("answer", "gt", "gold"),
        verdict=("correctness_math_verify", "correctness", "correctness_llama"),
        finish=("finish_reasons",),
    ),
    Format(
        name="Qwen2.5-Math harness",
        marks=("code", "idx|gt|pred|score"),
        answer=("code",),
        verdict_stands=True,
    ),
    Format(
        name="deepseek-math",
        marks=("model_output",),
        answer=("model_output",),
        truth=("answer", "gt", "reference"),
        pred=("prediction",),
        solution=("reference", *_SOLUTION),
    ),
    Format(
        name="TRL",
        marks=("prompt", "completion"),
        answer=("completion",),
        verdict=("accuracy_reward", *_VERDICT),
    ),
    Format(
        name="chat messages",
        marks=("messages.-1.content",),
        answer=("messages.-1.content",),
    ),
)
_ABSENT = object()


def format_of(row: dict[str, Any]) -> Format:
    """The format of a row: the first whose marks it has, or plain text answers."""
    for known in FORMATS:
        if all(any(_has(row, place) for place in mark.split("|")) for mark in known.marks):
            if known.name == "chat messages" and any(name in row for name in _TEXT):
                continue
            return known
    return PLAIN


def look(row: Any, places: tuple[str, ...], *, blank: bool = False) -> Any:
    """What the first place says that says anything, or None; blank text does only if asked for."""
    for place in places:
        found = _at(row, place)
        if found is not _ABSENT and _says(found, blank):
            return found
    return None


def mentioned(row: Any, places: tuple[str, ...]) -> bool:
    """Whether one of the places is there, perhaps with nothing in it."""
    return any(_has(row, place) for place in places)


def _says(found: Any, blank: bool) -> bool:
    if isinstance(found, (list, dict)):
        return bool(found)
    if isinstance(found, str):
        return blank or bool(found.strip())
    return found is not None and found == found


def _has(row: Any, place: str) -> bool:
    return _at(row, place) is not _ABSENT


def _at(row: Any, place: str) -> Any:
    """What lies at a place: null below a null, `_ABSENT` where there is no such place."""
    for part in place.split("."):
        if row is None:
            return None
        if part == "*":
            values = list(row.values()) if isinstance(row, dict) else row
            row = values[0] if isinstance(values, list) and values else _ABSENT
        elif isinstance(row, dict):
            row = row.get(part, _ABSENT)
        elif isinstance(row, list) and part.removeprefix("-").isdecimal():
            place_in = int(part)
            row = row[place_in] if -len(row) <= place_in < len(row) else _ABSENT
        else:
            return _ABSENT
        if row is _ABSENT:
            return _ABSENT
    return row
