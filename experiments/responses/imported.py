"""Another program's answers of one model, as a jsonl file -> `Answer`s.

Two kinds of rows are read:

* with token ids, as the Qwen2.5-Math evaluation harness writes them: `idx`, `gt`, `pred`, `score`,
  `prompt_token_ids`, `generate_token_ids`;
* with text only, as vLLM scripts and lm-eval write them: the answer in `response`, `output`,
  `generated_text`, `completion`, `text`, `outputs` or `resps`, the right answer in `gt`, `answer`,
  `target` or `reference`, and the prompt in `prompt`, lm-eval's `arguments` or, through the pair's
  prompt, `question`. It is tokenised here, and the tokens must give the text back.

A verdict in `score` is kept; an answer without one is graded here.
"""

from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.grading.grade import grade
from experiments.jsonl import read_objects
from experiments.responses.generated import Answer
from experiments.responses.questions import Question, split_worked
from experiments.responses.tokenization import encode_prompt

_RESPONSE = (
    "response",
    "output",
    "generated_text",
    "completion",
    "text",
    "outputs",
    "resps",
    "code",
)
_TRUTH = ("gt", "answer", "target", "reference")
_NUMBER = ("idx", "doc_id", "index", "id")


def import_answers(path: Path, *, tokenizer, prompt: str) -> list[Answer]:
    """All answers of a file, in its order.

    Args:
      path: the jsonl file.
      tokenizer: of the model that answered.
      prompt: the pair's prompt, for rows that hold a question and no prompt.

    Raises:
      InputError: a line is broken, lacks a field or repeats an idx, or a text changes when it is
        tokenised; the message names the line.
    """
    answers, lines = [], {}
    for place, fields in read_objects(path, "answers"):
        answer = _answer(fields, len(answers), place, tokenizer, prompt)
        if answer.idx in lines:
            raise InputError(f"{place}: idx {answer.idx}: already on {lines[answer.idx]}")
        lines[answer.idx] = place.removeprefix(f"{path}: ")
        answers.append(answer)
    if not answers:
        raise InputError(f"{path}: expected at least one answer, found none")
    return answers


def pair_answers(
    base: list[Answer], rl: list[Answer], files: dict[str, Path]
) -> dict[str, list[Answer]]:
    """Of each side the answers to the questions that both files hold, by number.

    Raises:
      InputError: the files share no question, or one number stands for two questions.
    """
    sides = {"base": {a.idx: a for a in base}, "rl": {a.idx: a for a in rl}}
    shared = sorted(sides["base"].keys() & sides["rl"].keys())
    if not shared:
        raise InputError(
            f"{files['rl']}: expected answers to the questions of {files['base']}, found no idx in "
            "common"
        )
    for idx in shared:
        for name in ("question", "gt"):
            expected, found = (getattr(sides[side][idx], name).strip() for side in ("base", "rl"))
            if expected and found and expected != found:
                raise InputError(
                    f"{files['rl']}: idx {idx}: {name}: expected {expected[:60]!r} as in "
                    f"{files['base']}, found {found[:60]!r}; the files number other questions"
                )
    return {side: [answers[idx] for idx in shared] for side, answers in sides.items()}


def _answer(fields: dict[str, Any], count: int, place: str, tokenizer, prompt: str) -> Answer:
    document = fields.get("doc")  # lm-eval keeps the question's row here
    everything = fields | document if isinstance(document, dict) else fields
    idx = _first(fields, _NUMBER, count)
    if not isinstance(idx, int) or isinstance(idx, bool):
        raise InputError(f"{place}: idx: expected a whole number, found {idx!r}")
    question = str(_first(everything, ("question", "problem"), ""))
    if "generate_token_ids" in fields:
        prompt_tokens = _token_ids(fields, "prompt_token_ids", place)
        answer_tokens = _token_ids(fields, "generate_token_ids", place)
        text = tokenizer.decode(answer_tokens, skip_special_tokens=True)
    else:
        text = _one(_first(fields, _RESPONSE, None))
        if not isinstance(text, str) or not text:
            names = ", ".join(_RESPONSE)
            raise InputError(f"{place}: expected an answer's text in one of {names}, found none")
        answer_tokens = _encode(tokenizer, text, place)
        prompt_tokens = _prompt_tokens(fields, idx, question, tokenizer, prompt, place)
    solution = everything.get("solution")
    truth = _first(everything, _TRUTH, None)
    if isinstance(truth, str):
        truth, worked = split_worked(truth, place)
        solution = worked or solution
    score, pred = _one(fields.get("score")), _one(fields.get("pred"))
    if not isinstance(score, bool):
        if not isinstance(truth, (str, int, float)):
            names = ", ".join(_TRUTH)
            raise InputError(f"{place}: expected a score or a right answer in one of {names}")
        verdict = grade(text, str(truth))
        score, pred = verdict.correct, verdict.extracted
    return Answer(
        idx=idx,
        question=question,
        gt="" if truth is None else str(truth),
        solution=solution if isinstance(solution, str) else None,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        text=text,
        pred=None if pred is None else str(pred),
        score=score,
    )


def _prompt_tokens(
    fields, idx: int, question: str, tokenizer, prompt: str, place: str
) -> list[int]:
    given = fields.get("prompt", _arguments(fields))
    if given is None:
        if not question:
            raise InputError(f"{place}: expected a prompt or a question, found neither")
        return encode_prompt(
            tokenizer, prompt, Question(idx=idx, question=question, answer="", solution="")
        )
    if not isinstance(given, str):
        raise InputError(f"{place}: prompt: expected text, found {str(given)[:40]!r}")
    tokens = tokenizer(given)["input_ids"]
    if not tokens:
        raise InputError(f"{place}: prompt: expected text, found none")
    return tokens


def _arguments(fields: dict[str, Any]) -> Any:
    """What lm-eval passed to the model: {"gen_args_0": {"arg_0": prompt}} or [[prompt, ...]]."""
    found = fields.get("arguments")
    for _ in range(2):
        if isinstance(found, dict):
            found = next(iter(found.values()), None)
        elif isinstance(found, list):
            found = found[0] if found else None
    return found


def _encode(tokenizer, text: str, place: str) -> list[int]:
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(tokens)
    if back != text:
        at = next(
            (i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), len(back)
        )
        raise InputError(
            f"{place}: the answer's tokens do not give its text back: character {at + 1}: expected "
            f"{text[at : at + 20]!r}, found {back[at : at + 20]!r}"
        )
    return tokens


def _token_ids(fields: dict[str, Any], name: str, place: str) -> list[int]:
    found = fields.get(name)
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
        found = found[0]  # one of n samples
    sound = isinstance(found, list) and found
    if not sound or not all(type(token) is int and 0 <= token < 2**31 for token in found):
        raise InputError(
            f"{place}: {name}: expected a list of token ids, found {str(found)[:40]!r}"
        )
    return found


def _first(fields: dict[str, Any], names: tuple[str, ...], default: Any) -> Any:
    return next((fields[name] for name in names if name in fields), default)


def _one(value: Any) -> Any:
    """The first of several samples, whether listed or wrapped as {"text": ...}."""
    while isinstance(value, list) and value:
        value = value[0]
    return value.get("text") if isinstance(value, dict) else value
