"""The embedded task: arithmetic word chains with two honest ways to answer.

A question tells how a number of things grows, shrinks, doubles and halves, and asks for the last
count. A worked answer writes every running result before the final one; a short cut states the
final one at once. Both appear among the demonstrations, in a share that depends on what is counted,
so a model trained on them chooses between a way that it does well and a way that it does badly on
long chains. That choice is what post-training can change.

Questions are drawn from a seeded generator. A chain's numbers decide whether it belongs to the
training or the test split, so the splits never share a chain, whatever the seeds.
"""

import dataclasses
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

Split = Literal["train", "test"]
Style = Literal["worked", "short"]
DIFFICULTIES = ("easy", "medium", "hard")
_STEPS = {"easy": 2, "medium": 3, "hard": 4}
_LARGEST = 99
_LARGEST_CHANGE = 9
_TEST_SHARE = 10  # one chain in ten belongs to the test split

_NAMES = ("Ada", "Ben", "Cleo", "Dov", "Eva", "Finn", "Gita", "Hugo")
# What is counted, and the share of worked answers among its demonstrations. The unified gradient
# weighs a token by 1/|o|, so the longer worked style needs a share of about 0.8 to be the likelier.
WORKED_SHARE = {
    "apples": 0.95, "books": 0.95, "coins": 0.94, "cups": 0.94, "eggs": 0.92, "keys": 0.92,
    "pens": 0.6, "shells": 0.55, "stamps": 0.5, "stones": 0.45,
}  # fmt: skip
# One kind of step: its sign in a worked answer and the ways to tell it.
_VERBS = {
    "+": ("finds {}", "buys {}", "wins {}", "gets {}"),
    "-": ("loses {}", "sells {}", "gives away {}", "drops {}"),
    "*": ("doubles them", "makes them double"),
    "/": ("loses half", "gives away half"),
}

PROMPT = "Question: {question}\nAnswer:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One question with its solution.

    Attributes:
      question: the text.
      start: the first count.
      steps: (sign, number) of each change; `*` and `/` go with the number 2.
      thing: what is counted.
      difficulty: `easy`, `medium` or `hard` (2, 3 or 4 steps).
    """

    question: str
    start: int
    steps: tuple[tuple[str, int], ...]
    thing: str
    difficulty: str

    @property
    def answer(self) -> str:
        """The last count as a plain number."""
        total = self.start
        for sign, number in self.steps:
            total = apply(total, sign, number)
        return str(total)

    def solution(self, style: Style) -> str:
        """The demonstration in one of the two styles, with a leading space, without a stop token."""
        written, total = "", self.start
        for sign, number in self.steps:
            result = apply(total, sign, number)
            written += f" {total} {sign} {number} = {result}."
            total = result
        return f"{written if style == 'worked' else ''} The answer is \\boxed{{{total}}}."

    @property
    def prompt(self) -> str:
        """The question as the models see it."""
        return PROMPT.format(question=self.question)


def draw_problem(rng: random.Random, split: Split, difficulty: str | None = None) -> Problem:
    """A random problem of a split, of a random difficulty unless one is given."""
    difficulty = difficulty or rng.choice(DIFFICULTIES)
    while True:
        start, steps = _draw_chain(rng, _STEPS[difficulty])
        if _is_test(start, steps) == (split == "test"):
            break
    name, thing = rng.choice(_NAMES), rng.choice(tuple(WORKED_SHARE))
    sentences = [f"{name} has {start} {thing}."]
    for sign, number in steps:
        sentences.append(f"{name} {rng.choice(_VERBS[sign]).format(number)}.")
    sentences.append(f"How many {thing} does {name} have?")
    return Problem(
        question=" ".join(sentences), start=start, steps=steps, thing=thing, difficulty=difficulty
    )


def draw_style(rng: random.Random, problem: Problem) -> Style:
    """The style of one demonstration of a problem."""
    return "worked" if rng.random() < WORKED_SHARE[problem.thing] else "short"


def draw_problems(seed: int, count: int, split: Split) -> list[Problem]:
    """`count` different problems of a split, difficulties in turn; the same for the same seed."""
    rng = random.Random(f"{split}-{seed}")
    return draw_different(draw_problem, DIFFICULTIES, rng, count, split)


def draw_different(
    draw: Callable[[random.Random, Split, str], Any],
    difficulties: Sequence[str],
    rng: random.Random,
    count: int,
    split: Split,
) -> list:
    """`count` problems of which no two have one question, difficulties in turn."""
    problems, seen = [], set()
    while len(problems) < count:
        problem = draw(rng, split, difficulties[len(problems) % len(difficulties)])
        if problem.question not in seen:
            seen.add(problem.question)
            problems.append(problem)
    return problems


def vocabulary_texts() -> list[str]:
    """Texts in which every piece of the task's language occurs at least once."""
    texts = []
    for name in _NAMES:
        texts += [f"Question: {name} has 1 {thing}. {name} has 2." for thing in WORKED_SHARE]
        texts += [f"1. How many {thing} does {name} have?\nAnswer:" for thing in WORKED_SHARE]
        texts += [f"{name} {verb.format(1)}." for verbs in _VERBS.values() for verb in verbs]
    steps = (("+", 7), ("-", 9), ("*", 2), ("/", 2))
    problem = Problem(question="", start=50, steps=steps, thing="apples", difficulty="hard")
    return [*texts, " ".join("0123456789"), problem.solution("worked"), problem.solution("short")]


def apply(total: int, sign: str, number: int) -> int:
    """The value of one operation on whole numbers; a division that leaves a rest is rounded down."""
    if sign == "+":
        return total + number
    if sign == "-":
        return total - number
    return total * number if sign == "*" else total // number


def _draw_chain(rng: random.Random, length: int) -> tuple[int, tuple[tuple[str, int], ...]]:
    """A first count and steps whose results are whole numbers from 0 to 99."""
    total = start = rng.randint(1, _LARGEST)
    steps = []
    while len(steps) < length:
        sign = rng.choice(tuple(_VERBS))
        number = 2 if sign in "*/" else rng.randint(1, _LARGEST_CHANGE)
        if sign == "/" and total % 2:
            continue
        if 0 < apply(total, sign, number) <= _LARGEST:
            total = apply(total, sign, number)
            steps.append((sign, number))
    return start, tuple(steps)


def _is_test(start: int, steps: tuple[tuple[str, int], ...]) -> bool:
    digest = hashlib.sha256(repr((start, steps)).encode()).digest()
    return digest[0] % _TEST_SHARE == 0
