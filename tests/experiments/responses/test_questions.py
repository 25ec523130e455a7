r"""Questions: every format is read exactly, and every fault is one line that names file and line.

Real question files are tried where EAP_DATA_DIR names a folder with gsm8k/, college_math/ and
math500/ (each with test.jsonl); those tests are skipped elsewhere.
"""

import gzip
import json
import os
import re
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest

from experiments.errors import InputError
from experiments.grading.answer_form import canonical, join_thousands, words
from experiments.grading.equivalence import parsed, same_meaning
from experiments.grading.extraction import candidates
from experiments.grading.grade import grade
from experiments.posttrain.evaluate import TEST_SEED
from experiments.posttrain.task import TASKS
from experiments.responses.questions import DRAWN_QUESTIONS, Question, load_questions


def _write(path: Path, *rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _gsm8k(answer: str = "4 + 3 = 7\n#### 7") -> dict:
    return {"question": "Four plus three?", "answer": answer}


def test_gsm8k_answer_follows_the_last_hashes_and_the_whole_is_the_solution(tmp_path):
    text = "A line with #### in it.\n4 + 3 = 7\n#### 1,007"
    _write(tmp_path / "gsm8k" / "test.jsonl", _gsm8k(text), _gsm8k("8"))
    assert load_questions("gsm8k", data_dir=tmp_path) == [
        Question(idx=0, question="Four plus three?", answer="1,007", solution=text),
        Question(idx=1, question="Four plus three?", answer="8", solution=""),
    ]


def test_math_answer_is_the_field_or_else_the_last_box_of_the_solution(tmp_path):
    solution = r"First \boxed{1}, then $x = \boxed{\frac{a}{b^{2}}}$."
    _write(
        tmp_path / "math.jsonl",
        {"problem": "P?", "solution": solution},
        {"problem": "Q?", "solution": solution, "answer": "5"},
        {"problem": "R?", "answer": "6"},
    )
    assert load_questions("math", data_dir=tmp_path) == [
        Question(idx=0, question="P?", answer=r"\frac{a}{b^{2}}", solution=solution),
        Question(idx=1, question="Q?", answer="5", solution=solution),
        Question(idx=2, question="R?", answer="6", solution=""),
    ]


def test_college_math_answer_is_its_field(tmp_path):
    rows = {"question": " Q? ", "answer": " $x=1,2$ ", "data_topic": "algebra"}
    _write(tmp_path / "college_math" / "test.jsonl", rows)
    assert load_questions("college_math", data_dir=tmp_path) == [
        Question(idx=0, question="Q?", answer="$x=1,2$", solution="")
    ]


def test_any_file_is_read_by_the_names_of_its_fields(tmp_path):
    file = _write(tmp_path / "mine.jsonl", {"q": "Two?", "gold": 2, "solution": "one and one"})
    found = load_questions("mine", file=file, question_field="q", answer_field="gold")
    assert found == [Question(idx=0, question="Two?", answer="2", solution="one and one")]
    by_folder = load_questions("mine", data_dir=tmp_path, question_field="q", answer_field="gold")
    assert by_folder == found


@pytest.mark.parametrize(
    ("value", "answer"), [(7, "7"), (-0.5, "-0.5"), (10**20, "1" + "0" * 20), (0, "0")]
)
def test_answers_may_be_numbers(tmp_path, value, answer):
    file = _write(tmp_path / "n.jsonl", {"question": "?", "answer": value})
    assert load_questions("n", file=file)[0].answer == answer


def test_field_names_override_those_of_a_known_data_set(tmp_path):
    file = _write(tmp_path / "g.jsonl", {"text": "Q?", "label": "so\n#### 3"})
    found = load_questions("gsm8k", file=file, question_field="text", answer_field="label")
    assert (found[0].question, found[0].answer) == ("Q?", "3")


def test_unicode_line_separators_belong_to_the_text(tmp_path):
    text = "one\u2028two\u2029three\x85four\x0bfive"
    file = tmp_path / "u.jsonl"
    file.write_text(
        json.dumps({"question": text, "answer": "1"}, ensure_ascii=False) + "\n", "utf-8"
    )
    assert [question.question for question in load_questions("u", file=file)] == [text]


def test_byte_order_mark_blank_lines_and_windows_line_ends_are_no_rows(tmp_path):
    rows = [json.dumps({"question": f"{n}?", "answer": str(n)}).encode() for n in range(3)]
    file = tmp_path / "w.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b"\r\n \r\n\r\n".join(rows))
    found = load_questions("w", file=file)
    assert [(q.idx, q.question, q.answer) for q in found] == [
        (n, f"{n}?", str(n)) for n in range(3)
    ]


@pytest.mark.parametrize("name", ["arithmetic", "word_problems"])
def test_questions_are_drawn_always_the_same_and_graded_right_by_their_own_solutions(name):
    found = load_questions(name)
    assert found == load_questions(name)
    assert [q.idx for q in found] == list(range(DRAWN_QUESTIONS))
    assert len({q.question for q in found}) == DRAWN_QUESTIONS
    assert all(grade(q.solution, q.answer).correct for q in found)


@pytest.mark.parametrize("name", ["arithmetic", "word_problems"])
def test_drawn_questions_begin_with_those_that_a_training_is_measured_on(name):
    task = TASKS[name]
    measured = task.draw_many(TEST_SEED, task.test_questions, "test")
    found = load_questions(name)[: task.test_questions]
    assert [q.question for q in found] == [problem.question for problem in measured]


@pytest.mark.parametrize(
    ("dataset", "places"),
    [
        ("gsm8k", ["gsm8k/test.jsonl", "gsm8k.jsonl"]),
        ("math", ["math/test.jsonl", "math.jsonl", "math500/test.jsonl", "math500.jsonl"]),
        ("college_math", ["college_math/test.jsonl", "college_math.jsonl"]),
        ("own", ["own/test.jsonl", "own.jsonl"]),
    ],
)
def test_places_are_searched_in_their_order(tmp_path, dataset, places):
    for place in reversed(places):
        row = {"question": place, "problem": place, "answer": "1"}
        _write(tmp_path / place, row)
        assert load_questions(dataset, data_dir=tmp_path)[0].question == place


@pytest.mark.parametrize(
    ("dataset", "lines", "line", "message"),
    [
        ("gsm8k", ['{"question": "a", "answer": "1"}', "{broken"], 2, "broken JSON"),
        ("gsm8k", ['{"question": "a", "answer": "1"}', "", '["a"]'], 3, "JSON object, found list"),
        ("gsm8k", ['{"question": "a"}'], 1, "field 'answer', found question"),
        ("gsm8k", ["{}"], 1, "field 'question', found none"),
        ("gsm8k", ['{"question": "  ", "answer": "1"}'], 1, "text in field 'question', found '  '"),
        ("gsm8k", ['{"question": "a", "answer": null}'], 1, "text in field 'answer', found None"),
        ("gsm8k", ['{"question": "a", "answer": true}'], 1, "text in field 'answer', found True"),
        ("gsm8k", ['{"question": "a", "answer": ["1"]}'], 1, "text in field 'answer', found"),
        (
            "gsm8k",
            ['{"question": "a", "answer": "so\\n####"}'],
            1,
            "answer after ####, found nothing",
        ),
        (
            "math",
            ['{"problem": "a", "solution": "no box"}'],
            1,
            r"\\boxed{} in solution, found none",
        ),
        ("math", ['{"problem": "a", "solution": "\\\\boxed{}"}'], 1, r"\\boxed{} in solution"),
        ("math", ['{"problem": "a"}'], 1, "field 'solution', found problem"),
        (
            "college_math",
            ['{"question": "a", "ans": "1"}'],
            1,
            "field 'answer', found question, ans",
        ),
        ("own", ['{"q": "a"}'], 1, "field 'question', found q"),
    ],
)
def test_a_broken_row_is_one_line_with_file_and_line(tmp_path, dataset, lines, line, message):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message) as caught:
        load_questions(dataset, file=file)
    assert str(caught.value).startswith(f"{file}: line {line}: expected ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a jsonl file with questions, found none"),
        (b"", "expected at least one question, found none"),
        (b"\n \n", "expected at least one question, found none"),
        (b'{"question": "\xff"}\n', "expected a jsonl file in UTF-8, found"),
    ],
)
def test_a_file_without_rows_is_one_line_with_its_name(tmp_path, content, message):
    file = tmp_path / "rows.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_questions("gsm8k", file=file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_a_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="expected a file, or a folder .*, found a directory"):
        load_questions("gsm8k", file=tmp_path)


