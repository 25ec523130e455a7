"""Files as other programs write them: questions, texts, ids, right answers and verdicts are read."""

import gzip
import json

import pytest
from byte_tokenizer import CHATML, END, byte_tokenizer

from experiments.errors import InputError
from experiments.responses.imported import import_answers
from experiments.responses.joining import QuestionIndex
from experiments.responses.questions import load_named_questions

PROMPT = "Question: {question}\nAnswer:"
ASKED = ("Lea hat 5 Äpfel und isst 2. Wie viele?", "What is 6 × 7?")
TRUTH = ("3", "42")
WRITTEN = (" 5 - 2 = 3.\n#### 3", " 6 × 7 is 41, so 41.")  # the second is wrong
PROMPTS = tuple(PROMPT.replace("{question}", asked) for asked in ASKED)
# Where an answer's ids are the file's own they are not those of its text.
IDS = ([7, 8, 9, END], [9, 9, END])


def rows(row_of) -> list[dict]:
    return [row_of(number) for number in range(2)]


def user(number: int) -> list[dict]:
    return [{"role": "user", "content": ASKED[number]}]


def lm_eval(number: int, **changed) -> dict:
    return {
        "doc_id": number, "doc": {"question": ASKED[number], "answer": TRUTH[number]},
        "target": TRUTH[number], "arguments": {"gen_args_0": {"arg_0": PROMPTS[number], "arg_1": {}}},
        "resps": [[WRITTEN[number]]], "filtered_resps": ["x"], "filter": "none", "exact_match": 1.0,
    } | changed  # fmt: skip


def vllm(number: int, **changed) -> dict:
    return {
        "request_id": str(number), "prompt": PROMPTS[number], "prompt_token_ids": [4, 5, 6 + number],
        "outputs": [{"index": 0, "text": WRITTEN[number], "token_ids": IDS[number],
                     "finish_reason": "stop", "stop_reason": None}],
        "answer": TRUTH[number],
    } | changed  # fmt: skip


def openai(number: int, **changed) -> dict:
    choice = {"index": 0, "message": {"role": "assistant", "content": WRITTEN[number]},
              "finish_reason": "stop"}  # fmt: skip
    return {
        "id": f"batch_{number}", "custom_id": f"task-{number}", "error": None,
        "response": {"status_code": 200, "body": {"choices": [choice]}},
    } | changed  # fmt: skip


