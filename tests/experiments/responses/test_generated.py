"""Answers are generated once each, graded, and survive a kill; rows both got right come out."""

import dataclasses
import json

import jax
import pytest
from transformers import AutoTokenizer

from converters.load import load_checkpoint
from eap_jax.generation import Sampling
from eap_jax.generation import finished as finish
from experiments.errors import InputError
from experiments.out_of_memory import OutOfMemoryError
from experiments.responses import generated
from experiments.responses.generated import (
    Answer,
    answer_questions,
    both_right,
    encode_prompt,
    read_answers,
    select_answers,
)
from experiments.responses.published_format import row_of
from experiments.responses.questions import Question, load_questions
from experiments.study.pairs import CHAT, DEFAULT_PAIR, PAIRS

PAIR = PAIRS[DEFAULT_PAIR]
ROWS = 4


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(PAIR.rl)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PAIR.rl)


@pytest.fixture(scope="module")
def questions():
    return load_questions("arithmetic")[:12]


@pytest.fixture
def ask(checkpoint, tokenizer, monkeypatch):
    """`answer_questions` with the embedded model; `ask.asked` lists the prompts it generated, and
    after `ask.until` answers it is killed."""

    def counted(params, prompts, **settings):
        run.asked += [tuple(prompt) for prompt in prompts]
        for count, answer in enumerate(finish(params, prompts, **settings)):
            if count == run.until:
                raise KeyboardInterrupt
            yield answer

    def run(questions, path, **changes):
        stop = (tokenizer.eos_token_id,)
        settings = {
            "sampling": Sampling(max_new_tokens=PAIR.max_new_tokens, stop_tokens=stop),
            "rows": ROWS,
        } | changes
        return answer_questions(
            checkpoint, tokenizer, questions, PAIR.prompt, path=path, **settings
        )

    run.asked, run.until = [], None
    monkeypatch.setattr(generated, "finished", counted)
    return run


@pytest.fixture(scope="module")
def finished(checkpoint, tokenizer, questions, tmp_path_factory):
    """Answers to all questions and the file they were saved to, from one unbroken run."""
    path = tmp_path_factory.mktemp("answers") / "responses_rl.jsonl"
    sampling = Sampling(max_new_tokens=PAIR.max_new_tokens, stop_tokens=(tokenizer.eos_token_id,))
    found = answer_questions(
        checkpoint,
        tokenizer,
        questions,
        PAIR.prompt,
        sampling=sampling,
        path=path,
        rows=ROWS,
    )
    return found, path


def test_answers_come_in_the_order_of_questions_with_what_the_model_read_and_wrote(
    finished, questions, tokenizer
):
    found, path = finished
    assert [(a.idx, a.question, a.gt) for a in found] == [
        (q.idx, q.question, q.answer) for q in questions
    ]
    for answer in found:
        asked = f"Question: {answer.question}\nAnswer:"
        assert answer.prompt_tokens == tokenizer(asked)["input_ids"]
        assert answer.answer_tokens[-1] == tokenizer.eos_token_id
        assert answer.text == tokenizer.decode(answer.answer_tokens, skip_special_tokens=True)
    saved = [json.loads(line) for line in path.read_text().splitlines()]
    by_idx = {line["idx"]: line for line in saved}
    assert len(saved) == len(by_idx) == 12
    assert [by_idx[a.idx] for a in found] == [dataclasses.asdict(a) for a in found]


def test_the_verdict_is_the_arithmetic_of_the_boxed_number(finished):
    """The embedded task has whole numbers, so plain integers are the oracle."""
    found, _ = finished
    for answer in found:
        boxed = answer.text.rsplit("\\boxed{", 1)[-1].split("}")[0].replace(" ", "")
        assert answer.pred.replace(" ", "") == boxed
        assert answer.score == (int(boxed) == int(answer.gt))
    assert sum(answer.score for answer in found) >= 6, "the embedded model has learned its task"


def test_a_killed_run_goes_on_where_it_stopped_and_ends_with_the_same_file(
    finished, questions, ask, tmp_path
):
    """The kill came while the sixth line was written."""
    expected, whole = finished
    lines = whole.read_bytes().splitlines(keepends=True)
    path = tmp_path / "responses.jsonl"
    path.write_bytes(b"".join(lines[5:0:-1]) + lines[0][:-30])
    assert ask(questions, path) == expected
    assert path.read_bytes() == whole.read_bytes()
    done = {tuple(json.loads(line)["prompt_tokens"]) for line in lines[1:6]}
    assert len(ask.asked) == len(set(ask.asked)) == 12 - 5
    assert not set(ask.asked) & done, "a saved answer was generated again"


