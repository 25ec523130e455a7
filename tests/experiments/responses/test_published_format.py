"""The published row format is read whole, written back as it was, and refused by line."""

import json

import pytest
import toys

from experiments.errors import InputError
from experiments.responses.published_format import check_vocabulary, format_rows, read_rows, row_of


def golden_file(series):
    return toys.GOLDEN / "responses" / series / "math" / "all_correct.jsonl"


def fields_of(**changes):
    """A row of the published format (REFERENCE: row format)."""
    row = {
        "idx": 7, "question": "1+1?", "gt": "2", "solution": None,
        "base_prompt_tokens": [1, 5], "base_answer_tokens": [6, 7, 2],
        "base_answer_tokens_range": [2, 5], "base_pred": "2", "base_score": True,
        "rl_prompt_tokens": [1, 5], "rl_answer_tokens": [8, 2],
        "rl_answer_tokens_range": [2, 4], "rl_pred": "2", "rl_score": True,
    }  # fmt: skip
    return row | changes


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("series", toys.SERIES)
def test_golden_rows_are_read_as_plain_json_and_written_back_byte_by_byte(series):
    path = golden_file(series)
    plain = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = read_rows(path)
    assert len(rows) == len(plain) == 24
    for row, expected in zip(rows, plain, strict=True):
        for side in toys.SIDES:
            assert list(row.response(side).prompt) == expected[f"{side}_prompt_tokens"]
            assert list(row.response(side).answer) == expected[f"{side}_answer_tokens"]
    assert format_rows(rows).encode() == path.read_bytes()


def test_text_of_any_script_and_unknown_keys_survive(tmp_path):
    fields = fields_of(question="∑ 三 \u2028 \x85 é", level={"x": [1, None]}, idx="test/3")
    path = write(tmp_path / "rows.jsonl", fields, "", json.dumps(fields_of(), ensure_ascii=False))
    rows = read_rows(path)
    assert [row.fields for row in rows] == [fields, fields_of()]
    again = write(tmp_path / "again.jsonl", format_rows(rows).rstrip("\n"))
    assert [row.fields for row in read_rows(again)] == [fields, fields_of()]
    assert "三" in again.read_text(encoding="utf-8"), "readable, as the published files are"


def test_the_range_may_be_left_out(tmp_path):
    """Other programs need not repeat what the two lists say."""
    fields = fields_of()
    del fields["rl_answer_tokens_range"]
    (row,) = read_rows(write(tmp_path / "rows.jsonl", fields))
    assert row.rl.answer == (8, 2)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            '{"idx": 1, "base_prompt',
            "expected a JSON object, found broken JSON at column 12: Unterminated string",
        ),
        ("[1, 2]", "expected a JSON object, found list"),
        (fields_of(idx=None), "idx: expected a number or a name, found None"),
        (fields_of(idx=True), "idx: expected a number or a name, found True"),
        (fields_of(idx=7.0), "idx: expected a number or a name, found 7.0"),
        (fields_of(idx=7), "idx 7: already on line 1"),
        (fields_of(idx=8, rl_answer_tokens=[]), "rl_answer_tokens: expected at least one token"),
        (
            fields_of(idx=8, base_prompt_tokens="1 5"),
            "base_prompt_tokens: expected a list of token ids, found '1 5'",
        ),
        (
            {k: v for k, v in fields_of(idx=8).items() if k != "rl_answer_tokens"},
            "rl_answer_tokens: expected a list of token ids, found None",
        ),
        (
            fields_of(idx=8, base_answer_tokens=[6, 7.0, 2]),
            "base_answer_tokens: expected token ids from 0 on, found 7.0",
        ),
        (fields_of(idx=8, base_answer_tokens=[6, -1, 2]), "from 0 on, found -1"),
        (fields_of(idx=8, base_answer_tokens=[6, True, 2]), "from 0 on, found True"),
        (
            fields_of(idx=8, rl_answer_tokens_range=[2, 5]),
            "rl_answer_tokens_range: expected [2, 4] from the two token lists, found [2, 5]",
        ),
    ],
)
def test_a_broken_line_is_named_with_what_was_found(tmp_path, broken, said):
    path = write(tmp_path / "rows.jsonl", fields_of(), "", broken)
    with pytest.raises(InputError) as error:
        read_rows(path)
    assert str(error.value).startswith(f"{path}: line 3: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_file_no_rows_and_no_text_are_told_apart(tmp_path):
    with pytest.raises(InputError, match=r"none.jsonl: no such responses file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="expected one row a line, found none"):
        read_rows(write(tmp_path / "empty.jsonl", "", ""))
    (tmp_path / "binary.jsonl").write_bytes(b"\x80\xff\n")
    with pytest.raises(InputError, match="expected a jsonl file in UTF-8"):
        read_rows(tmp_path / "binary.jsonl")


def test_an_id_outside_the_vocabulary_is_named_with_its_row():
    rows = [row_of(fields_of()), row_of(fields_of(idx=9, rl_prompt_tokens=[1, 40]))]
    check_vocabulary(rows, "base", 8, "f.jsonl")
    check_vocabulary(rows, "rl", 41, "f.jsonl")
    with pytest.raises(InputError) as error:
        check_vocabulary(rows, "rl", 40, "f.jsonl")
    assert str(error.value) == (
        "f.jsonl: idx 9: rl_prompt_tokens: expected ids below the vocabulary size 40, found 40"
    )
    with pytest.raises(InputError, match="idx 7: base_answer_tokens: .* size 7, found 7"):
        check_vocabulary(rows, "base", 7, "f.jsonl")
