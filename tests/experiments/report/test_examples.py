"""Examples split an answer at its last counted token, whatever the tokenizer does."""

import dataclasses

import pytest
from toy_study import letters, toy_cell

from experiments.report.examples import examples, split_text


def test_both_parts_together_are_the_whole_text():
    """A tokenizer that puts a space before every word but the first."""

    def words(tokens):
        return " ".join(f"w{token}" for token in tokens)

    assert split_text([1, 2, 3], 2, words) == ("w1 w2", " w3")
    assert split_text([1, 2], 5, words) == ("w1 w2", "")
    assert split_text([1, 2], 0, words) == ("", "w1 w2")


def test_a_character_of_two_tokens_is_not_lost_where_the_cut_divides_it():
    def utf8(tokens):
        return bytes(tokens).decode("utf-8", errors="replace")

    tokens = list("aé!".encode())
    assert split_text(tokens, 2, utf8) == (
        "a\N{REPLACEMENT CHARACTER}",
        "\N{REPLACEMENT CHARACTER}!",
    )
    assert split_text(tokens, 3, utf8) == ("aé", "!")


@pytest.mark.parametrize("decode", [letters, None])
def test_the_first_rows_are_shown_with_both_answers(decode):
    cell = toy_cell(num_layers=1, samples=4, decode=decode)
    written = decode or (lambda tokens: "".join(f"{token} " for token in tokens))
    found = examples(cell, count=2)
    assert [example.idx for example in found] == ["0", "1"]
    for example, row in zip(found, cell.rows, strict=False):
        assert (example.question, example.truth) == ("What is 2 + 3?", "5")
        for answer, side in zip(example.answers, ("base", "rl"), strict=True):
            tokens = row[f"{side}_answer_tokens"]
            assert (answer.side, answer.total_tokens) == (side, len(tokens))
            assert answer.counted == written(tokens[: cell.t_cut])
            assert answer.counted + answer.rest == written(tokens)
            assert answer.counted_tokens == min(cell.t_cut, len(tokens))
            assert answer.prompt == written(row[f"{side}_prompt_tokens"])


def test_each_sides_tokens_are_read_by_its_own_tokenizer():
    cell = toy_cell(num_layers=1, samples=2, decode=letters)
    cell = dataclasses.replace(cell, rl_decode=lambda tokens: "-".join(map(str, tokens)))
    (example,) = examples(cell, count=1)
    for answer, written in zip(example.answers, (cell.decode, cell.rl_decode), strict=True):
        assert answer.prompt == written(cell.rows[0][f"{answer.side}_prompt_tokens"])


def test_a_long_text_is_cut_and_says_by_how_much():
    cell = toy_cell(num_layers=1, samples=2, question="q" * 1501)
    (example,) = examples(cell, count=1)
    assert example.question == "q" * 1500 + " \N{HORIZONTAL ELLIPSIS} (1 more characters)"
    whole = dataclasses.replace(cell, rows=[dict(row, question="q" * 1500) for row in cell.rows])
    assert examples(whole, count=1)[0].question == "q" * 1500
