"""Another program's answers of one model -> `ImportedAnswer`s.

Files are lines of JSON, JSON lists and objects, gzipped or not, and parquet (`records`). Their
formats stand in `formats`: lm-evaluation-harness (--log_samples), vLLM, OpenAI batch and chat, verl,
TRL, lighteval, OpenCompass, Open-R1, Qwen2.5-Math harness, deepseek-math, and rows with an answer in
`response`, `output`, `text` or the like beside `prompt` or `question` and `gt`, `answer` or `target`.

What is taken where a file leaves a choice, each said in one line:

* token ids are used as they are; text is tokenised behind its prompt (`continuation`);
* of several samples in one row, and of several rows of one question, the first. Rows that repeat an
  idx are refused, but for lm-evaluation-harness, which writes one a filter: the answer is right where
  one of its filters says so;
* an answer that the file calls wrong is wrong, one that it calls right must be right here too, but
  for the Qwen2.5-Math harness, whose verdicts are kept. Rows whose answer is null are left out;
* the stop token ends an answer that says that it ended by itself (finish_reason stop). Where nothing
  is said none is added;
* with questions, every answer is joined to one: by the question, else the prompt that ends with it,
  else, where a row has neither, by its number.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.errors import InputError
from experiments.grading.grade import grade
from experiments.responses.continuation import continue_prompt, prompt_of_ids
from experiments.responses.foreign_prompts import Prompts
from experiments.responses.foreign_rows import ForeignRow, read_row
from experiments.responses.formats import Format, format_of
from experiments.responses.generated import Answer
from experiments.responses.joining import QuestionIndex, normal
from experiments.responses.questions import Question
from experiments.responses.records import read_records


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedAnswer(Answer):
    """An answer, and how it can be paired.

    Attributes:
      prompt: what the model read, as text.
      named: idx stands in the file; else it is the row's place.
    """

    prompt: str
    named: bool

    def plain(self) -> Answer:
        """The answer as one that was generated here."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Answer)}
        return Answer(**own)


def _silent(_: str) -> None:
    pass


def import_answers(
    path: Path,
    *,
    tokenizer,
    prompt: str,
    questions: QuestionIndex | None = None,
    stops: Sequence[int] = (),
    say: Callable[[str], None] = _silent,
) -> list[ImportedAnswer]:
    """The answers of a file, in its order, one a question.

    Args:
      path: the file.
      tokenizer: of the model that answered.
      prompt: the pair's prompt, for rows that hold a question and no prompt.
      questions: what the answers are joined to, or None: each row has its right answer or verdict.
      stops: ids that end an answer of this model.
      say: receives one line for each fact that a user should see.

    Raises:
      InputError: a row is broken, lacks a field or repeats an idx, belongs to no question, or a text
        changes when it is tokenised; the message names the row, and the format it was read as.
    """
    records = list(read_records(path, "answers"))
    if not records:
        raise InputError(f"{path}: expected at least one answer, found none")
    known = format_of(records[0][1])
    rows = [read_row(fields, place, known) for place, fields in records]
    notes = Counter({"rows hold no answer (null) and are left out": rows.count(None)})
    given = [_with_prompt(row, tokenizer) for row in rows if row is not None]
    asked = _one_a_question(given, known, questions, notes)
    if not asked:
        raise InputError(f"{path}: read as {known.name}: expected at least one answer, found none")
    prompts = Prompts(tokenizer, prompt, lost=known.special_tokens_lost, notes=notes)
    answers = [
        _answer(row, question, number, known, prompts, stops, notes)
        for number, (row, question) in enumerate(asked)
    ]
    say(f"{path}: read as {known.name}: {len(answers)} answers")
    for note, count in notes.items():
        if count:
            say(f"{path}: {count} {note}")
    return answers


def sample_of(text: str) -> str:
    """A text's beginning, for messages."""
    return repr(text[:60])


Asked = tuple[ForeignRow, Question | None]


def _with_prompt(row: ForeignRow, tokenizer) -> ForeignRow:
    """A row whose prompt is there as ids only gets its text."""
    if row.prompt is not None or row.prompt_ids is None:
        return row
    text = prompt_of_ids(tokenizer, row.prompt_ids).text
    return dataclasses.replace(row, prompt=text if text.strip() else None)


def _one_a_question(
    rows: list[ForeignRow], known: Format, index: QuestionIndex | None, notes: Counter
) -> list[Asked]:
    """Each question's first answer, joined."""
    kept: dict[tuple, Asked] = {}
    by_name: dict[int | str, tuple] = {}
    notes["rows hold several answers: the first is taken"] += sum(row.samples > 1 for row in rows)
    for number, row in enumerate(rows):
        question = None if index is None else _join(row, known, index, notes)
        key = _key(row, question, number)
        first = kept.get(by_name.get(row.name, key) if row.name is not None else key)
        if first is None:
            kept[key] = (row, question)
            if row.name is not None:
                by_name[row.name] = key
            continue
        other = first[0]
        same = row.name is not None and row.name == other.name
        if same and row.filter is not None and row.filter != other.filter:
            if (row.text, row.prompt) != (other.text, other.prompt):
                raise InputError(
                    f"{row.place}: read as {known.name}: doc_id {row.name}: expected the same answer "
                    f"under filter {row.filter} as under {other.filter}, found another; the file "
                    "holds two tasks"
                )
            verdicts = [one for one in (row.verdict, other.verdict) if one is not None]
            merged = dataclasses.replace(other, verdict=any(verdicts) if verdicts else None)
            at = by_name[row.name]
            kept[at] = (merged, kept[at][1])
            notes["rows repeat an answer under another filter"] += 1
        elif same:
            line = other.place.rpartition(": ")[2]
            raise InputError(
                f"{row.place}: idx {row.name}: already on {line}; leave one answer a question"
            )
        else:
            notes["rows answer a question again: the first answer is taken"] += 1
    return list(kept.values())


