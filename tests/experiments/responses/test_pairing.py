"""Two files' answers are paired by question or prompt, never by place or number alone."""

from pathlib import Path

import pytest

from experiments.errors import InputError
from experiments.responses.imported import ImportedAnswer
from experiments.responses.pairing import pair_answers

FILES = {"base": Path("b.jsonl"), "rl": Path("r.jsonl")}


def answer(idx, question="", gt="", *, prompt="p", score=True, named=True):
    return ImportedAnswer(
        idx=idx, question=question, gt=gt, solution=None, prompt_tokens=[1], answer_tokens=[2],
        text=f"{question}{prompt}", pred=None, score=score, prompt=prompt, named=named,
    )  # fmt: skip


def paired(base, rl):
    given = pair_answers(base, rl, FILES)
    assert [a.idx for a in given["base"]] == [a.idx for a in given["rl"]]
    return [(a.idx, a.text, b.text) for a, b in zip(given["base"], given["rl"], strict=True)]


def test_files_in_other_orders_are_paired_by_their_questions():
    base = [answer(n, q, named=False) for n, q in enumerate(("one", "two", "three"))]
    rl = [answer(n, q, named=False) for n, q in enumerate(("four", "three", "one"))]
    assert paired(base, rl) == [(0, "onep", "onep"), (2, "threep", "threep")]


def test_without_questions_prompts_pair():
    base = [answer(n, prompt=p, named=False) for n, p in enumerate(("Q: 3+4?", "Q: 5+2?"))]
    rl = [answer(n, prompt=p, named=False) for n, p in enumerate(("Q: 5+2?", "Q:  3+4?"))]
    assert paired(base, rl) == [(0, "Q: 3+4?", "Q:  3+4?"), (1, "Q: 5+2?", "Q: 5+2?")]


def test_a_question_is_found_at_the_end_of_the_other_files_prompt():
    """An example in the prompt asks another known question; `3 + 4?` is not asked in `13 + 4?`."""
    base = [answer("a", "What is 3 + 4?"), answer("b", "3 + 4?"), answer("c", "Is 5 prime?")]
    rl = [
        answer(0, prompt="Is 5 prime? yes\nWhat is 3 + 4?\nA:", named=False),
        answer(1, prompt="Tell me: 13 + 4?", named=False),
        answer(2, prompt="User: Is 5 prime?", named=False),
    ]
    found = {(name, other) for name, _, other in paired(base, rl)}
    assert found == {("a", rl[0].text), ("c", rl[2].text)}


def test_numbers_that_only_one_file_has_are_kept():
    base, rl = [answer(0, "one", named=False)], [answer("u7", "one")]
    assert [idx for idx, _, _ in paired(base, rl)] == ["u7"]


def test_the_right_answer_may_stand_in_one_file_only():
    given = pair_answers([answer(1, "one", "")], [answer(1, "one", "12")], FILES)
    assert [a.gt for side in ("base", "rl") for a in given[side]] == ["12", "12"]


@pytest.mark.parametrize(
    ("base", "rl", "said"),
    [
        ([answer(1)], [answer(2, prompt="q")], "no question or prompt in common, and no idx"),
        (
            [answer(0, "What is 2+2?", "4")], [answer(0, "What is 7+7?", "14", prompt="q")],
            "r.jsonl: .* 1 numbers in common, but no question or prompt .*2\\+2.*7\\+7.*--questions",
        ),
        (
            [answer(0, "one", gt="4")], [answer(0, "one", gt="14")],
            "idx 0: gt: expected '4' as in b.jsonl, found '14'",
        ),
    ],
)  # fmt: skip
def test_a_pairing_that_cannot_be_checked_is_refused(base, rl, said):
    with pytest.raises(InputError, match=said) as caught:
        pair_answers(base, rl, FILES)
    assert "\n" not in str(caught.value)


def test_right_answers_written_in_two_ways_are_one():
    base, rl = [answer(0, "one", gt="1,000")], [answer(0, "one", gt="1000")]
    assert len(paired(base, rl)) == 1
