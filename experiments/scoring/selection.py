"""Which responses are compared, and how much of them: the published filter and truncation.

With the answers' lengths of all rows, T_bar = min(mean base length, mean rl length), and
    T_cut = max(int(alpha * T_bar), 1), T_min = int(beta * T_bar), T_max = int(gamma * T_bar).
A row is kept iff its two prompts have the same number of tokens, the mean of its two answer lengths
lies in [T_min, T_max], and their difference is at most delta times that mean. Of more than N kept
rows, `random.Random(seed).sample` takes N, in its own order.

A row's counted text is its prompt and the first T_cut answer tokens. Where base's and rl's are the
same, two models are compared on one text; where not, the text differs beside the model.
"""

import dataclasses
import random

from eap_jax.batching import Text
from experiments.errors import InputError
from experiments.responses.published_format import Row
from experiments.study.pairs import Side
from experiments.study.rule import Rule


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

    @property
    def differing(self) -> list[int]:
        """Places of the rows whose counted texts are not the same on both sides."""
        return [
            place
            for place, row in enumerate(self.rows)
            if truncate(row, "base", self.cut) != truncate(row, "rl", self.cut)
        ]

    @property
    def identical_texts(self) -> float:
        """Share of the rows whose counted texts are the same on both sides."""
        return 1 - len(self.differing) / len(self.rows)


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
