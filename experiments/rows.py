"""The rows of a dataset: from a published-format file, from imported answers, or generated here."""

import json
from pathlib import Path

from transformers import AutoTokenizer

from eap_jax.generation import Sampling
from experiments import answers, store
from experiments.answers import Answer
from experiments.errors import InputError
from experiments.imports import import_answers
from experiments.questions import load_questions
from experiments.responses import (
    SIDES,
    Row,
    Side,
    check_vocabulary,
    format_rows,
    read_rows,
    row_of,
)
from experiments.study import OpenStudy, Say


def rows_of(opened: OpenStudy, dataset: str, say: Say) -> list[Row]:
    """Questions of a dataset that both models answered correctly, saved as all_correct.jsonl.

    Raises:
      InputError: a file is broken or belongs to another study; nothing is overwritten.
    """
    study = opened.study
    path = study.directory / dataset / "all_correct.jsonl"
    if study.responses is not None:
        rows, origin = read_rows(study.responses), study.responses
    else:
        given = _imported(opened) if study.imported else _generated(opened, dataset)
        for side in SIDES:
            right = sum(answer.score for answer in given[side])
            total = len(given[side])
            say(f"{dataset}, {side}: {right} of {total} answers right ({right / total:.1%})")
        rows = [row_of(fields) for fields in answers.both_right(given["base"], given["rl"])]
        origin = dataset
    for side in SIDES:
        check_vocabulary(rows, side, opened.configs[side].vocab_size, origin)
    text = format_rows(rows)
    if not path.exists():
        store.write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise InputError(f"{path}: holds other responses; choose another --workdir")
    return rows


def _imported(opened: OpenStudy) -> dict[Side, list[Answer]]:
    """Each side's answers from another program's files: those to questions that both files hold."""
    found = {
        side: import_answers(
            path,
            tokenizer=AutoTokenizer.from_pretrained(
                opened.checkpoints[side], local_files_only=True
            ),
            prompt=opened.study.pair.prompt,
        )
        for side, path in opened.study.imported.items()
    }
    shared = {answer.idx for answer in found["base"]} & {answer.idx for answer in found["rl"]}
    if not shared:
        raise InputError(
            f"{opened.study.imported['rl']}: expected answers to the questions of "
            f"{opened.study.imported['base']}, found no idx in common"
        )
    return {
        side: sorted((a for a in found[side] if a.idx in shared), key=lambda a: a.idx)
        for side in SIDES
    }


def _generated(opened: OpenStudy, dataset: str) -> dict[Side, list[Answer]]:
    """Each side's answers, generated and graded unless they are saved."""
    study, directory = opened.study, opened.study.directory / dataset
    source = study.questions
    questions = load_questions(
        dataset,
        data_dir=source.data_dir,
        file=source.file,
        question_field=source.question_field,
        answer_field=source.answer_field,
    )[: source.limit]
    stops = {side: _stop_tokens(opened.checkpoints[side]) for side in SIDES}
    store.claim(
        directory / "answers.json",
        {
            "checkpoints": opened.hashes,
            "prompt": study.pair.prompt,
            "max_new_tokens": study.pair.max_new_tokens,
            "stop_tokens": stops,
            "numerics": study.numerics,
        },
    )
    given = {}
    for side in SIDES:
        saved = directory / f"responses_{side}.jsonl"
        found = answers.read_answers(saved)
        if {question.idx for question in questions} <= {answer.idx for answer in found}:
            given[side] = answers.select_answers(found, questions)
            continue
        given[side] = answers.answer_questions(
            opened.load(side),
            AutoTokenizer.from_pretrained(opened.checkpoints[side], local_files_only=True),
            questions,
            study.pair.prompt,
            sampling=Sampling(max_new_tokens=study.pair.max_new_tokens, stop_tokens=stops[side]),
            path=saved,
            batch_size=study.batch_answers,
            description=f"{dataset} {side}: answer",
        )
    return given


def _stop_tokens(checkpoint: Path) -> tuple[int, ...]:
    """End-of-sequence ids from generation_config.json or config.json."""
    for name in ("generation_config.json", "config.json"):
        path = checkpoint / name
        if path.exists():
            stop = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            if stop is not None:
                return tuple(stop) if isinstance(stop, list) else (stop,)
    raise InputError(f"{checkpoint}: config.json: expected eos_token_id, found none")