def test_every_finished_answer_is_saved_before_the_next_is_waited_for(
    finished, questions, ask, tmp_path
):
    """Killed after 1, 5 and 2 more answers; no answer is generated twice."""
    expected, whole = finished
    path, saved = tmp_path / "responses.jsonl", b""
    for until in (1, 5, 2):
        ask.until = until
        with pytest.raises(KeyboardInterrupt):
            ask(questions, path)
        text = path.read_bytes()
        assert text.startswith(saved)
        assert text.count(b"\n") == saved.count(b"\n") + until
        saved = text
    ask.until, ask.asked = None, []
    assert ask(questions, path) == expected
    assert len(ask.asked) == 12 - 8
    assert path.read_bytes() == whole.read_bytes()


def test_an_answer_does_not_depend_on_the_batch_in_which_it_was_generated(
    finished, questions, ask, tmp_path
):
    expected, whole = finished
    lines = whole.read_text().splitlines(keepends=True)
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(lines[1::3]))  # other neighbours for the rest
    assert ask(questions, path) == expected
    assert path.read_bytes() == whole.read_bytes()


def test_a_finished_file_is_only_read(finished, questions, ask, tmp_path):
    expected, whole = finished
    path = tmp_path / "responses.jsonl"
    path.write_bytes(whole.read_bytes())
    assert ask(questions, path) == expected
    assert ask.asked == []
    assert ask(questions[3:5], path) == expected[3:5]
    assert path.read_bytes() == whole.read_bytes()


def test_a_file_killed_before_its_last_step_is_put_in_order(finished, questions, ask, tmp_path):
    """All lines are there, in the order in which the answers ended."""
    expected, whole = finished
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(reversed(whole.read_text().splitlines(keepends=True))))
    assert ask(questions, path) == expected
    assert ask.asked == []
    assert path.read_bytes() == whole.read_bytes()


def test_answers_that_do_not_fit_together_go_on_with_half_the_rows_from_where_they_were(
    finished, questions, ask, tmp_path, monkeypatch
):
    """More than two rows fail as XLA fails, after some answers; none of those is asked for again."""
    counted, rows = generated.finished, []

    def limited(params, prompts, **settings):
        rows.append(settings["rows"])
        for count, answer in enumerate(counted(params, prompts, **settings)):
            if settings["rows"] > 2 and count == 3:
                jax.numpy.zeros((2**18, 2**30)).block_until_ready()
            yield answer

    monkeypatch.setattr(generated, "finished", limited)
    expected, whole = finished
    path = tmp_path / "a"
    assert ask(questions, path, rows=8) == expected
    assert path.read_bytes() == whole.read_bytes()
    assert rows == [8, 4, 2]
    assert len(ask.asked) == 12 + 9 + 6
    with pytest.raises(OutOfMemoryError, match=r"3 rows of answers \(prompts of up to"):
        ask(questions, tmp_path / "b", rows=12)
    assert len(read_answers(tmp_path / "b")) == 9


def test_sampled_answers_belong_to_question_and_seed(questions, ask, tmp_path, tokenizer):
    sampling = Sampling(max_new_tokens=12, temperature=3.0, stop_tokens=(tokenizer.eos_token_id,))
    chosen = questions[:8]

    def texts(order, seed, name):
        found = ask(order, tmp_path / name, sampling=sampling, seed=seed)
        return {answer.idx: answer.answer_tokens for answer in found}

    first = texts(chosen, 0, "a")
    assert texts(list(reversed(chosen[1:5])), 0, "b") == {q.idx: first[q.idx] for q in chosen[1:5]}
    assert texts(chosen, 1, "c") != first
    twins = [dataclasses.replace(chosen[0], idx=idx) for idx in range(20, 24)]
    assert len({tuple(found) for found in texts(twins, 0, "d").values()}) == 4


def test_a_file_of_other_questions_is_refused_before_anything_is_generated(
    finished, questions, ask, tmp_path
):
    _, whole = finished
    path = tmp_path / "responses.jsonl"
    path.write_bytes(whole.read_bytes())
    other = dataclasses.replace(questions[2], question="What is 1 + 1?")
    with pytest.raises(InputError, match=rf"{path}: idx 2: expected the question 'What is 1 \+ 1"):
        ask([*questions[:2], other], path)
    assert ask.asked == []
    assert path.read_bytes() == whole.read_bytes()


