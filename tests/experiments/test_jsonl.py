"""Lines of jsonl files: every row with its place, every fault in one line that names it."""

import pytest

from experiments.errors import InputError
from experiments.jsonl import read_objects


def rows(path):
    return list(read_objects(path, "rows"))


def test_rows_come_with_their_lines_and_blank_lines_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "x\\u2028y\xe2\x80\xa8z"}')
    assert rows(path) == [
        (f"{path}: line 1", {"a": 1}),
        (f"{path}: line 3", {"a": "x\u2028y\u2028z"}),
    ]


def test_an_empty_file_has_no_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n \n")
    assert rows(path) == []


def test_a_whole_emoji_is_no_fault(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(r'{"a": "\ud83d\ude00"}')
    assert rows(path)[0][1] == {"a": "\N{GRINNING FACE}"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{broken", "expected a JSON object, found broken JSON at column 2: Expecting property"),
        (b'{"a": "x', "found broken JSON at column 7: Unterminated string"),
        (b"[1]", "expected a JSON object, found list"),
        (b"null", "expected a JSON object, found NoneType"),
        (b"[" * 100_000, "expected a JSON object, found broken JSON: maximum recursion"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected a JSON object, found broken JSON: Exceeds"),
        (rb'{"a": ["\ud83d"]}', "expected text, found half a character"),
        (rb'{"\ud83d": 1}', "expected text, found half a character"),
    ],
)
def test_a_fault_is_one_line_that_names_its_line(tmp_path, line, said):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"fine": 1}\n\n' + line + b"\n")
    with pytest.raises(InputError) as error:
        rows(path)
    assert str(error.value).startswith(f"{path}: line 3: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_absent_or_no_text_is_named(tmp_path):
    with pytest.raises(
        InputError, match=r"none.jsonl: expected a jsonl file with rows, found none"
    ):
        rows(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"expected a jsonl file in UTF-8"):
        rows(tmp_path)
    (tmp_path / "b.jsonl").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"b.jsonl: expected a jsonl file in UTF-8"):
        rows(tmp_path / "b.jsonl")