def test_a_folder_without_the_data_set_names_the_places(tmp_path):
    with pytest.raises(
        InputError, match=r"math/test.jsonl or math.jsonl or math500/test.jsonl"
    ) as caught:
        load_questions("math", data_dir=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: expected the questions of math in ")


def test_an_unknown_data_set_without_a_file_names_the_known_ones():
    with pytest.raises(
        InputError, match="data set 'gsm9k': expected one of gsm8k, math, college_math"
    ):
        load_questions("gsm9k")


@pytest.mark.parametrize("dataset", ["gsm8k", "math", "college_math"])
def test_an_unreachable_hub_is_one_line_with_advice(tmp_path, monkeypatch, dataset):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=f"^{dataset}: cannot download data set .*Hub") as caught:
        load_questions(dataset)
    assert f"DATA_DIR/{dataset}/test.jsonl and pass --data_dir=DATA_DIR" in str(caught.value)
    assert "\n" not in str(caught.value)


def _cache(folder: Path, repository: str) -> Path:
    """The layout in which the Hub's client keeps a data set that it has downloaded."""
    root = folder / f"datasets--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    return snapshot


def test_an_earlier_download_serves_without_network_and_jsonl_before_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = _cache(tmp_path, "openai/gsm8k")
    _write(snapshot / "main" / "test-2.jsonl", _gsm8k("#### 2"))
    _write(snapshot / "main" / "test-1.jsonl", _gsm8k("#### 1"))
    _write(snapshot / "main" / "train.jsonl", _gsm8k("#### 9"))
    (snapshot / "main" / "test.parquet").write_bytes(b"not read")
    found = load_questions("gsm8k")
    assert [(question.idx, question.answer) for question in found] == [(0, "1"), (1, "2")]


