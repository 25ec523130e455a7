"""The rows of a dataset: from a published-format file, from imported answers, or generated here."""

import dataclasses
import hashlib
import json

import jax

from eap_jax.generation import Sampling
from experiments import store
from experiments.errors import InputError
from experiments.responses import claimed_files, generated
from experiments.responses.both_prompts import check_prompts, say_prompts
from experiments.responses.generated import Answer
from experiments.responses.imported import import_answers
from experiments.responses.joining import QuestionIndex
from experiments.responses.pairing import pair_answers
from experiments.responses.published_format import (
    Row,
    check_vocabulary,
    format_rows,
    read_rows,
    row_of,
)
from experiments.responses.questions import load_named_questions, load_questions
from experiments.responses.shared_ids import SharedIds, embeddings_of
from experiments.responses.tokenization import encode_prompt, load_tokenizer, stop_tokens
from experiments.study.distributed import check_same, mirror
from experiments.study.numerics import product_precision
from experiments.study.opened import OpenStudy, Say
from experiments.study.pairs import SIDES, Side
from experiments.study.plan import plan_answers, shortage


def rows_of(opened: OpenStudy, dataset: str, say: Say, ids: SharedIds | None = None) -> list[Row]:
    """Questions of a dataset that both models answered correctly, saved as all_correct.jsonl.

    Args:
      opened: the study.
      dataset: its name.
      say: receives one line for each fact that a user should see.
      ids: what both models' ids are; None: only the lengths of their embeddings are looked at.

    Raises:
      InputError: a file is broken or belongs to another study; nothing is overwritten.
    """
    study, ids = opened.study, ids or embeddings_of(opened)
    path = study.directory / dataset / "all_correct.jsonl"
    names = ("answers.json", claimed_files.NAME, *(f"responses_{side}.jsonl" for side in SIDES))
    mirror(path, *(path.with_name(name) for name in names))
    if study.responses is not None:
        rows, origin = read_rows(study.responses), study.responses
        prompts = [(row.fields["idx"], row.base.prompt, row.rl.prompt) for row in rows]
        say_prompts(dataset, prompts, say)
    else:
        given = (
            _imported(opened, dataset, say)
            if study.imported
            else _generated(opened, dataset, ids, say)
        )
        for side in SIDES:
            right = sum(answer.score for answer in given[side])
            total = len(given[side])
            say(f"{dataset}, {side}: {right} of {total} answers right ({right / total:.1%})")
        rows = [row_of(fields) for fields in generated.both_right(given["base"], given["rl"])]
        origin = dataset
    for side in SIDES:
        check_vocabulary(rows, side, opened.configs[side].vocab_size, origin)
    if study.responses is not None:
        claimed_files.claim_files(opened, dataset)
    text = format_rows(rows)
    if not path.exists():
        store.write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise InputError(f"{path}: holds other responses; choose another --workdir")
    return rows


def _imported(opened: OpenStudy, dataset: str, say: Say) -> dict[Side, list[Answer]]:
    """Each side's answers from another program's files, saved as if they were generated here."""
    study, directory = opened.study, opened.study.directory / dataset
    source, index = study.questions, None
    if source.file is not None or source.data_dir is not None:
        named = load_named_questions(dataset, **source.where)
        index = QuestionIndex(*(list(part) for part in zip(*named, strict=True)))
    found = {
        side: import_answers(
            path,
            tokenizer=load_tokenizer(opened.checkpoints[side]),
            prompt=study.pair.prompt,
            questions=index,
            stops=stop_tokens(opened.checkpoints[side]),
            say=say,
        )
        for side, path in study.imported.items()
    }
    given = pair_answers(found["base"], found["rl"], study.imported)
    say(f"{dataset}: {len(given['base'])} questions that both files answer")
    pairs = zip(given["base"], given["rl"], strict=True)
    say_prompts(dataset, [(b.idx, b.prompt_tokens, r.prompt_tokens) for b, r in pairs], say)
    saved = {side: generated.format_answers(given[side]) for side in SIDES}
    digests = {side: _digest(text) for side, text in saved.items()}
    claimed_files.claim_files(opened, dataset)
    store.claim(directory / "answers.json", {"imported": digests})
    for side, text in saved.items():
        store.write_text(directory / f"responses_{side}.jsonl", text)
    return given


def _generated(
    opened: OpenStudy, dataset: str, ids: SharedIds, say: Say
) -> dict[Side, list[Answer]]:
    """Each side's answers, generated and graded unless they are saved."""
    study, directory = opened.study, opened.study.directory / dataset
    claimed_files.claim_files(opened, dataset)
    questions = load_questions(dataset, **study.questions.where)[: study.questions.limit]
    digest = _digest(json.dumps([dataclasses.astuple(q) for q in questions]))
    check_same(f"{dataset}: questions", digest)
    stops = {side: stop_tokens(opened.checkpoints[side]) for side in SIDES}
    paths = {side: directory / f"responses_{side}.jsonl" for side in SIDES}
    saved = {side: generated.read_answers(path) for side, path in paths.items()}
    if not any(saved.values()):
        # A run that failed before its first answer binds nobody to its settings.
        (directory / "answers.json").unlink(missing_ok=True)
    store.claim(
        directory / "answers.json",
        {
            "checkpoints": opened.hashes,
            "prompt": study.pair.prompt,
            "max_new_tokens": study.pair.max_new_tokens,
            "stop_tokens": stops,
            "dtypes": opened.answer_dtypes,
            "questions": {"number": len(questions), "sha256": digest},
        },
    )
    asked = {question.idx for question in questions}
    if any(not asked <= {answer.idx for answer in saved[side]} for side in SIDES):
        check_prompts(opened, dataset, questions, ids, say)
    given = {}
    for side in SIDES:
        if {question.idx for question in questions} <= {answer.idx for answer in saved[side]}:
            generated.settle(paths[side])
            given[side] = generated.select_answers(saved[side], questions)
            continue
        tokenizer = load_tokenizer(opened.checkpoints[side])
        width = max(len(encode_prompt(tokenizer, study.pair.prompt, q)) for q in questions)
        planned = plan_answers(
            opened.placed(side, opened.answer_dtypes[side]),
            opened.usable_bytes,
            width=width,
            new_tokens=study.pair.max_new_tokens,
            most_rows=study.batch_answers,
        )
        if not planned.fits:
            what = f"{planned.rows} answers of at most {planned.slots:,} tokens"
            short = shortage(what, planned.most, opened.usable_bytes)
            if opened.first_warning("answers"):
                say(f"{dataset}, {side}: warning: {short}; the run goes on")
        elif planned.rows < min(study.batch_answers, len(questions)):
            say(
                f"{dataset}, {side}: {planned.rows} answers together: the memory holds the keys and "
                f"values of so many, each of at most {planned.slots:,} tokens"
            )
        with jax.default_matmul_precision(product_precision(opened.answer_dtypes[side])):
            given[side] = generated.answer_questions(
                opened.load_to_answer(side),
                tokenizer,
                questions,
                study.pair.prompt,
                sampling=Sampling(
                    max_new_tokens=study.pair.max_new_tokens, stop_tokens=stops[side]
                ),
                path=paths[side],
                rows=planned.rows,
                description=f"{dataset} {side}: answer",
            )
    return given


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
