"""How much of a metric's change is the model and how much the text that it was measured on.

A cell compares base on base's texts with rl on rl's. With v(m, t), a metric's value of model m on
texts t, of all four:

    change       v(rl, rl) - v(base, base)                            as published
    model        mean over t of v(rl, t) - v(base, t)
    text         mean over m of v(m, rl) - v(m, base)
    interaction  [v(rl, rl) - v(base, rl)] - [v(rl, base) - v(base, base)]

change = model + text, exactly. The interaction is what these two leave of the four values: how much
more the model changes the metric on rl's texts than on base's; its effect on either is model +- half
of it. Where the interaction is as large as the model's part, there is no one answer to how much is the
model's. Intervals resample questions, all four stacks together (`bootstrap`). A part's trend needs its
interval and the signed-rank test of the questions' own parts, as `trend` does.

model_text.json: samples, differing, identical_texts; losses and metrics by key, each the four values
and the four parts; no losses and metrics where all texts are the same or were not scored crosswise.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from experiments import store
from experiments.errors import InputError
from experiments.scoring.cells import Cell, results_path
from experiments.scoring.crossed import read_crossed
from experiments.statistics.bootstrap import (
    ROUNDING,
    UNDEFINED,
    Interval,
    draw_weights,
    interval,
)
from experiments.statistics.compare import question_changes
from experiments.statistics.functionals import Mean, Resampled
from experiments.statistics.metrics import METRICS, FreeChoices, Metric
from experiments.statistics.paired_tests import Changes, changes_of_values, paired_tests
from experiments.statistics.trend import Trend, trend_of
from experiments.study.opened import OpenStudy
from experiments.study.pairs import SIDES, Side

# The loss's place among the splits of a report; no metric has this key.
LOSS = "loss"
# (model, text) of the four stacks.
Place = tuple[Side, Side]
PLACES: tuple[Place, ...] = tuple((model, text) for text in SIDES for model in SIDES)
Part = Literal["change", "model", "text", "interaction"]
# What each of the four values counts in a part.
FACTORS: Mapping[Part, Mapping[Place, float]] = {
    "change": {("rl", "rl"): 1.0, ("base", "base"): -1.0},
    "model": {
        ("rl", "rl"): 0.5, ("base", "rl"): -0.5, ("rl", "base"): 0.5, ("base", "base"): -0.5,
    },
    "text": {
        ("rl", "rl"): 0.5, ("rl", "base"): -0.5, ("base", "rl"): 0.5, ("base", "base"): -0.5,
    },
    "interaction": {
        ("rl", "rl"): 1.0, ("base", "rl"): -1.0, ("rl", "base"): -1.0, ("base", "base"): 1.0,
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    """One part of a change: its size, its 95 % interval (NaN where there is none), and its trend."""

    value: float
    interval: Interval
    trend: Trend


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """A metric's four values and the parts of its change.

    Attributes:
      values: by `<model>_on_<text>`.
      parts: by name, see the module.
    """

    values: Mapping[str, float]
    parts: Mapping[Part, Effect]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Split":
        """As a file holds it: null is NaN."""
        found = store.restored(dict(fields))
        parts = {name: Effect(**part) for name, part in found["parts"].items()}
        return cls(values=found["values"], parts=parts)


def measure_model_text(opened: OpenStudy, cell: Cell) -> dict[str, Any]:
    """Write a cell's model_text.json; returns what it holds.

    Raises:
      InputError: a file of scores is broken or not of this cell.
    """
    selection = cell.selection
    found: dict[str, Any] = {
        "samples": len(selection.rows),
        "differing": len(selection.differing),
        "identical_texts": selection.identical_texts,
    }
    crossed = {side: read_crossed(cell, side) for side in SIDES} if selection.differing else {}
    if crossed and None not in crossed.values():
        scores, losses = {}, {}
        for model in SIDES:
            for text in SIDES:
                if model != text:
                    scores[model, text], losses[model, text] = crossed[model]
                    continue
                scores[model, text] = store.read_results(results_path(opened, cell, model))
                facts = store.read_json(cell.directory / f"losses_{model}.json")
                losses[model, text] = np.asarray(facts["losses"], np.float64)
        try:
            splits = split_metrics(scores)
        except ValueError as error:
            raise InputError(
                f"{cell.directory}: {error}; delete the files of other cells"
            ) from None
        found["losses"] = dataclasses.asdict(split_values(losses))
        found["metrics"] = {key: dataclasses.asdict(split) for key, split in splits.items()}
    store.write_json(cell.directory / "model_text.json", found)
    return found


def split_metrics(
    scores: Mapping[Place, np.ndarray], *, resamples: int = 2000, confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Split]:  # fmt: skip
    """Split the change of every metric.

    Args:
      scores: [n, W, R] of each (model, text), the same question at the same place.
      resamples, confidence, seed: as in `compare`, whose intervals of the change these are.

    Returns:
      by metric key.

    Raises:
      ValueError: the stacks differ in shape, or hold a number that is not finite.
    """
    stacks = {place: np.asarray(scores[place], np.float64) for place in PLACES}
    shapes = {stack.shape for stack in stacks.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise ValueError(f"scores: expected four stacks of one shape [n, W, R], found {shapes}")
    weights_Zn = draw_weights(len(stacks["base", "base"]), resamples, seed)
    found = {}
    for metric in METRICS:
        choices = FreeChoices()
        values = {place: metric.value(stack, choices) for place, stack in stacks.items()}
        resampled = {
            place: metric.functional(stack, choices).resample(weights_Zn)
            for place, stack in stacks.items()
            if math.isfinite(values[place])
        }
        changes = _changes(metric, stacks)
        found[metric.key] = _split(values, resampled, changes, weights_Zn, confidence)
    return found


def split_values(
    values: Mapping[Place, np.ndarray], *, resamples: int = 2000, confidence: float = 0.95,
    seed: int = 0,
) -> Split:  # fmt: skip
    """Split the change of the mean of one number a question [n], such as the loss."""
    numbers = {place: np.asarray(values[place], np.float64) for place in PLACES}
    weights_Zn = draw_weights(len(numbers["base", "base"]), resamples, seed)
    changes = {
        (one, other): changes_of_values(np.concatenate([numbers[one], numbers[other]]))
        for one, other in _steps()
    }
    return _split(
        {place: float(number_n.mean()) for place, number_n in numbers.items()},
        {
            place: Mean(values_n=number_n).resample(weights_Zn)
            for place, number_n in numbers.items()
        },
        changes,
        weights_Zn,
        confidence,
    )


def _steps() -> list[tuple[Place, Place]]:
    """From where to where questions change: the model on each text, the text of each model, both."""
    base, rl = SIDES
    models = [((base, text), (rl, text)) for text in SIDES]
    texts = [((model, base), (model, rl)) for model in SIDES]
    return [*models, *texts, ((base, base), (rl, rl))]


def _changes(
    metric: Metric, stacks: Mapping[Place, np.ndarray]
) -> dict[tuple[Place, Place], Changes]:
    return {
        (one, other): question_changes(stacks[one], stacks[other], metric, FreeChoices())
        for one, other in _steps()
    }


def _split(
    values: Mapping[Place, float],
    resampled: Mapping[Place, Resampled],
    changes: Mapping[tuple[Place, Place], Changes],
    weights_Zn: np.ndarray,
    confidence: float,
) -> Split:
    parts: dict[Part, Effect] = {}
    for part, factors in FACTORS.items():
        ends = UNDEFINED
        if all(place in resampled for place in factors):
            combined = Resampled.weighted_sum(
                [(factor, resampled[place]) for place, factor in factors.items()]
            )
            # An end at the questions whose two texts are one, which have no part, is zero.
            none = ROUNDING * combined.size
            low, high = interval(combined, weights_Zn, confidence=confidence)
            ends = tuple(0.0 if abs(end) <= none else end for end in (low, high))
        tests = paired_tests(_own_changes(part, changes))
        parts[part] = Effect(
            value=sum(factor * values[place] for place, factor in factors.items()),
            interval=ends,
            trend=trend_of(ends, tests.wilcoxon_p, tests.effect_size),
        )
    named = {f"{model}_on_{text}": values[model, text] for model, text in PLACES}
    return Split(values=named, parts=parts)


def _own_changes(part: Part, changes: Mapping[tuple[Place, Place], Changes]) -> Changes:
    """Each question's own part of the change."""
    base, rl = SIDES
    on_base, on_rl = (changes[(base, text), (rl, text)] for text in SIDES)
    of_base, of_rl = (changes[(model, base), (model, rl)] for model in SIDES)
    if part == "change":
        return changes[(base, base), (rl, rl)]
    one, other = (of_rl, of_base) if part == "text" else (on_rl, on_base)
    if part == "interaction":
        values_n = one.values_n - other.values_n
    else:
        values_n = (one.values_n + other.values_n) / 2
    return Changes(values_n=values_n, size=max(one.size, other.size))