def test_a_download_without_the_test_split_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    _write(_cache(tmp_path, "openai/gsm8k") / "main" / "train.jsonl", _gsm8k())
    with pytest.raises(
        InputError, match=r"gsm8k: expected main/test\*.jsonl .* found no such file"
    ):
        load_questions("gsm8k")


def test_parquet_without_pyarrow_is_one_line_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    file = tmp_path / "test.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(
        InputError, match="install pyarrow to read it, or pass a jsonl file"
    ) as caught:
        load_questions("gsm8k", file=file)
    assert str(caught.value).startswith(f"{file}: ")


def test_parquet_rows_are_those_of_jsonl(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [_gsm8k(), _gsm8k("#### 12")]
    file = tmp_path / "test.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    jsonl = _write(tmp_path / "test.jsonl", *rows)
    assert load_questions("gsm8k", file=file) == load_questions("gsm8k", file=jsonl)


def test_a_story_beside_its_question_is_asked_for(tmp_path):
    row = {"Body": "Ann has 3 pens.", "Question": "How many?", "Answer": 3.0}
    file = _write(tmp_path / "svamp.jsonl", row)
    for field in (None, "Question"):
        with pytest.raises(InputError, match=r"line 1: .*--question_field=Body\+Question"):
            load_questions("svamp", file=file, question_field=field, answer_field="Answer")
    (found,) = load_questions(
        "svamp", file=file, question_field="Body+Question", answer_field="Answer"
    )
    assert (found.question, found.answer) == ("Ann has 3 pens. How many?", "3.0")
    file = _write(tmp_path / "c.jsonl", {"context": "Long.", "question": "Q?", "answer": "1"})
    with pytest.raises(InputError, match=r"context\+question asks both, --question_field=question"):
        load_questions("c", file=file)
    assert load_questions("c", file=file, question_field="question")[0].question == "Q?"


@pytest.mark.parametrize(
    ("fields", "printed", "answer"),
    [
        ({"choices": ["red", "blue"], "answer": 1}, "A. red\nB. blue", "B"),
        ({"options": ["A)21", "B)22"], "answer": "B"}, "A)21\nB)22", "B"),
        (
            {"choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answer": "2"},
            "1. red\n2. blue", "2",
        ),
        ({"A": "w", "B": "x", "C": "y", "D": "z", "answer": "C"}, "A. w\nB. x\nC. y\nD. z", "C"),
        ({"options": '{"A": "w", "B": "x"}', "answer": "A"}, "A. w\nB. x", "A"),
    ],
)  # fmt: skip
def test_choices_are_printed_under_their_question(tmp_path, fields, printed, answer):
    file = _write(tmp_path / "c.jsonl", {"question": "Which?"} | fields)
    (found,) = load_questions("c", file=file)
    assert (found.question, found.answer) == (f"Which?\n{printed}", answer)
    again = _write(tmp_path / "d.jsonl", {"question": found.question} | fields)
    assert load_questions("c", file=again)[0].question == found.question, "printed once"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, " "])
def test_answers_that_say_nothing_are_refused(tmp_path, value):
    file = _write(tmp_path / "n.jsonl", {"question": "?", "answer": value})
    with pytest.raises(InputError, match="line 1: expected text in field 'answer', found "):
        load_questions("n", file=file)


def test_maths_own_folder_of_files_is_read_in_order(tmp_path):
    for name in ("algebra/10", "algebra/2", "geometry/1", "../train/algebra/1"):
        row = {"problem": f"{name}?", "solution": rf"so \boxed{{{name[-1]}}}", "level": "Level 1"}
        file = tmp_path / "MATH" / "test" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(row, indent=2))
    for where in ({"data_dir": tmp_path}, {"data_dir": tmp_path / "MATH"},
                  {"file": tmp_path / "MATH" / "test"}):  # fmt: skip
        found = load_questions("math", **where)
        assert [q.question for q in found] == ["algebra/2?", "algebra/10?", "geometry/1?"]
        assert [q.answer for q in found] == ["2", "0", "1"]


