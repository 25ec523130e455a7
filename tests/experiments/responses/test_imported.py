"""Other programs' answers: token ids are kept, texts are tokenised and must come back whole."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from experiments.arithmetic.problems import draw_problems
from experiments.errors import InputError
from experiments.responses.imported import import_answers
from experiments.responses.joining import QuestionIndex
from experiments.responses.questions import Question
from experiments.study.pairs import PAIRS

START = Path(__file__).resolve().parents[3] / "experiments" / "checkpoints" / "tiny_start"
PROMPT = PAIRS["tiny_grpo"].prompt


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(START, local_files_only=True)


@pytest.fixture(scope="module")
def problems():
    return draw_problems(5, 3, "test")


def write(path: Path, rows: list) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def imported(path, tokenizer, **settings):
    return import_answers(path, tokenizer=tokenizer, prompt=PROMPT, **settings)


def test_harness_rows_keep_their_ids_and_verdicts(tmp_path, tokenizer, problems):
    problem = problems[0]
    prompt = tokenizer(problem.prompt)["input_ids"]
    answer = [*tokenizer(problem.solution("worked"))["input_ids"], tokenizer.eos_token_id]
    rows = [
        {
            "idx": 7, "question": problem.question, "gt": problem.answer, "pred": ["12"],
            "score": [False], "prompt_token_ids": prompt, "generate_token_ids": [answer],
        }
    ]  # fmt: skip
    (found,) = imported(write(tmp_path / "side.jsonl", rows), tokenizer)
    assert (found.idx, found.prompt_tokens, found.answer_tokens) == (7, prompt, answer)
    # The file's own verdict stands, although the answer is right.
    assert (found.score, found.pred) == (False, "12")
    assert found.text.strip() == problem.solution("worked").strip()


@pytest.mark.parametrize(
    "row_of",
    [
        lambda p, text: {"idx": 0, "prompt": p.prompt, "response": text, "answer": p.answer},
        lambda p, text: {"prompt": p.prompt, "outputs": [{"text": text}], "gt": p.answer},
        lambda p, text: {
            "doc_id": 0, "doc": {"question": p.question, "answer": p.answer}, "resps": [[text]],
        },
    ],
    ids=["plain", "vllm", "lm-eval"],
)  # fmt: skip
def test_text_rows_are_tokenised_and_graded(tmp_path, tokenizer, problems, row_of):
    for problem in problems:
        for style, right in (("worked", True), ("short", False)):
            text = problem.solution(style)
            if not right:
                text = text.replace(f"{{{problem.answer}}}", "{99999}".replace("99999", "1000"))
            row = row_of(problem, text)
            (found,) = imported(write(tmp_path / "side.jsonl", [row]), tokenizer)
            assert found.idx == 0
            assert found.prompt_tokens == tokenizer(problem.prompt)["input_ids"]
            assert tokenizer.decode(found.answer_tokens) == text
            assert found.gt == problem.answer
            assert found.score is right


def test_gsm8ks_own_answers_are_references_too(tmp_path, tokenizer, problems):
    """vLLM and lm-eval dumps of GSM8K hold its answer field: the solution, then ####."""
    problem = problems[0]
    worked = f"so it is\n#### {problem.answer}"
    for fields in ({"answer": worked}, {"doc": {"question": "q", "answer": worked}}):
        row = {"prompt": problem.prompt, "response": problem.solution("worked"), **fields}
        (found,) = imported(write(tmp_path / "side.jsonl", [row]), tokenizer)
        assert (found.gt, found.solution, found.score) == (problem.answer, worked, True)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda text: {"gen_args_0": {"arg_0": text, "arg_1": {"until": ["Q:"]}}},
        lambda text: [[text, {"until": ["Q:"]}]],
    ],
)
def test_lm_evals_own_prompt_is_what_the_model_read(tmp_path, tokenizer, problems, arguments):
    """Few-shot examples stand before the question."""
    first, second, _ = problems
    prompt = first.prompt + first.solution("worked") + "\n" + second.prompt
    row = {
        "doc_id": 0, "doc": {"question": second.question, "answer": second.answer},
        "arguments": arguments(prompt), "resps": [[second.solution("worked")]],
    }  # fmt: skip
    (found,) = imported(write(tmp_path / "side.jsonl", [row]), tokenizer)
    assert found.prompt_tokens == tokenizer(prompt)["input_ids"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{broken"], "line 1: expected a JSON object, found broken JSON"),
        (["[1]"], "line 1: expected a JSON object, found list"),
        ([], "expected at least one answer"),
        ([{"idx": 0, "prompt": "a"}], "line 1: read as text answers: expected an answer's text"),
        ([{"idx": 1.5, "prompt": "a", "response": "b", "gt": "1"}], "idx: expected a number or a"),
        ([{"idx": 0, "response": " 1", "gt": "1"}], "expected a prompt or a question"),
        ([{"idx": 0, "prompt": "Ada", "response": " 1"}], "expected a score or a right answer"),
        (
            [{"idx": 0, "prompt_token_ids": [1], "generate_token_ids": ["a"], "gt": "1"}],
            "generate_token_ids: expected a list of token ids",
        ),
        (
            [{"idx": 0, "prompt_token_ids": [-1], "generate_token_ids": [2], "gt": "1"}],
            "prompt_token_ids: expected a list of token ids",
        ),
        (
            [{"idx": 0, "prompt_token_ids": [1], "generate_token_ids": [2**33], "gt": "1"}],
            "generate_token_ids: expected a list of token ids",
        ),
        ([{"prompt": "", "response": " 1", "gt": "1"}], "expected a prompt or a question"),
        (
            [{"prompt": [{"role": "user"}], "response": " 1", "gt": "1"}],
            "prompt: expected messages with a role and text, found .*role",
        ),
        ([{"prompt": "Ada", "response": "\ud83d", "gt": "1"}], "found half a character"),
        ([{"prompt": "Ada", "response": " 1", "answer": "so ####"}], "answer after ####"),
        (
            [{"idx": 0, "prompt": "Ada", "response": " zebra", "gt": "1"}],
            "the answer's tokens do not give its text back: character",
        ),
        (
            [{"idx": 3, "prompt": "Ada", "response": " 1", "gt": "1"}] * 2,
            "line 2: idx 3: already on line 1",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_place(tmp_path, tokenizer, rows, message):
    with pytest.raises(InputError, match=message) as caught:
        imported(write(tmp_path / "side.jsonl", rows), tokenizer)
    assert "side.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"none\.jsonl"):
        imported(tmp_path / "none.jsonl", tokenizer)


def test_an_answer_is_named_where_its_file_or_its_question_has_a_number(tmp_path, tokenizer):
    row = {"prompt": "Ada", "response": " 1", "gt": "1"}
    rows = [row, row | {"prompt": "Tom", "idx": 7}, row | {"prompt": "Ada has", "id": "x"}]
    found = imported(write(tmp_path / "side.jsonl", rows), tokenizer)
    assert [(answer.idx, answer.named) for answer in found] == [(0, False), (7, True), ("x", True)]
    asked = Question(idx=5, question="Ada", answer="1", solution="")
    path = write(tmp_path / "joined.jsonl", [{"prompt": "Ada", "response": " 1"}])
    (joined,) = imported(path, tokenizer, questions=QuestionIndex([asked], [None]))
    assert (joined.idx, joined.named, joined.gt) == (5, True, "1")


def test_where_file_and_grading_differ_both_are_counted_in_a_line(tmp_path, tokenizer):
    """Two are right and called wrong, one is wrong and called right, three agree, one has no answer to
    compare with and keeps its verdict."""
    given = [(" 1", 0), (" 1", 0), (" 2", 1), (" 1", 1), (" 1", 1), (" 2", 0), (" 2", 1)]
    rows = [
        {
            "idx": n,
            "prompt": f"Ada {n}",
            "response": text,
            "score": score,
            "gt": "1",
            "finish_reason": "stop",
        }
        for n, (text, score) in enumerate(given)
    ]
    del rows[-1]["gt"]
    path, said = write(tmp_path / "side.jsonl", rows), []
    found = imported(path, tokenizer, say=said.append)
    assert [answer.score for answer in found] == [False, False, False, True, True, False, True]
    assert said == [
        f"{path}: read as text answers: 7 answers",
        f"{path}: 2 answers are right here but wrong for the file: not counted",
        f"{path}: 1 answers are right for the file but wrong here: not counted",
    ]


@pytest.mark.parametrize(("stops", "expected"), [((), "own"), ((9, "own"), "own"), ((9, 8), 9)])
def test_the_stop_token_is_the_tokenizers_own_where_the_model_stops_there(
    tmp_path, tokenizer, stops, expected
):
    own = tokenizer.eos_token_id
    stops = [own if stop == "own" else stop for stop in stops]
    row = {"prompt": "Ada", "response": " 1", "gt": "1", "finish_reason": "stop"}
    (found,) = imported(write(tmp_path / "side.jsonl", [row]), tokenizer, stops=stops)
    ids = tokenizer(" 1", add_special_tokens=False)["input_ids"]
    assert found.answer_tokens == [*ids, own if expected == "own" else expected]


def test_two_filters_without_a_verdict_leave_it_to_the_grading(tmp_path, tokenizer):
    rows = [
        {"doc_id": 3, "prompt": "Ada", "resps": [[" 1"]], "target": "1", "filter": name}
        for name in ("strict", "flexible")
    ]
    (found,) = imported(write(tmp_path / "side.jsonl", rows), tokenizer)
    assert found.score
    rows[1]["resps"] = [[" 2"]]
    with pytest.raises(
        InputError, match="line 2: .* doc_id 3: expected the same answer under filt"
    ):
        imported(write(tmp_path / "side.jsonl", rows), tokenizer)
