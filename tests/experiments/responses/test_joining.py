"""A question is found by its text, in a prompt that ends with it, and by its number."""

import pytest

from experiments.responses.joining import QuestionIndex
from experiments.responses.questions import Question


def index(*texts, names=None, answers=None) -> QuestionIndex:
    answers = answers or ["1"] * len(texts)
    questions = [
        Question(idx=place, question=text, answer=answer, solution="")
        for place, (text, answer) in enumerate(zip(texts, answers, strict=True))
    ]
    return QuestionIndex(questions, list(names or [None] * len(texts)))


LONG = "Tom has 3 apples and buys 4. How many apples has he?"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (f"Q: {LONG}\nA:", 0), (f"Q: Is it?\nA: 1\nQ: {LONG}\nA:", 0),
        (f"Q: {LONG}\nA: 7\nQ: Is it?", 2), (LONG.replace(" ", "\n  "), 0),
        ("Q: 13 + 4?", None), ("Q: 3 + 4? A:", 1), ("So what is 2 + 5?", 3),
        ("So what is 2 + 57?", None), ("Somewhat is 2 + 5?", None), ("Nothing", None), (LONG[:-3], None),
    ],
)  # fmt: skip
def test_the_last_question_of_a_prompt_is_what_it_asks(prompt, expected):
    found = index(LONG, "3 + 4?", "Is it?", "what is 2 + 5").in_prompt(prompt)
    assert (found.idx if found else None) == expected


def test_of_one_text_twice_the_number_decides_or_equal_answers_do():
    two = index("Q?", "Q?", names=["a", "b"], answers=["1", "2"])
    assert two.by_text("Q?") is None
    assert two.by_text("Q?", "b").idx == 1
    assert index("Q?", "Q?").by_text(" Q? ").idx == 0


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        (None, 1, 1), (None, "request-1", 1), (None, "gsm8k/test/0001", 1), (None, "x", None),
        (None, 5, None), ([7, 8], 8, 1), ([7, 8], 1, None), (["u", "v"], "v", 1),
        ([7, 7], 7, None),
    ],
)  # fmt: skip
def test_a_number_is_the_rows_own_or_else_its_line(names, name, expected):
    found = index("One?", "Two?", names=names).by_name(name)
    assert (found.idx if found else None) == expected
