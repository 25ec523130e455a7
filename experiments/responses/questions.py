r"""Questions with their reference answers, from local jsonl files, the Hugging Face Hub or a generator.

| dataset | fields of a row | answer |
| --- | --- | --- |
| gsm8k | `question`, `answer` | `answer` |
| math | `problem`, `solution`, perhaps `answer` | `answer`, else the last `\boxed{}` of `solution` |
| college_math | `question`, `answer` | `answer` |
| arithmetic | none: drawn by `experiments.arithmetic.problems` | |
| any other name | named by flag (`question`, `answer` if not); perhaps `solution` | the named field |

Of an answer with `####`, GSM8K's own form, what follows the last one is the answer, and the whole is
the solution.

A file is looked for at DATA_DIR/<dataset>/test.jsonl, then DATA_DIR/<dataset>.jsonl; for math also
at DATA_DIR/math500/test.jsonl. Without a folder it comes from the Hub (or its local cache).
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from experiments.arithmetic.problems import draw_problems
from experiments.errors import InputError
from experiments.grading.boxes import extract_boxed
from experiments.jsonl import read_objects

DATASETS = ("gsm8k", "math", "college_math", "arithmetic")
ARITHMETIC_QUESTIONS = 500
_ARITHMETIC_SEED = 0


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source:
    """Fields of a data set and where the Hub keeps its test split.

    Attributes:
      question, answer: names of the fields. An empty `answer` means that rows need not have one.
      folders: folders (and file stems) under DATA_DIR, the preferred one first.
      repository: data set repository on the Hub, or None.
      files: patterns of the test split's files in it.
    """

    question: str
    answer: str
    folders: tuple[str, ...]
    repository: str | None = None
    files: tuple[str, ...] = ()


_SOURCES = {
    "gsm8k": _Source(
        question="question",
        answer="answer",
        folders=("gsm8k",),
        repository="openai/gsm8k",
        files=("main/test*.jsonl", "main/test*.parquet"),
    ),
    "math": _Source(
        question="problem",
        answer="",
        folders=("math", "math500"),
        repository="DigitalLearningGmbH/MATH-lighteval",
        files=("data/test*.jsonl", "data/test*.parquet"),
    ),
    "college_math": _Source(
        question="question",
        answer="answer",
        folders=("college_math",),
        repository="di-zhang-fdu/College_Math_Test",
        files=("*.jsonl", "*.parquet"),
    ),
}


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
      file: this jsonl file instead.
      question_field: name of the question's field, instead of the data set's.
      answer_field: name of the answer's field, instead of the data set's.

    Raises:
      InputError: no such file, no such data set, the Hub cannot be reached, or a row is broken:
        the line names the file, its line, what was expected and what was found.
    """
    if dataset == "arithmetic" and file is None:
        return _arithmetic()
    known = _SOURCES.get(dataset)
    source = known or _Source(question="question", answer="answer", folders=(dataset,))
    source = dataclasses.replace(
        source,
        question=question_field or source.question,
        answer=answer_field or source.answer,
    )
    if file is None and data_dir is not None:
        file = _local_file(dataset, source, Path(data_dir))
    if file is not None:
        paths = [Path(file)]
    elif known:
        paths = _hub_files(dataset, source)
    else:
        raise InputError(
            f"data set {dataset!r}: expected one of {', '.join(DATASETS)}, or a jsonl file with "
            "questions; found neither"
        )
    rows = [row for path in paths for row in _rows(path)]
    if not rows:
        raise InputError(f"{paths[0]}: expected at least one question, found none")
    return [_question(idx, place, row, source) for idx, (place, row) in enumerate(rows)]


def _arithmetic() -> list[Question]:
    problems = draw_problems(_ARITHMETIC_SEED, ARITHMETIC_QUESTIONS, "test")
    return [
        Question(
            idx=idx,
            question=problem.question,
            answer=problem.answer,
            solution=problem.solution("worked").strip(),
        )
        for idx, problem in enumerate(problems)
    ]


def _local_file(dataset: str, source: _Source, data_dir: Path) -> Path:
    places = [
        place
        for folder in source.folders
        for place in (data_dir / folder / "test.jsonl", data_dir / f"{folder}.jsonl")
    ]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"{data_dir}: expected the questions of {dataset} in "
        f"{' or '.join(str(place.relative_to(data_dir)) for place in places)}, found none of them"
    )


def _hub_files(dataset: str, source: _Source) -> list[Path]:
    """The test split's files from the Hub or its local cache; jsonl is preferred to parquet."""
    # Imported here: it takes half a second, and local files do not need it.
    import huggingface_hub

    advice = f"save it as DATA_DIR/{source.folders[0]}/test.jsonl and pass --data_dir=DATA_DIR"
    try:
        folder = huggingface_hub.snapshot_download(
            source.repository, repo_type="dataset", allow_patterns=list(source.files)
        )
    # The Hub's client raises its own errors, httpx's and OSError, and promises no common base.
    except Exception as error:
        raise InputError(
            f"{dataset}: cannot download data set {source.repository} from the Hugging Face Hub "
            f"({type(error).__name__}); {advice}"
        ) from error
    for pattern in source.files:
        found = sorted(Path(folder).glob(pattern))
        if found:
            return found
    raise InputError(
        f"{dataset}: expected {' or '.join(source.files)} in data set {source.repository} of the "
        f"Hugging Face Hub, found no such file; {advice}"
    )


def _rows(path: Path) -> Iterator[tuple[str, dict]]:
    """(place, row) of every row of a file."""
    return _parquet_rows(path) if path.suffix == ".parquet" else read_objects(path, "questions")


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            f"{path}: the Hub holds this data set as parquet; install pyarrow to read it, or pass "
            "a jsonl file by --data_dir"
        ) from None
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        found = " ".join(str(error).split())
        raise InputError(f"{path}: expected a parquet file, found {found}") from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}: row {number}", row


def _question(idx: int, place: str, row: dict, source: _Source) -> Question:
    question = _text(row, source.question, place)
    solution = row.get("solution")
    solution = solution if isinstance(solution, str) else ""
    if source.answer:
        answer = _text(row, source.answer, place)
    elif "answer" in row:
        answer = _text(row, "answer", place)
    else:
        answer = (extract_boxed(_text(row, "solution", place)) or "").strip()
        if not answer:
            raise InputError(
                f"{place}: expected an answer or a \\boxed{{}} in solution, found none"
            )
    answer, worked = split_worked(answer, place)
    solution = worked or solution
    return Question(idx=idx, question=question, answer=answer, solution=solution)


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


def _text(row: dict, field: str, place: str) -> str:
    if field not in row:
        raise InputError(f"{place}: expected a field {field!r}, found {', '.join(row) or 'none'}")
    value = row[field]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: expected text in field {field!r}, found {value!r}")
    return value.strip()