# name: (rows, needs questions, ids are the file's, ends with the stop token)
FILES = {
    "lm-eval": (rows(lm_eval), False, False, False),
    "lm-eval, two filters": (
        rows(lm_eval) + rows(lambda n: lm_eval(n, filter="flexible", exact_match=0)),
        False, False, False,
    ),
    "lm-eval, three samples": (
        rows(lambda n: lm_eval(n, resps=[[WRITTEN[n], "a", "b"]])), False, False, False,
    ),
    "lm-eval, chat as JSON": (
        rows(lambda n: lm_eval(n, arguments={"gen_args_0": {"arg_0": [json.dumps(user(n))]}})),
        False, False, False,
    ),
    "lm-eval, chat as messages": (
        rows(lambda n: lm_eval(n, arguments={"gen_args_0": {"arg_0": user(n)}})),
        False, False, False,
    ),
    "lm-eval, integer answer and null target": (
        rows(lambda n: lm_eval(n, doc={"question": ASKED[n], "answer": int(TRUTH[n])}, target=None)),
        False, False, False,
    ),
    "lm-eval, null answer": (
        rows(lambda n: lm_eval(n, doc={"question": ASKED[n], "answer": None}, target=TRUTH[n])),
        False, False, False,
    ),
    "vLLM": (rows(vllm), False, True, True),
    "vLLM, no prompt text, no answer": (
        rows(lambda n: vllm(n, prompt=None, answer=None, question=ASKED[n])), True, True, True,
    ),
    "vLLM, text only": (
        rows(lambda n: vllm(n, prompt_token_ids=None, outputs=[
            {"text": WRITTEN[n], "token_ids": None, "finish_reason": "stop"}])),
        False, False, True,
    ),
    "flat ids": (
        rows(lambda n: {"prompt": PROMPTS[n], "prompt_token_ids": [4, 5], "text": WRITTEN[n],
                        "output_token_ids": IDS[n], "gt": TRUTH[n]}),
        False, True, True,
    ),
    "OpenAI batch": (rows(openai), True, False, True),
    "OpenAI chat": (
        rows(lambda n: openai(n)["response"]["body"] | {"messages": user(n), "gold": TRUTH[n]}),
        False, False, True,
    ),
    "chat messages": (
        rows(lambda n: {"id": f"q{n}", "answer": TRUTH[n], "messages": [
            *user(n), {"role": "assistant", "content": WRITTEN[n]}]}),
        False, False, False,
    ),
    "verl dump": (
        rows(lambda n: {"input": f"user\n{ASKED[n]}\nassistant\n", "output": WRITTEN[n],
                        "gts": TRUTH[n], "score": 1.0, "step": 3}),
        False, False, False,
    ),
    "verl generations": (
        rows(lambda n: {"data_source": "own", "prompt": user(n), "responses": [WRITTEN[n], "x"],
                        "reward_model": {"ground_truth": TRUTH[n], "style": "rule"},
                        "extra_info": {"index": n, "question": ASKED[n]}}),
        False, False, False,
    ),
    "TRL": (
        rows(lambda n: {"step": 1, "prompt": user(n), "format_reward": 1.0,
                        "completion": [{"role": "assistant", "content": WRITTEN[n]}]}),
        True, False, False,
    ),
    "lighteval": (
        rows(lambda n: {
            "doc": {"query": PROMPTS[n], "choices": [TRUTH[n]], "gold_index": [0], "id": str(n)},
            "metric": {"extractive_match": 1.0},
            "model_response": {"text": [WRITTEN[n]], "input_tokens": [4, 5],
                               "output_tokens": [IDS[n]]}}),
        False, True, True,
    ),
    "lighteval, old": (
        rows(lambda n: {"full_prompt": PROMPTS[n], "gold": [TRUTH[n]], "predictions":
                        repr([WRITTEN[n]]), "metrics": {"extractive_match": 1}}),
        False, False, False,
    ),
    "OpenCompass": (
        {str(n): {"origin_prompt": [{"role": "HUMAN", "prompt": ASKED[n]}],
                  "prediction": WRITTEN[n], "gold": TRUTH[n]} for n in range(2)},
        False, False, False,
    ),
    "OpenCompass, text": (
        {str(n): {"origin_prompt": PROMPTS[n], "prediction": WRITTEN[n], "gold": TRUTH[n]}
         for n in range(2)},
        False, False, False,
    ),
    "Open-R1": (
        rows(lambda n: {"uuid": f"u-{n}", "problem": ASKED[n], "answer": TRUTH[n], "solution": "s",
                        "generations": [WRITTEN[n], "x"], "correctness_math_verify": [True, False],
                        "finish_reasons": ["stop", "length"]}),
        False, False, True,
    ),
    "deepseek-math": (
        rows(lambda n: {"id": f"gsm-{n}", "messages": [*user(n), {"role": "assistant", "content": ""}],
                        "reference": "long", "answer": [TRUTH[n]], "model_output": WRITTEN[n],
                        "prediction": ["1"], "accuracy": 1.0}),
        False, False, False,
    ),
    "plain, missing prompt, extra and nested fields": (
        rows(lambda n: {"id": f"a/{n}", "question": ASKED[n], "response": {"text": WRITTEN[n]},
                        "gt": TRUTH[n], "meta": {"outputs": [1]}, "prompt": None, "score": None}),
        False, False, False,
    ),
}  # fmt: skip


def lines(found) -> bytes:
    """One row a line, some lines blank, Windows' line ends and a byte order mark."""
    return b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(row).encode() for row in found) + b"\r\n"


FORMS = {
    "lines": (lines, "a.jsonl"),
    "list": (lambda found: json.dumps(found, indent=1, ensure_ascii=False).encode(), "a.json"),
    "gz": (lambda found: gzip.compress(lines(found)), "a.jsonl.gz"),
    "inside": (lambda found: json.dumps({"config": {}, "results": found}).encode(), "a.json"),
}


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(CHATML)


@pytest.fixture
def index(tmp_path):
    file = tmp_path / "questions.jsonl"
    found = [{"id": n, "question": ASKED[n], "answer": TRUTH[n]} for n in (1, 0)]
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return QuestionIndex(*map(list, zip(*load_named_questions("q", file=file), strict=True)))