@pytest.mark.parametrize("name", ["q.csv", "q.tsv", "q.json", "q.jsonl.gz", "q.csv.gz"])
def test_tables_lists_and_packed_files_are_those_of_jsonl(tmp_path, name):
    rows = [{"question": 'Say "a,b"\nor c?', "answer": "1"}, {"question": "é?", "answer": "2"}]
    separator = "\t" if "tsv" in name else ","
    quoted = [['"{}"'.format(v.replace('"', '""')) for v in row.values()] for row in rows]
    text = {
        "json": json.dumps(rows, indent=2),
        "jsonl": "".join(json.dumps(row) + "\r\n" for row in rows),
    }.get(name.split(".")[1]) or "\r\n".join(map(separator.join, [["question", "answer"], *quoted]))
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = load_questions("q", data_dir=tmp_path)
    assert found == load_questions("q", file=_write(tmp_path / "other.jsonl", *rows))


def test_the_hubs_folder_of_parquet_files_gives_its_test_split(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = ("main/train-0", "9"), ("main/test-1", "2"), ("main/test-0", "1"), ("hard/test-0", "8")
    for name, answer in files:
        table = pyarrow.Table.from_pylist([_gsm8k(f"#### {answer}")])
        file = tmp_path / "gsm8k" / f"{name}-of-2.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, file)
    for where in ({"data_dir": tmp_path}, {"file": tmp_path / "gsm8k"}):
        assert [q.answer for q in load_questions("gsm8k", **where)] == ["1", "2"]


@pytest.mark.parametrize(
    ("dataset", "where", "said"),
    [
        ("arithmetic", {"data_dir": "."}, "data_dir: expected a data set with files"),
        ("word_problems", {"data_dir": "."}, "found word_problems, which is drawn"),
        ("gsm8k", {"data_dir": ".", "file": "x.jsonl"}, "contradict each other"),
        ("gsm8k", {"data_dir": "no/such"}, "no/such: expected a folder with question files"),
    ],
)
def test_sources_that_contradict_each_other_are_refused(dataset, where, said):
    with pytest.raises(InputError, match=said):
        load_questions(dataset, **where)


@pytest.fixture(scope="module")
def real_files() -> Path:
    folder = os.environ.get("EAP_DATA_DIR")
    if not folder:
        pytest.skip("EAP_DATA_DIR names no folder with the real question files")
    return Path(folder)


def _not_themselves(questions: list[Question]) -> list[Question]:
    """Questions whose answer, in a box, is not the same as itself when read by math-verify."""
    return [
        question
        for question in questions
        if not _reads_as_itself(
            question.answer, next(iter(candidates(rf"\boxed{{{question.answer}}}")), None)
        )
    ]


def _reads_as_itself(reference: str, answer: str) -> bool:
    try:
        return same_meaning(canonical(reference), canonical(answer))
    except Exception:  # The grader's process, too, calls this wrong.
        return False


@pytest.mark.parametrize(
    ("dataset", "count"), [("gsm8k", 1319), ("math", 500), ("college_math", 2818)]
)
def test_real_files_are_read_whole(real_files, dataset, count):
    assert len(load_questions(dataset, data_dir=real_files)) == count


def test_the_box_of_every_real_solution_is_its_answer(real_files):
    for question in load_questions("math", data_dir=real_files):
        assert grade(question.solution, question.answer).correct, question


@pytest.mark.parametrize("dataset", ["gsm8k", "math"])
def test_every_real_answer_is_parsed_and_equal_to_itself(real_files, dataset):
    assert _not_themselves(load_questions(dataset, data_dir=real_files)) == []


@pytest.mark.parametrize("dataset", ["gsm8k", "math"])
def test_real_numbers_are_read_by_math_verify_as_by_python(real_files, dataset):
    plain = 0
    for question in load_questions(dataset, data_dir=real_files):
        text = join_thousands(canonical(question.answer))
        if re.fullmatch(r"-?\d+", text):
            assert parsed(text) == int(text), question
            plain += 1
    assert plain >= {"gsm8k": 1319, "math": 250}[dataset]


def test_college_answers_are_equal_to_themselves_all_but_two_percent(real_files):
    questions = load_questions("college_math", data_dir=real_files)
    failed = _not_themselves(questions)
    prose = sum(words(canonical(question.answer)) is not None for question in questions)
    print(f"{len(failed)} of {len(questions)} fail; {prose} are words")
    for question in failed:
        print(question.idx, repr(question.answer))
    assert len(failed) <= 0.02 * len(questions)
    # As text, all of them are.
    assert all(
        grade(rf"\boxed{{{question.answer}}}", question.answer).correct for question in questions
    )
