r"""Questions with their reference answers, from local files, the Hugging Face Hub or a generator.

| dataset | fields of a row | answer |
| --- | --- | --- |
| gsm8k | `question`, `answer` | `answer` |
| math | `problem`, `solution`, perhaps `answer` | `answer`, else the last `\boxed{}` of `solution` |
| college_math | `question`, `answer` | `answer` |
| arithmetic | none: 500 drawn by `experiments.arithmetic.problems` | |
| word_problems | none: 500 drawn by `experiments.arithmetic.word_problems` | |
| any other name | named by flag (`question`, `answer` if not); perhaps `solution` | the named field |

Of an answer with `####`, GSM8K's own form, what follows the last one is the answer, and the whole is
the solution.

A file is looked for at DATA_DIR/<dataset>/test.jsonl, then DATA_DIR/<dataset>.jsonl, with any ending
of `question_files.ENDINGS`, then in the folder DATA_DIR/<dataset> itself, as the Hub or MATH keep it
(`records` says what is read); for math also at math500. Without a folder it comes from the Hub (or its
local cache).

A row whose question or answer is missing (null, NaN, blank) is an error. Choices of a row are printed
under its question. A field beside the question that may hold half of it is asked for:
`--question_field=Body+Question` joins them.
"""

import dataclasses
import math
import string
from pathlib import Path

from experiments.arithmetic import problems, word_problems
from experiments.errors import InputError
from experiments.grading.boxes import extract_boxed
from experiments.responses.choices import choices_of
from experiments.responses.question_files import SOURCES, Source, hub_files, local_file
from experiments.responses.records import read_records

