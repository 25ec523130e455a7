"""Which responses are compared, and how much of them: the published filter and truncation.

With the answers' lengths of all rows, T_bar = min(mean base length, mean rl length), and
    T_cut = max(int(alpha * T_bar), 1), T_min = int(beta * T_bar), T_max = int(gamma * T_bar).
A row is kept iff its two prompts have the same number of tokens, the mean of its two answer lengths
lies in [T_min, T_max], and their difference is at most delta times that mean. Of more than N kept
rows, `random.Random(seed).sample` takes N, in its own order.
"""

import dataclasses
import math
import random
from typing import Any

from experiments.errors import InputError
from experiments.responses import Row, Side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Settings of a selection, with the published values as defaults.

    Attributes:
      alpha: counted share of the mean answer length.
      beta, gamma: bounds on the answer length, as shares of the mean.
      delta: largest difference of the two lengths, as a share of their mean.
      num_samples: most rows kept.
      seed: of the sampling.

    Raises:
      InputError: a value is out of range.
    """

    alpha: float
    beta: float = 0.5
    gamma: float = 1.5
    delta: float = 0.5
    num_samples: int = 100
    seed: int = 42

    def __post_init__(self):
        if not 0 < self.alpha <= 1:
            raise InputError(f"alpha: expected a number in (0, 1], found {self.alpha}")
        if not 0 <= self.beta <= self.gamma < math.inf:
            raise InputError(
                f"beta and gamma: expected 0 <= beta <= gamma, found {self.beta} and {self.gamma}"
            )
        if not 0 <= self.delta < math.inf:
            raise InputError(f"delta: expected a number from 0 on, found {self.delta}")
        if self.num_samples < 1:
            raise InputError(f"num_samples: expected at least 1, found {self.num_samples}")

    @property
    def unusual(self) -> tuple[tuple[str, Any], ...]:
        """Name and value of the settings beside alpha that are not the published ones."""
        fields = [field for field in dataclasses.fields(self) if field.name != "alpha"]
        return tuple(
            (field.name, getattr(self, field.name))
            for field in fields
            if getattr(self, field.name) != field.default
        )

    @property
    def variant(self) -> str:
        """The same as text: `delta 0.4, num_samples 50`, or nothing."""
        return ", ".join(f"{name} {value}" for name, value in self.unusual)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the selection: its name, the rows left after it, and why rows left."""

    name: str
    rows: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """The selected rows in sampling order, the counted answer length, and how they were found."""

    rows: list[Row]
    cut: int
    mean_length: float
    steps: list[Step]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """What a model reads and must predict for one row.

    Attributes:
      tokens: the prompt and all but the last counted answer token.
      targets: the counted answer tokens, predicted at the last len(targets) places of `tokens`.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]


def select(rows: list[Row], rule: Rule) -> Selection:
    """Apply the published filter and sampling.

    Raises:
      InputError: no row is left; the message says which step took the last ones.
    """
    if not rows:
        raise InputError("selection: no question was answered correctly by both models")
    base = [len(row.base.answer) for row in rows]
    rl = [len(row.rl.answer) for row in rows]
    mean = min(sum(base) / len(rows), sum(rl) / len(rows))
    cut = max(int(rule.alpha * mean), 1)
    shortest, longest = int(rule.beta * mean), int(rule.gamma * mean)

    def average(row: Row) -> float:
        return (len(row.base.answer) + len(row.rl.answer)) / 2

    filters = (
        (
            "equal prompts",
            "both prompts have the same number of tokens",
            lambda row: len(row.base.prompt) == len(row.rl.prompt),
        ),
        (
            "usual length",
            f"mean answer length from {shortest} to {longest} tokens",
            lambda row: shortest <= average(row) <= longest,
        ),
        (
            "similar length",
            f"answer lengths differ by at most {rule.delta:g} of their mean",
            lambda row: abs(len(row.base.answer) - len(row.rl.answer)) <= rule.delta * average(row),
        ),
    )
    steps = [Step(name="both right", rows=len(rows), reason="both models answered correctly")]
    for name, reason, keeps in filters:
        rows = [row for row in rows if keeps(row)]
        steps.append(Step(name=name, rows=len(rows), reason=reason))
        if not rows:
            before = steps[-2].rows
            raise InputError(
                f"selection: no row is left: the step '{name}' ({reason}) removed the last {before}"
            )
    if len(rows) > rule.num_samples:
        rows = random.Random(rule.seed).sample(rows, rule.num_samples)
        reason = f"{rule.num_samples} drawn with seed {rule.seed}"
        steps.append(Step(name="sampled", rows=len(rows), reason=reason))
    return Selection(rows=rows, cut=cut, mean_length=mean, steps=steps)


def truncate(row: Row, side: Side, cut: int) -> Text:
    """The counted part of one side's response (a shorter answer counts whole)."""
    response = row.response(side)
    targets = response.answer[:cut]
    return Text(tokens=response.prompt + targets[:-1], targets=targets)
