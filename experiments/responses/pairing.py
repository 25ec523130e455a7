"""Two files' answers -> the answers of both models to the same questions.

Answers are paired by their question, else by their prompt. Numbers alone are not enough: two files
may number other questions. A pairing that rests on them only is refused.
"""

import dataclasses
from pathlib import Path

from experiments.errors import InputError
from experiments.grading.grade import grade
from experiments.responses.generated import Answer
from experiments.responses.imported import ImportedAnswer, sample_of
from experiments.responses.joining import QuestionIndex, normal
from experiments.responses.questions import Question
from experiments.study.pairs import SIDES, Side


def pair_answers(
    base: list[ImportedAnswer], rl: list[ImportedAnswer], files: dict[Side, Path]
) -> dict[Side, list[Answer]]:
    """Of each side the answers to the questions that both files hold, in the order of base's file.

    An answer takes base's number, or rl's where only that file has numbers.

    Raises:
      InputError: the files share no question, no pairing can be checked, or the files have different
        right answers to one question.
    """
    base, rl = _with_questions(base, rl), _with_questions(rl, base)
    places: dict[tuple[str, str], int] = {}
    for place, answer in enumerate(rl):
        for key in _keys(answer):
            places.setdefault(key, place)
    pairs, used = [], set()
    for one in base:
        found = (places[key] for key in _keys(one) if key in places)
        place = next((at for at in found if at not in used and _may_pair(one, rl[at])), None)
        if place is not None:
            used.add(place)
            pairs.append((one, rl[place]))
    if not pairs:
        raise InputError(_nothing_shared(base, rl, files))
    given: dict[Side, list[Answer]] = {"base": [], "rl": []}
    numbers = set()
    for one, other in pairs:
        _check_truth(one, other, files)
        idx = other.idx if other.named and not one.named else one.idx
        if idx in numbers:  # one file's numbers beside places of the other
            idx = f"{idx}-{len(numbers)}"
        numbers.add(idx)
        gt, question = one.gt or other.gt, one.question or other.question
        for side, answer in zip(SIDES, (one, other), strict=True):
            changed = dataclasses.replace(answer, idx=idx, gt=gt, question=question)
            given[side].append(changed.plain())
    order = sorted(range(len(pairs)), key=lambda at: _order(given["base"][at].idx))
    return {side: [answers[at] for at in order] for side, answers in given.items()}


def _may_pair(one: ImportedAnswer, other: ImportedAnswer) -> bool:
    """Two questions that differ are not paired by the prompt that both say."""
    return not (one.question and other.question) or normal(one.question) == normal(other.question)


def _order(idx: int | str) -> tuple[bool, int, str]:
    return (isinstance(idx, str), idx if isinstance(idx, int) else 0, str(idx))


def _keys(answer: ImportedAnswer) -> list[tuple[str, str]]:
    keys = [("question", normal(answer.question))] if answer.question else []
    return [*keys, ("prompt", normal(answer.prompt))]


def _with_questions(
    answers: list[ImportedAnswer], others: list[ImportedAnswer]
) -> list[ImportedAnswer]:
    """Answers without a question get the other file's question that their prompt ends with."""
    known = [answer for answer in others if answer.question]
    if not known or all(answer.question for answer in answers):
        return answers
    questions = [
        Question(idx=place, question=answer.question, answer="", solution="")
        for place, answer in enumerate(known)
    ]
    index = QuestionIndex(questions, [None] * len(known))
    found = []
    for answer in answers:
        asked = None if answer.question else index.in_prompt(answer.prompt)
        found.append(dataclasses.replace(answer, question=asked.question) if asked else answer)
    return found


def _nothing_shared(base, rl, files) -> str:
    numbers = {answer.idx for answer in base if answer.named}
    shared = numbers & {answer.idx for answer in rl if answer.named}
    found = f"{files['rl']}: expected answers to the questions of {files['base']}, found "
    if not shared:
        return f"{found}no question or prompt in common, and no idx in common"
    said = f"{found}{len(shared)} numbers in common, but no question or prompt"
    one = next(answer for answer in base if answer.idx in shared)
    other = next(answer for answer in rl if answer.idx == one.idx)
    return (
        f"{said} (idx {one.idx}: {sample_of(one.question or one.prompt)} and "
        f"{sample_of(other.question or other.prompt)}); pass both models' questions by --questions"
    )


def _check_truth(one: ImportedAnswer, other: ImportedAnswer, files) -> None:
    expected, found = one.gt.strip(), other.gt.strip()
    if not expected or not found or expected == found:
        return
    if not grade(rf"\boxed{{{found}}}", expected).correct:
        raise InputError(
            f"{files['rl']}: idx {other.idx}: gt: expected {expected[:60]!r} as in "
            f"{files['base']}, found {found[:60]!r}: two right answers to one question"
        )
