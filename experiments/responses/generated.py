"""One model's answers to questions: generated, graded, and saved as they end.

The file has one JSON line a question with the keys idx, question, gt, solution, prompt_tokens,
answer_tokens, text, pred, score. Lines are appended in the order in which answers end; a killed run
continues with the questions that have no line yet, and a line cut off by the kill is dropped and
answered again. Once all are there, the lines are put in order (by length of the prompt, then idx),
so the file does not tell how often it was killed.
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from tqdm import tqdm

from converters.load import Checkpoint
from eap_jax.generation import Sampling, finished
from experiments import store
from experiments.errors import InputError
from experiments.grading.grade import grade
from experiments.out_of_memory import Halving
from experiments.responses.questions import Question
from experiments.responses.tokenization import encode_prompt

# How often what was saved is forced to the disk.
_SYNC_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One question with one model's answer.

    Attributes:
      idx: number of the question in its dataset.
      question, gt, solution: text, right answer, and worked solution or None.
      prompt_tokens, answer_tokens: what the model read and wrote, its stop token included.
      text: the answer decoded.
      pred: the final answer found in it, or None.
      score: whether it is right.
    """

    idx: int
    question: str
    gt: str
    solution: str | None
    prompt_tokens: list[int]
    answer_tokens: list[int]
    text: str
    pred: str | None
    score: bool


def answer_questions(
    checkpoint: Checkpoint,
    tokenizer,
    questions: list[Question],
    prompt: str,
    *,
    sampling: Sampling,
    path: Path,
    rows: int,
    seed: int = 0,
    description: str = "answers",
) -> list[Answer]:
    """Answers to all questions, in the questions' order.

    Args:
      checkpoint, tokenizer: the model.
      questions: what to ask.
      prompt: text with the place `{question}`.
      sampling: how to decode.
      path: the file; existing lines are kept and not generated again.
      rows: questions decoded together; an answer that ends makes room for the next question.
      seed: of sampling; a question's answer does not depend on those beside it.
      description: label of the progress bar.

    Raises:
      InputError: the file holds an answer to another question, or a prompt has words that the
        tokenizer does not know, or ids that the model does not know.
      OutOfMemoryError: a quarter of the rows does not fit in memory, or one.
    """
    done = {answer.idx: answer for answer in read_answers(path, repair=True)}
    for question in questions:
        if question.idx in done and done[question.idx].question != question.question:
            raise InputError(
                f"{path}: idx {question.idx}: expected the question {question.question[:60]!r}, "
                f"found {done[question.idx].question[:60]!r}; choose another --workdir"
            )
    open_questions = [question for question in questions if question.idx not in done]
    prompts = {q.idx: encode_prompt(tokenizer, prompt, q) for q in open_questions}
    for idx, tokens in prompts.items():
        if max(tokens) >= checkpoint.config.vocab_size:
            raise InputError(
                f"question {idx}: expected token ids below the model's vocabulary size "
                f"{checkpoint.config.vocab_size}, found {max(tokens)}: the tokenizer is another's"
            )
    key = jax.random.key(seed)
    longest = max(map(len, prompts.values()), default=0)
    what = f"rows of {description} (prompts of up to {longest:,} tokens)"
    together = Halving(min(rows, len(open_questions)), what, tqdm.write)
    while open_questions:
        path.parent.mkdir(parents=True, exist_ok=True)
        places = jax.numpy.asarray([question.idx for question in open_questions])
        progress = tqdm(total=len(questions), initial=len(done), desc=description, unit="answer")
        try:
            found = finished(
                checkpoint.params,
                [prompts[question.idx] for question in open_questions],
                config=checkpoint.config,
                sampling=sampling,
                key=jax.vmap(lambda idx: jax.random.fold_in(key, idx))(places),
                rows=together.size,
            )
            with progress, path.open("a", encoding="utf-8") as file:
                for answer in _saved(found, open_questions, prompts, tokenizer, file, progress):
                    done[answer.idx] = answer
        except Exception as error:
            together.after(error)
        open_questions = [question for question in open_questions if question.idx not in done]
    settle(path)
    return [done[question.idx] for question in questions]


def _saved(found, questions, prompts, tokenizer, file, progress) -> Iterator[Answer]:
    """Each answer once its line is in the file: a kill loses none, a power cut those of a second."""
    tokens, begin, synced = 0, time.perf_counter(), 0.0
    for place, response in found:
        question = questions[place]
        answer = _graded(question, prompts[question.idx], response, tokenizer)
        file.write(format_answers([answer]))
        file.flush()
        if time.perf_counter() - synced > _SYNC_SECONDS:
            os.fsync(file.fileno())
            synced = time.perf_counter()
        tokens += len(response)
        rate = tokens / (time.perf_counter() - begin)
        progress.set_postfix_str(f"{rate:.0f} tokens/s", refresh=False)
        progress.update()
        yield answer
    os.fsync(file.fileno())


def settle(path: Path) -> None:
    """Put a file's lines in the order that all runs end with, unless they are."""
    answers = read_answers(path)
    ordered = sorted(answers, key=lambda answer: (len(answer.prompt_tokens), answer.idx))
    if ordered != answers:
        store.write_text(path, format_answers(ordered))


def read_answers(path: Path, *, repair: bool = False) -> list[Answer]:
    """The answers saved so far, without a last line that a kill cut off.

    Args:
      path: the file; none holds no answers.
      repair: cut that line from the file. For who writes it only: it may be in the making.

    Raises:
      InputError: another line is broken; the message names it.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    answers = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            answers.append(Answer(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise InputError(f"{path}: line {number}: expected a saved answer: {error}") from None
    if repair and whole != text:
        with path.open("r+", encoding="utf-8") as file:
            file.truncate(len(whole.encode("utf-8")))
    return answers


def format_answers(answers: list[Answer]) -> str:
    """The file's lines of some answers."""
    return "".join(json.dumps(dataclasses.asdict(answer)) + "\n" for answer in answers)


def select_answers(answers: list[Answer], questions: list[Question]) -> list[Answer]:
    """The saved answers to given questions, in their order, or InputError if one is missing."""
    saved = {answer.idx: answer for answer in answers}
    missing = [question.idx for question in questions if question.idx not in saved]
    if missing:
        raise InputError(f"answers: expected one to question {missing[0]}, found none")
    return [saved[question.idx] for question in questions]


def both_right(base: list[Answer], rl: list[Answer]) -> list[dict]:
    """Rows of the published `all_correct.jsonl`: questions that both models answered correctly."""
    rows = []
    for one, other in zip(base, rl, strict=True):
        if one.score and other.score:
            row = {"idx": one.idx, "question": one.question, "gt": one.gt, "solution": one.solution}
            for side, answer in (("base", one), ("rl", other)):
                length = len(answer.prompt_tokens)
                row |= {
                    f"{side}_prompt_tokens": answer.prompt_tokens,
                    f"{side}_answer_tokens": answer.answer_tokens,
                    f"{side}_answer_tokens_range": [length, length + len(answer.answer_tokens)],
                    f"{side}_pred": answer.pred,
                    f"{side}_score": answer.score,
                }
            rows.append(row)
    return rows


def _graded(question: Question, prompt_tokens, answer_tokens, tokenizer) -> Answer:
    text = tokenizer.decode(answer_tokens, skip_special_tokens=True)
    verdict = grade(text, question.answer)
    return Answer(
        idx=question.idx,
        question=question.question,
        gt=question.answer,
        solution=question.solution,
        prompt_tokens=list(prompt_tokens),
        answer_tokens=list(answer_tokens),
        text=text,
        pred=verdict.extracted,
        score=verdict.correct,
    )