def _key(row: ForeignRow, question: Question | None, number: int) -> tuple:
    """What two answers to one question share."""
    if question is not None:
        return ("joined", question.idx)
    if row.question:
        return ("question", normal(row.question))
    if row.prompt is not None:
        return ("prompt", normal(str(row.prompt)))
    return ("ids", tuple(row.prompt_ids)) if row.prompt_ids else ("row", number)


def _join(row: ForeignRow, known: Format, index: QuestionIndex, notes: Counter) -> Question | None:
    """The question of an answer; None where there is none and the row has its own right answer.

    Raises:
      InputError: there is none.
    """
    label = f"{row.place}: read as {known.name}"
    prompt = row.prompt if isinstance(row.prompt, str) else _last_user(row)
    if row.question:
        found, said = index.by_text(row.question, row.name), f"question {sample_of(row.question)}"
        if found is None and prompt:
            found = index.in_prompt(prompt, row.name)
    elif prompt:
        found, said = index.in_prompt(prompt, row.name), f"prompt {sample_of(prompt)}"
    elif row.name is not None:
        found, said = index.by_name(row.name), f"number {row.name!r}"
    else:
        found, said = None, "row without question, prompt and number"
    if found is None and row.truth is None:
        raise InputError(
            f"{label}: expected an answer to one of --questions, found the {said}, which is that of "
            "none, or of several; add the question there, or leave the answer out"
        )
    notes["answers are to none of --questions and keep their own right answer"] += found is None
    return found


def _last_user(row: ForeignRow) -> str | None:
    if not row.prompt:
        return None
    said = [turn["content"] for turn in row.prompt if turn["role"] == "user"]
    return said[-1] if said else None


def _answer(
    row: ForeignRow,
    question: Question | None,
    number: int,
    known: Format,
    prompts: Prompts,
    stops: Sequence[int],
    notes: Counter,
) -> ImportedAnswer:
    label = f"{row.place}: read as {known.name}"
    tokenizer = prompts.tokenizer
    asked = question.question if question else row.question
    read = prompts.of(row, asked, label)
    tokens, text = row.answer_ids, row.text
    if tokens is None:
        found = continue_prompt(tokenizer, read, text, label)
        tokens = found.tokens + _ending(row, tokenizer, stops, notes)
        if not found.together:
            notes["answers merge with their prompt's end and are tokenised apart from it"] += 1
    elif text is None:
        text = tokenizer.decode(tokens, skip_special_tokens=True)
    truth = row.truth if row.truth is not None else question.answer if question else None
    verdict = _verdict(row, text, truth, known, label, notes)
    idx = question.idx if question else number if row.name is None else row.name
    return ImportedAnswer(
        idx=idx,
        question=asked or prompts.question_in(read.text) or "",
        gt=truth or "",
        solution=row.solution or (question.solution if question else None) or None,
        prompt_tokens=read.tokens,
        answer_tokens=tokens,
        text=text,
        pred=verdict[1],
        score=verdict[0],
        prompt=read.text,
        named=question is not None or row.name is not None,
    )


def _ending(row: ForeignRow, tokenizer, stops: Sequence[int], notes: Counter) -> list[int]:
    """The stop token of an answer that ended by itself."""
    if row.stop is not None:
        return [row.stop]
    if row.finish is None:
        notes["answers do not say how they ended: no stop token is added"] += 1
    if row.finish not in ("stop", "eos", "eos_token", "end_turn"):
        return []
    own = tokenizer.eos_token_id
    return [own] if own in stops or (not stops and own is not None) else list(stops[:1])


def _verdict(
    row: ForeignRow, text: str, truth: str | None, known: Format, label: str, notes: Counter
) -> tuple[bool, str | None]:
    """Whether an answer is right, and the final answer found in it."""
    if truth is None and row.verdict is None:
        raise InputError(
            f"{label}: expected a score or a right answer in one of {', '.join(known.truth)}, found "
            "neither; pass the questions with their answers by --questions"
        )
    if row.verdict is not None and (known.verdict_stands or truth is None):
        return row.verdict, row.pred
    graded = grade(text, truth)
    if row.verdict is False:
        notes["answers are right here but wrong for the file: not counted"] += graded.correct
        return False, graded.extracted
    if row.verdict and not graded.correct:
        notes["answers are right for the file but wrong here: not counted"] += 1
    return graded.correct, graded.extracted
