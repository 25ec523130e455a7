"""The embedded task and its tokenizer: right answers, closed language, disjoint splits."""

import random
import re

import pytest
from transformers import AutoTokenizer

from experiments.arithmetic import problems
from experiments.arithmetic.tokenizer import build_tokenizer, save_tokenizer
from experiments.grading.grade import grade
from experiments.posttrain.task import TASKS


def _recount(question: str) -> int:
    """The last count, worked out from the words of the question alone."""
    first, *changes, _ = re.split(r"[.?] ?", question)[:-1]
    total = int(re.search(r"has (\d+)", first).group(1))
    for sentence in changes:
        number = re.search(r"\d+", sentence)
        if "half" in sentence:
            assert total % 2 == 0
            total //= 2
        elif "double" in sentence:
            total *= 2
        elif any(verb in sentence for verb in ("finds", "buys", "wins", "gets")):
            total += int(number.group())
        else:
            assert any(verb in sentence for verb in ("loses", "sells", "gives away", "drops"))
            total -= int(number.group())
        assert 0 <= total <= 99
    return total


def test_answer_is_what_the_words_of_the_question_say():
    for problem in problems.draw_problems(3, 600, "train"):
        assert int(problem.answer) == _recount(problem.question)


def test_worked_solution_is_a_chain_of_true_equations_and_both_styles_are_graded_right():
    for problem in problems.draw_problems(4, 300, "test"):
        worked = problem.solution("worked")
        equations = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", worked)
        assert len(equations) == {"easy": 2, "medium": 3, "hard": 4}[problem.difficulty]
        for left, sign, right, result in equations:
            value = {"+": int(left) + int(right), "-": int(left) - int(right),
                     "*": int(left) * int(right), "/": int(left) / int(right)}[sign]  # fmt: skip
            assert value == int(result)
        for style in ("worked", "short"):
            assert grade(problem.solution(style), problem.answer).correct
        assert "=" not in problem.solution("short")
        wrong = str(int(problem.answer) + 1)
        assert not grade(problem.solution("short"), wrong).correct


def test_splits_share_no_chain_whatever_the_seeds():
    chains = {
        split: {
            (p.start, p.steps)
            for seed in range(4)
            for p in problems.draw_problems(seed, 800, split)
        }
        for split in ("train", "test")
    }
    assert len(chains["train"]) > 1500
    assert not chains["train"] & chains["test"]


def test_same_seed_gives_the_same_problems_and_another_seed_others():
    first = problems.draw_problems(5, 60, "test")
    assert first == problems.draw_problems(5, 60, "test")
    assert first != problems.draw_problems(6, 60, "test")
    assert len({p.question for p in first}) == 60
    assert [p.difficulty for p in first[:3]] == ["easy", "medium", "hard"]


def test_style_shares_follow_the_thing_that_is_counted():
    rng = random.Random(0)
    problem = next(p for p in problems.draw_problems(1, 200, "train") if p.thing == "stones")
    worked = sum(problems.draw_style(rng, problem) == "worked" for _ in range(4000)) / 4000
    assert worked == pytest.approx(problems.WORKED_SHARE["stones"], abs=0.03)


def test_tokenizer_restores_every_text_and_knows_every_word(tmp_path):
    save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    for problem in problems.draw_problems(8, 600, "train"):
        for style in ("worked", "short"):
            text = problem.prompt + problem.solution(style)
            tokens = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in tokens
            assert tokenizer.decode(tokens) == text
            # A prompt and an answer tokenised apart are the text tokenised whole.
            apart = tokenizer(problem.prompt)["input_ids"]
            assert apart + tokenizer(problem.solution(style))["input_ids"] == tokens


def test_the_longest_solution_fits_the_limit_of_an_answer():
    # The longest numbers, the longest verb and the most steps.
    steps = (("-", 9), ("-", 9), ("-", 9), ("-", 9))
    longest = problems.Problem(
        question="Ada has 99 pens. " + "Ada gives away 9. " * 4 + "How many pens does Ada have?",
        start=99, steps=steps, thing="pens", difficulty="hard",
    )  # fmt: skip
    tokenizer = build_tokenizer()
    response = tokenizer(longest.solution("worked"))["input_ids"] + [tokenizer.eos_token_id]
    prompt = tokenizer(longest.prompt)["input_ids"]
    assert tokenizer.unk_token_id not in prompt + response
    assert len(response) <= TASKS["arithmetic"].max_new_tokens