def test_a_broken_line_in_the_middle_is_named_and_nothing_is_cut(finished, tmp_path):
    _, whole = finished
    lines = whole.read_text().splitlines(keepends=True)
    for number, broken in ((3, lines[2][:40] + "\n"), (1, "[]\n"), (2, '{"idx": 3}\n')):
        path = tmp_path / f"{number}.jsonl"
        text = "".join([*lines[: number - 1], broken, *lines[number:]])
        path.write_text(text)
        with pytest.raises(InputError, match=f"{path}: line {number}: expected a saved answer"):
            read_answers(path)
        assert path.read_text() == text


def test_a_reader_leaves_a_line_in_the_making_alone(finished, tmp_path):
    _, whole = finished
    text = whole.read_bytes()[:-30]
    path = tmp_path / "responses.jsonl"
    path.write_bytes(text)
    assert len(read_answers(path)) == 11
    assert path.read_bytes() == text
    assert len(read_answers(path, repair=True)) == 11
    assert path.read_bytes() == text[: text.rfind(b"\n") + 1]


def test_no_file_is_no_answers(tmp_path):
    assert read_answers(tmp_path / "none.jsonl") == []


def test_a_missing_answer_is_named(finished, questions):
    found, _ = finished
    assert select_answers(found, questions[4:2:-1]) == [found[4], found[3]]
    with pytest.raises(InputError, match="expected one to question 5, found none"):
        select_answers(found[:5], questions[:7])


def made_up(idx, score, pred, **changes):
    fields = {
        "idx": idx, "question": f"q{idx}", "gt": "2", "solution": None, "text": "2",
        "prompt_tokens": [1, 2], "answer_tokens": [3, 4, 5], "pred": pred, "score": score,
    }  # fmt: skip
    return Answer(**(fields | changes))


def test_rows_that_both_got_right_have_the_published_fields():
    base = [made_up(i, score, "2") for i, score in enumerate((True, True, False, False))]
    rl = [
        made_up(i, score, "two", answer_tokens=[7])
        for i, score in enumerate((True, False, True, False))
    ]
    assert both_right(base, rl) == [
        {
            "idx": 0, "question": "q0", "gt": "2", "solution": None,
            "base_prompt_tokens": [1, 2], "base_answer_tokens": [3, 4, 5],
            "base_answer_tokens_range": [2, 5], "base_pred": "2", "base_score": True,
            "rl_prompt_tokens": [1, 2], "rl_answer_tokens": [7],
            "rl_answer_tokens_range": [2, 3], "rl_pred": "two", "rl_score": True,
        }
    ]  # fmt: skip
    (row,) = both_right(base[:1], rl[:1])
    assert row_of(row).rl.answer == (7,), "the row format's own reader takes it"


def question(text):
    return Question(idx=5, question=text, answer="1", solution="")


def test_prompts_have_the_tokenizers_own_special_tokens(tokenizer):
    found = encode_prompt(tokenizer, "Question: {question}\nAnswer:", question("How many books?"))
    assert found == tokenizer("Question: How many books?\nAnswer:")["input_ids"]


def test_the_chat_template_brings_its_special_tokens_once():
    tokenizer = AutoTokenizer.from_pretrained(PAIR.rl)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ eos_token }}Question: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}Answer:{% endif %}"
    )
    found = encode_prompt(tokenizer, CHAT, question("How many books?"))
    plain = tokenizer("Question: How many books?\nAnswer:", add_special_tokens=False)["input_ids"]
    assert found == [tokenizer.eos_token_id, *plain]


def test_what_the_tokenizer_cannot_say_is_refused(tokenizer, checkpoint, tmp_path):
    said = "question 5: .* found ' Wie' in 'Question: Wie viele .*--prompt gives another"
    with pytest.raises(InputError, match=said):
        encode_prompt(tokenizer, PAIR.prompt, question("Wie viele Bücher?"))
    with pytest.raises(InputError, match="found no token in ''"):
        encode_prompt(tokenizer, "{question}", question(""))
    with pytest.raises(InputError, match="prompt chat: the tokenizer has no chat template"):
        encode_prompt(tokenizer, CHAT, question("How many books?"))
    tokenizer = AutoTokenizer.from_pretrained(PAIR.rl)
    tokenizer.add_tokens(["Bücher"])
    with pytest.raises(InputError, match="question 5: .* vocabulary size 76, found 76"):
        answer_questions(
            checkpoint,
            tokenizer,
            [question("How many Bücher")],
            PAIR.prompt,
            sampling=Sampling(max_new_tokens=2),
            path=tmp_path / "none.jsonl",
            rows=1,
        )
    assert not (tmp_path / "none.jsonl").exists()