def imported(path, tokenizer, index=None, said=None):
    return import_answers(
        path,
        tokenizer=tokenizer,
        prompt=PROMPT,
        questions=index,
        stops=(END,),
        say=(said if said is not None else []).append,
    )


def write(tmp_path, found, form: str):
    write_as, name = FORMS[form]
    if isinstance(found, dict):
        text = json.dumps(found, indent=2 if form == "list" else None).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if form == "gz" else text)
    else:
        (tmp_path / name).write_bytes(write_as(found))
    return tmp_path / name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FILES)
def test_every_format_in_every_form_is_read_right(tmp_path, tokenizer, index, name, form):
    found, needs_questions, own_ids, ends = FILES[name]
    path = write(tmp_path, found, form)
    if needs_questions:
        with pytest.raises(InputError, match=r"read as .*--questions"):
            imported(path, tokenizer)
    said: list[str] = []
    answers = imported(path, tokenizer, index if needs_questions else None, said)
    assert [answer.text for answer in answers] == list(WRITTEN)
    assert [answer.gt for answer in answers] == list(TRUTH)
    # The second is wrong, whatever the file says of it; under no filter is the first wrong.
    assert [answer.score for answer in answers] == [True, False]
    for number, answer in enumerate(answers):
        assert ASKED[number] in (answer.question, answer.question or ASKED[number])
        tokens = answer.answer_tokens
        if own_ids:
            assert tokens == IDS[number]
        else:
            assert tokens == tokenizer(WRITTEN[number])["input_ids"] + [END] * ends
            assert ASKED[number] in tokenizer.decode(answer.prompt_tokens)
        assert (tokens[-1] == END) == ends
    assert any("no stop token is added" in line for line in said) != ends
    assert all("\n" not in line for line in said)


def test_names_of_rows_are_kept_and_numbers_in_text_are_numbers(tmp_path, tokenizer):
    for name, expected in (("Open-R1", ["u-0", "u-1"]), ("OpenCompass", [0, 1])):
        path = write(tmp_path, FILES[name][0], "list")
        assert [answer.idx for answer in imported(path, tokenizer)] == expected


@pytest.mark.parametrize("name", ["OpenAI batch", "TRL", "vLLM, no prompt text, no answer"])
def test_joined_answers_get_their_questions_number_not_their_place(
    tmp_path, tokenizer, index, name
):
    """The questions' file has them in the other order."""
    path = write(tmp_path, FILES[name][0], "lines")
    answers = imported(path, tokenizer, index)
    assert [(answer.idx, answer.question) for answer in answers] == [(1, ASKED[0]), (0, ASKED[1])]


def test_chat_messages_are_rendered_by_the_template_with_its_special_tokens(tmp_path, tokenizer):
    for name in ("OpenAI chat", "lm-eval, chat as JSON", "verl dump", "OpenCompass"):
        path = write(tmp_path, FILES[name][0], "list")
        for number, answer in enumerate(imported(path, tokenizer)):
            expected = tokenizer.apply_chat_template(user(number), add_generation_prompt=True)
            assert answer.prompt_tokens == expected["input_ids"], name


def test_a_dump_whose_prompt_fits_no_template_is_tokenised_as_written_and_said(tmp_path):
    path = write(tmp_path, FILES["verl dump"][0], "lines")
    said: list[str] = []
    (first, _) = imported(path, tokenizer := byte_tokenizer(), None, said)
    assert tokenizer.decode(first.prompt_tokens) == f"user\n{ASKED[0]}\nassistant\n"
    assert any("2 prompts were written without special tokens" in line for line in said)


@pytest.mark.parametrize(
    ("fields", "right"),
    [
        ({"score": 0.0}, False), ({"correct": False}, False), ({"acc": "0"}, False),
        ({"exact_match": 0}, False), ({"score": 1, "acc": False}, False), ({"score": -1}, False),
        ({"correctness": [False]}, False), ({"score": 1.0}, True), ({"acc": True}, True),
        ({"score": 0.37}, True), ({"score": None}, True), ({}, True),
    ],
)  # fmt: skip
def test_an_answer_that_the_file_calls_wrong_is_not_counted(tmp_path, tokenizer, fields, right):
    row = {"prompt": PROMPTS[0], "response": WRITTEN[0], "gt": TRUTH[0]} | fields
    (answer,) = imported(write(tmp_path, [row], "lines"), tokenizer)
    assert answer.score is right


