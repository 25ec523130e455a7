"""English word problems of one to four operations, told in many ways, with two honest ways to answer.

`tellings.json` holds the ways of telling: a place (a bus, a bakery, a wallet), how things change there,
a remark with a number that does not matter, and the question. A problem is one telling and a chain of
changes whose results are whole numbers. Train and test share no telling, so a test question was never
told in training, whatever its numbers.

A worked answer writes every result before the final one; a short cut states the final one at once.
Each telling has its own share of worked answers among the demonstrations, so a model trained on them
has two ways: one that it does well, and one that it cannot rely on.
"""

import dataclasses
import functools
import json
import random
from pathlib import Path

from experiments.arithmetic.problems import Split, Style, apply, draw_different

# Operations of a problem, by the name of its difficulty.
OPERATIONS = {"one": 1, "two": 2, "three": 3, "four": 4}
DIFFICULTIES = tuple(OPERATIONS)

# ChatML without a system message, as SmolLM2 reads it.
PROMPT = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"

_TELLINGS = Path(__file__).with_name("tellings.json")
_NAMES = (
    "Ada", "Ben", "Carla", "David", "Elena", "Farid", "Grace", "Henry", "Ivy", "Jack", "Kim", "Leo",
    "Maria", "Noah", "Olga", "Peter", "Rosa", "Sam", "Tara", "Umar", "Vera", "Will", "Yara", "Zoe",
)  # fmt: skip
_ASIDE_SHARE = 0.3
_STARTS = (6, 60)
_CHANGES = (2, 30)
_FACTORS = (2, 4)
_TIMES = (2, 6)  # how often a change of `_EACH` things comes
_EACH = (2, 9)
_LARGEST = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Telling:
    """One way to tell a problem; texts have places {A}, {B} (names), {n}, {m}, {d} (numbers), {things},
    and, where people are compared, {P} and {N} (the person before and the next).

    Attributes:
      key: its name.
      split: whether it is told in training or in tests.
      worked: share of worked answers among demonstrations.
      things: what is counted; one of these.
      start, question: first and last sentences; one of each.
      aside: remarks whose number does not matter.
      changes: sentences of each kind of change: `+`, `-`, `*`, `/` by {n}, `+*` and `-*` by {m} times
        {n}.
    """

    key: str
    split: Split
    worked: float
    things: tuple[str, ...]
    start: tuple[str, ...]
    question: tuple[str, ...]
    aside: tuple[str, ...]
    changes: dict[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordProblem:
    """One question with its solution.

    Attributes:
      question: the text.
      start: the first number.
      operations: (left, sign, right) in the order of a worked answer; the last result is the answer.
      telling: key of the way it is told.
      worked: share of worked answers of that telling.
      difficulty: one of `DIFFICULTIES`.
    """

    question: str
    start: int
    operations: tuple[tuple[int, str, int], ...]
    telling: str
    worked: float
    difficulty: str

    @property
    def answer(self) -> str:
        """The last number as text."""
        return str(apply(*self.operations[-1]))

    def solution(self, style: Style) -> str:
        """The demonstration in one of the two styles, without a stop token."""
        lines = [f"{a} {sign} {b} = {apply(a, sign, b)}." for a, sign, b in self.operations]
        final = f"The answer is \\boxed{{{self.answer}}}."
        return " ".join([*lines, final] if style == "worked" else [final])


@functools.cache
def tellings(split: Split) -> tuple[Telling, ...]:
    """The ways of telling of a split."""
    found = []
    for entry in json.loads(_TELLINGS.read_text()):
        plain = {k: entry[k] for k in ("key", "split", "worked")}
        lists = {k: tuple(entry[k]) for k in ("things", "start", "question", "aside")}
        changes = {k: tuple(v) for k, v in entry.items() if k[0] in "+-*/"}
        found.append(Telling(**plain, **lists, changes=changes))
    return tuple(telling for telling in found if telling.split == split)


def draw_problem(rng: random.Random, split: Split, difficulty: str | None = None) -> WordProblem:
    """A random problem of a split, of a random difficulty unless one is given."""
    difficulty = difficulty or rng.choice(DIFFICULTIES)
    telling = rng.choice(tellings(split))
    start = rng.randint(*_STARTS)
    changes = None
    while changes is None:
        changes = _draw_changes(rng, telling, start, OPERATIONS[difficulty])
    return WordProblem(
        question=_tell(rng, telling, start, changes),
        start=start,
        operations=tuple(step for change in changes for step in change.operations),
        telling=telling.key,
        worked=telling.worked,
        difficulty=difficulty,
    )


def draw_style(rng: random.Random, problem: WordProblem) -> Style:
    """The style of one demonstration of a problem."""
    return "worked" if rng.random() < problem.worked else "short"


def draw_problems(seed: int, count: int, split: Split) -> list[WordProblem]:
    """`count` different problems of a split, difficulties in turn; the same for the same seed."""
    rng = random.Random(f"word problems-{split}-{seed}")
    return draw_different(draw_problem, DIFFICULTIES, rng, count, split)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Change:
    """One sentence's change: its kind, the numbers that it names, what is computed."""

    kind: str
    n: int
    m: int
    operations: tuple[tuple[int, str, int], ...]


def _draw_changes(rng, telling: Telling, start: int, count: int) -> list[_Change] | None:
    """Changes of `count` operations in all, or None where the draw came to a dead end."""
    total, left, changes = start, count, []
    while left:
        kinds = [kind for kind in telling.changes if len(kind) <= left]
        if not kinds:
            return None
        change = _draw_change(rng, rng.choice(kinds), total)
        if change is None:
            return None
        total = apply(*change.operations[-1])
        left -= len(change.operations)
        changes.append(change)
    return changes


def _draw_change(rng, kind: str, total: int) -> _Change | None:
    sign = kind[0]
    n = rng.randint(*(_FACTORS if kind in "*/" else _CHANGES if kind in "+-" else _EACH))
    m = rng.randint(*_TIMES)
    before = () if len(kind) == 1 else ((m, "*", n),)
    amount = n if len(kind) == 1 else m * n
    after = apply(total, sign, amount)
    if not 2 <= after <= _LARGEST or (sign == "/" and total % amount):
        return None
    return _Change(kind=kind, n=n, m=m, operations=(*before, (total, sign, amount)))


def _tell(rng, telling: Telling, start: int, changes: list[_Change]) -> str:
    # One name more than there are changes: where people are compared, each change has a new one.
    names = rng.sample(_NAMES, len(changes) + 2)
    words = {"A": names[0], "B": names[1], "things": rng.choice(telling.things)}
    people = iter(names[1:])
    words["P"] = names[0]
    sentences = [rng.choice(telling.start).format(n=start, **words)]
    if rng.random() < _ASIDE_SHARE:
        sentences.append(rng.choice(telling.aside).format(d=rng.randint(2, 12), **words))
    for change in changes:
        template = rng.choice(telling.changes[change.kind])
        following = next(people) if "{N}" in template else words["P"]
        sentences.append(template.format(n=change.n, m=change.m, N=following, **words))
        words["P"] = following
    sentences.append(rng.choice(telling.question).format(**words))
    return " ".join(sentences)