# Data sets that are drawn: each by a generator of `experiments.arithmetic`, held-out problems, always
# the same.
_DRAWN = {
    "arithmetic": problems.draw_problems,
    "word_problems": word_problems.draw_problems,
}
DRAWN_QUESTIONS = 500
_DRAWN_SEED = 0
DATASETS = (*SOURCES, *_DRAWN)
# Fields that hold the story of which the question is the last sentence, and those that may.
_BODIES = ("Body", "body")
_CONTEXTS = ("context", "passage", "premise", "background", "story")
_NAMES = ("idx", "id", "index", "doc_id", "question_id", "custom_id", "uuid")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One question.

    Attributes:
      idx: its number in the data set, from 0: the row of the file.
      question: the text, without any prompt around it.
      answer: the reference answer, bare: `42`, `\\frac{1}{2}`.
      solution: a worked solution, or an empty string.
    """

    idx: int
    question: str
    answer: str
    solution: str


def load_questions(
    dataset: str,
    *,
    data_dir: str | Path | None = None,
    file: str | Path | None = None,
    question_field: str | None = None,
    answer_field: str | None = None,
) -> list[Question]:
    """Every question of a data set, in the file's order.

    Args:
      dataset: one of `DATASETS`, or any name together with `file` or `data_dir`.
      data_dir: folder with local files; None takes the Hub.
      file: this file or folder instead.
      question_field: name of the question's field, instead of the data set's.
      answer_field: name of the answer's field, instead of the data set's.

    Raises:
      InputError: no such file, no such data set, the Hub cannot be reached, or a row is broken:
        the line names the file, its line, what was expected and what was found.
    """
    return [
        question
        for question, _ in load_named_questions(
            dataset,
            data_dir=data_dir,
            file=file,
            question_field=question_field,
            answer_field=answer_field,
        )
    ]


def load_named_questions(
    dataset: str,
    *,
    data_dir: str | Path | None = None,
    file: str | Path | None = None,
    question_field: str | None = None,
    answer_field: str | None = None,
) -> list[tuple[Question, int | str | None]]:
    """`load_questions`, each with the number or name that its row gives it (None: none)."""
    if dataset in _DRAWN and file is None:
        if data_dir is not None:
            raise InputError(
                f"data_dir: expected a data set with files, found {dataset}, which is drawn; leave "
                f"{data_dir} out or choose another --dataset"
            )
        return [(question, None) for question in _drawn(dataset)]
    if file is not None and data_dir is not None:
        raise InputError(
            f"questions: {file} and data_dir {data_dir} contradict each other; give one of them"
        )
    known = SOURCES.get(dataset)
    source = known or Source(question="question", answer="answer", folders=(dataset,))
    source = dataclasses.replace(
        source,
        question=question_field or source.question,
        answer=answer_field or source.answer,
    )
    if file is None and data_dir is not None:
        file = local_file(dataset, source, Path(data_dir))
    if file is not None:
        paths = [Path(file)]
    elif known:
        paths = hub_files(dataset, source)
    else:
        raise InputError(
            f"data set {dataset!r}: expected one of {', '.join(DATASETS)}, or a jsonl file with "
            "questions; found neither"
        )
    rows = [row for path in paths for row in read_records(path, "questions")]
    if not rows:
        raise InputError(f"{paths[0]}: expected at least one question, found none")
    return [
        (_question(idx, place, row, source, chosen=question_field is not None), _name(row))
        for idx, (place, row) in enumerate(rows)
    ]


def _name(row: dict) -> int | str | None:
    found = (row.get(name) for name in _NAMES)
    return next((name for name in found if type(name) in (int, str) and name != ""), None)


def _drawn(dataset: str) -> list[Question]:
    return [
        Question(
            idx=idx,
            question=problem.question,
            answer=problem.answer,
            solution=problem.solution("worked").strip(),
        )
        for idx, problem in enumerate(_DRAWN[dataset](_DRAWN_SEED, DRAWN_QUESTIONS, "test"))
    ]


def _question(idx: int, place: str, row: dict, source: Source, *, chosen: bool) -> Question:
    question = _asked(row, source.question, place, chosen)
    solution = row.get("solution")
    solution = solution if isinstance(solution, str) else ""
    if source.answer:
        answer = _answer(row, source.answer, place)
    elif "answer" in row:
        answer = _answer(row, "answer", place)
    else:
        answer = (extract_boxed(_text(row, "solution", place)) or "").strip()
        if not answer:
            raise InputError(
                f"{place}: expected an answer or a \\boxed{{}} in solution, found none"
            )
    answer, worked = split_worked(answer, place)
    solution = worked or solution
    return Question(idx=idx, question=question, answer=answer, solution=solution)


def _asked(row: dict, field: str, place: str, chosen: bool) -> str:
    """The question's text: of one field or several (`Body+Question`), its choices under it."""
    fields = [field] if field in row or "+" not in field else field.split("+")
    other = next(
        (
            name
            for name in (_BODIES if chosen else _BODIES + _CONTEXTS)
            if isinstance(row.get(name), str) and name not in fields and row[name].strip()
        ),
        None,
    )
    if other is not None and not ("question_concat" in fields or row[other] in str(row.get(field))):
        own = field if field in row else next((k for k in row if k.lower() == "question"), field)
        raise InputError(
            f"{place}: expected the whole question in one field, found {other!r} beside {own!r}; "
            f"--question_field={other}+{own} asks both"
            + ("" if other in _BODIES else f", --question_field={own} that alone")
        )
    text = " ".join(_text(row, name, place) for name in fields)
    printed = [f"{letter}{text}" for letter, text in choices_of(row)]
    if printed and not all(line.strip() in text for line in printed):
        text = "\n".join([text, *printed])
    return text


def _answer(row: dict, field: str, place: str) -> str:
    """The right answer; of choices its letter, where the field is a number of them from 0."""
    answer, choices = row.get(field), choices_of(row)
    if type(answer) is int and choices:
        if not 0 <= answer < len(choices):
            raise InputError(
                f"{place}: {field}: expected the number of a choice from 0 to {len(choices) - 1}, "
                f"found {answer}"
            )
        return string.ascii_uppercase[answer]
    return _text(row, field, place)


def _text(row: dict, field: str, place: str) -> str:
    if field not in row:
        raise InputError(
            f"{place}: expected a field {field!r}, found {', '.join(map(str, row)) or 'none'}"
        )
    value = row[field]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: expected text in field {field!r}, found {value!r}")
    return value.strip()


def split_worked(answer: str, place: str) -> tuple[str, str]:
    """(bare answer, worked solution or nothing): GSM8K's answer field holds both, with #### between.

    Raises:
      InputError: nothing follows the ####.
    """
    if "####" not in answer:
        return answer, ""
    bare = answer.rsplit("####", 1)[1].strip()
    if not bare:
        raise InputError(f"{place}: expected the answer after ####, found nothing")
    return bare, answer