def test_right_under_one_filter_is_right_and_under_none_is_wrong(tmp_path, tokenizer):
    for verdicts, right in (((0, 1), True), ((1, 0), True), ((0, 0), False)):
        found = [lm_eval(0, filter=str(n), exact_match=v) for n, v in enumerate(verdicts)]
        (answer,) = imported(write(tmp_path, found, "lines"), tokenizer)
        assert answer.score is right


def test_several_answers_of_a_question_give_the_first_and_a_line(tmp_path, tokenizer):
    found = [
        {"input": PROMPTS[0], "output": f" {value}", "gts": "3", "step": 1} for value in (3, 4, 5)
    ]
    said: list[str] = []
    (answer,) = imported(write(tmp_path, found, "lines"), tokenizer, None, said)
    assert answer.text == " 3"
    assert any("2 rows answer a question again: the first answer is taken" in s for s in said)


def test_answers_that_are_null_are_left_out_with_a_count(tmp_path, tokenizer, index):
    found = [openai(0), openai(1, response=None, error={"message": "timeout"})]
    said: list[str] = []
    (answer,) = imported(write(tmp_path, found, "lines"), tokenizer, index, said)
    assert answer.question == ASKED[0]
    assert any("1 rows hold no answer (null) and are left out" in line for line in said)


@pytest.mark.parametrize(
    ("finish", "stop", "added"),
    [
        ("stop", None, [END]), ("length", None, []), ("stop", 1, [1]), ("stop", "Question:", []),
        (None, None, []),
    ],
)  # fmt: skip
def test_the_stop_token_ends_an_answer_that_ended_by_itself(
    tmp_path, tokenizer, finish, stop, added
):
    output = {"text": WRITTEN[0], "finish_reason": finish, "stop_reason": stop}
    path = write(tmp_path, [vllm(0, outputs=[output], prompt_token_ids=None)], "lines")
    (answer,) = imported(path, tokenizer)
    assert answer.answer_tokens == tokenizer(WRITTEN[0])["input_ids"] + added


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (lm_eval(0, resps=[[[-1.5, False]]]), "lm-evaluation-harness: resps: .*log-likelihoods"),
        (
            {k: v for k, v in lm_eval(0).items() if k != "resps"},
            "read as lm-evaluation-harness: expected an answer's text in resps, found none",
        ),
        (
            vllm(0, outputs=[{"text": "x", "token_ids": [1, "b"]}]),
            r"read as vLLM: outputs.0.token_ids: expected a list of token ids",
        ),
        (
            openai(0, response={"body": {"choices": [
                {"message": {"content": "x", "reasoning_content": "hm"}}]}}),
            "read as OpenAI batch: expected the whole answer .* without the server's reasoning",
        ),
        (
            {"prompt": [{"role": "clown", "content": "x"}], "completion": "y"},
            "read as TRL: prompt: expected messages with a role and text",
        ),
        (
            {"origin_prompt": "a", "prediction": 5, "gold": "5"},
            "read as OpenCompass: prediction: expected an answer's text, found a number",
        ),
        (
            {"id": 4, "answer": "5"},
            "read as text answers: expected an answer's text in response or .* the row has id, answer",
        ),
        (
            openai(0, custom_id="task-9"),
            "read as OpenAI batch: .* of --questions, found the number 'task-9'",
        ),
        (
            {"question": "Another?", "response": "1"},
            "read as text answers: .* of --questions, found the question 'Another",
        ),
    ],
)  # fmt: skip
def test_an_error_names_the_format_and_the_field(tmp_path, tokenizer, index, row, said):
    with pytest.raises(InputError, match=said) as caught:
        imported(write(tmp_path, [row], "lines"), tokenizer, index)
    assert "a.jsonl: line 1: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_holds_answers_too(tmp_path, tokenizer, index):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("TRL", "lighteval", "verl generations"):
        found, needs, _, _ = FILES[name]
        parquet.write_table(pyarrow.Table.from_pylist(found), tmp_path / "a.parquet")
        answers = imported(tmp_path / "a.parquet", tokenizer, index if needs else None)
        assert [(a.text, a.gt) for a in answers] == list(zip(WRITTEN, TRUTH, strict=True))
