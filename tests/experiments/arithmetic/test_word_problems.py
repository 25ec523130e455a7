"""Word problems: every sentence is whole, every solution is true, and no test is told as in training."""

import random
import re
import string

import pytest

from experiments.arithmetic import problems, word_problems
from experiments.grading.grade import grade
from experiments.posttrain.task import TASKS

SPLITS = ("train", "test")
TELLINGS = {split: word_problems.tellings(split) for split in SPLITS}
ALL = [telling for split in SPLITS for telling in TELLINGS[split]]
PROBLEMS = {split: word_problems.draw_problems(3, 600, split) for split in SPLITS}
PEOPLE = {"A", "B", "things"}, {"P", "N", "things"}


def places(text: str) -> set[str]:
    """The names in braces."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_there_are_many_ways_of_telling_each_with_its_own_name():
    assert len(ALL) >= 40
    assert len({telling.key for telling in ALL}) == len(ALL)
    assert len(TELLINGS["test"]) >= 12


@pytest.mark.parametrize("telling", ALL, ids=lambda telling: telling.key)
def test_every_sentence_has_the_places_of_its_kind_and_no_other(telling):
    numbers = {kind: {"n", "m"} if len(kind) == 2 else {"n"} for kind in telling.changes}
    assert set(numbers) <= {"+", "-", "*", "/", "+*", "-*"}
    assert numbers, "nothing changes"
    # Without a change of one operation some problems could not be told.
    assert {"+", "-"} <= set(numbers)
    texts = [(text, {"n"}) for text in telling.start]
    texts += [(text, {"d"}) for text in telling.aside]
    texts += [(text, set()) for text in telling.question]
    texts += [(text, numbers[kind]) for kind, found in telling.changes.items() for text in found]
    assert telling.things
    assert telling.start
    assert telling.aside
    assert telling.question
    compared = any("{N}" in text for text, _ in texts)
    for text, expected in texts:
        found = places(text)
        assert expected <= found, text
        assert found - expected <= PEOPLE[compared], text
        assert text[0] == text[0].upper()
        assert text.endswith("?" if text in telling.question else "."), text
    # A comparison speaks of the person before and of the next one; only then does the next exist.
    changes = [text for found in telling.changes.values() for text in found]
    assert all({"P", "N"} <= places(text) for text in changes) or not compared


def test_splits_share_no_telling_and_no_sentence():
    def sentences(split):
        return {
            text
            for telling in TELLINGS[split]
            for found in (telling.start, *telling.changes.values())
            for text in found
        }

    told = {split: {problem.telling for problem in PROBLEMS[split]} for split in SPLITS}
    assert not told["train"] & told["test"]
    assert told["test"] == {telling.key for telling in TELLINGS["test"]}
    # Changes as short as "{n} more arrive." may be common to two places; how a story begins may not.
    starts = {s: {text for t in TELLINGS[s] for text in t.start} for s in SPLITS}
    assert not starts["train"] & starts["test"]
    assert len(sentences("train") & sentences("test")) <= 0.05 * len(sentences("test"))


@pytest.mark.parametrize("split", SPLITS)
def test_worked_solutions_are_chains_of_true_equations_with_whole_results(split):
    for problem in PROBLEMS[split]:
        *lines, final = re.findall(r"[^.]+\.", problem.solution("worked"))
        assert len(lines) == {"one": 1, "two": 2, "three": 3, "four": 4}[problem.difficulty]
        total, product = problem.start, None
        for line in lines:
            left, sign, right, value = re.fullmatch(
                r" ?(\d+) ([-+*/]) (\d+) = (\d+)\.", line
            ).groups()
            left, right, value = int(left), int(right), int(value)
            counted = {"+": left + right, "-": left - right, "*": left * right, "/": left / right}
            assert counted[sign] == value
            assert 2 <= value <= 200
            if product is not None:
                # The line before is how much changes.
                assert (left, right) == (total, product)
                assert sign in "+-"
                total, product = value, None
            elif left == total and not (sign == "*" and _is_amount(lines, line, total)):
                total = value
            else:
                assert sign == "*"
                product = value
        assert product is None
        assert final == f" The answer is \\boxed{{{total}}}."
        assert problem.answer == str(total)


def _is_amount(lines: list[str], line: str, total: int) -> bool:
    """Whether a product that begins with the running total is an amount that the next line adds or
    takes away: the next line begins with the same total again."""
    rest = lines[lines.index(line) + 1 :]
    product = line.split("= ")[1].rstrip(".")
    return bool(rest) and bool(re.match(rf" ?{total} [-+] {product} =", rest[0]))


@pytest.mark.parametrize("split", SPLITS)
def test_every_number_of_a_solution_stands_in_the_question_in_its_order(split):
    for problem in PROBLEMS[split]:
        numbers = [int(number) for number in re.findall(r"\d+", problem.question)]
        named, total = [problem.start], problem.start
        operations = list(problem.operations)
        while operations:
            left, sign, right = operations.pop(0)
            following = operations[0] if operations else None
            value = problems.apply(left, sign, right)
            if sign == "*" and following and following[0] == total and following[2] == value:
                named += [left, right]
                _, sign, _ = operations.pop(0)
                total += value if sign == "+" else -value
            else:
                named.append(right)
                total = value
        # An aside's number may stand between; the two numbers of one sentence in either order.
        missing = list(named)
        for number in numbers:
            if number in missing:
                missing.remove(number)
        assert not missing, problem.question
        assert len(numbers) - len(named) in (0, 1)


def test_the_grader_takes_both_styles_and_not_a_neighbour():
    for problem in PROBLEMS["test"][:200]:
        for style in ("worked", "short"):
            assert grade(problem.solution(style), problem.answer).correct
        assert "=" not in problem.solution("short")
        assert not grade(problem.solution("worked"), str(int(problem.answer) + 1)).correct


def test_same_seed_gives_the_same_problems_and_another_seed_others():
    again = word_problems.draw_problems(3, 60, "test")
    assert again == PROBLEMS["test"][:60]
    assert again != word_problems.draw_problems(4, 60, "test")
    assert len({problem.question for problem in PROBLEMS["test"]}) == 600
    assert [p.difficulty for p in again[:5]] == ["one", "two", "three", "four", "one"]


def test_the_prompt_is_the_question_alone_in_chatml():
    (problem,) = word_problems.draw_problems(1, 1, "train")
    text = TASKS["word_problems"].prompt.format(question=problem.question)
    assert text == f"<|im_start|>user\n{problem.question}<|im_end|>\n<|im_start|>assistant\n"


def test_style_shares_follow_the_telling():
    rng = random.Random(0)
    problem = next(p for p in PROBLEMS["train"] if p.telling == "bus")
    worked = sum(word_problems.draw_style(rng, problem) == "worked" for _ in range(4000)) / 4000
    assert worked == pytest.approx(problem.worked, abs=0.03)
