"""What changes along a chain of checkpoints, in words and as files: chain.csv and chain.json.

A change counts where it is clear in every view of a cell (`statistics.views.support`). Comparisons
rest on different questions, so the changes of the steps need not add up to that of the whole chain.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.report.chain import ChainResult, Compared
from experiments.report.changes import ACCURACY, Change
from experiments.report.formats import percent

CHAIN_COLUMNS = (
    "before", "after", "dataset", "alpha", "measure", "view", "before_value", "after_value",
    "relative", "low", "high", "trend", "in_every_view", "questions",
)  # fmt: skip
_ARROW = "\N{RIGHTWARDS ARROW}"


def arrow(labels: Sequence[str], before: int, after: int) -> str:
    """`sft -> dpo`, with a real arrow."""
    return f"{labels[before]} {_ARROW} {labels[after]}"


def chain_headline(result: ChainResult) -> str:
    """What stands in every view from the first checkpoint to the last, and at which steps too."""
    labels = result.chain.labels
    last = len(labels) - 1
    whole = next((one for one in result.compared if (one.before, one.after) == (0, last)), None)
    if whole is None:
        return f"{labels[0]} and {labels[-1]} were not compared."
    standing = _standing(whole)
    if not standing:
        return f"From {labels[0]} to {labels[-1]} no metric's change stands in every view."
    texts = []
    for name, (way, alphas) in _by_name(result, standing).items():
        steps = [
            arrow(labels, one.before, one.after)
            for one in result.compared
            if one.is_step and _by_name(result, _standing(one)).get(name, (None,))[0] == way
        ]
        where = f"also at {_listed(steps)}" if steps else "at no single step"
        texts.append(f"{name} {way}{alphas}" + (f" ({where})" if last > 1 else ""))
    return f"From {labels[0]} to {labels[-1]}, in every view: {_listed(texts)}."


def chain_sentences(result: ChainResult) -> list[tuple[str, str]]:
    """Of every comparison its name, and what it rests on and shows; also of those that failed."""
    labels = result.chain.labels
    found = [
        (arrow(labels, one.before, one.after), _sentence(result, one)) for one in result.compared
    ]
    return found + [
        (arrow(labels, *places), "Not compared; the run says why.") for places in result.missing
    ]


def _sentence(result: ChainResult, one: Compared) -> str:
    """Questions, accuracy, what stands in every view, what only the published view has."""
    published = [change for change in one.changes if change.view == "published"]
    standing = _standing(one)
    alone = [change for change in published if change.trend != "unclear" and not change.everywhere]
    parts = [f"Rests on {_questions(result, published)} that both answer correctly."]
    for change in one.changes:
        if change.measure == ACCURACY:
            ends = f"{percent(change.base).lstrip('+')} to {percent(change.rl).lstrip('+')} %"
            way = change.trend if change.trend != "unclear" else "does not clearly change"
            where = f" ({change.dataset})" if _several_datasets(result) else ""
            parts.append(f"Accuracy {way}{where}: {ends} of {change.questions} asked.")
    said = [f"{name} {way}{alphas}" for name, (way, alphas) in _by_name(result, standing).items()]
    parts.append(f"In every view: {_listed(said)}." if said else "No change stands in every view.")
    if said := [f"{name} {way}{at}" for name, (way, at) in _by_name(result, alone).items()]:
        parts.append(f"Clear as published, but not in every view: {_listed(said)}.")
    return " ".join(parts)


def _questions(result: ChainResult, published: Iterable[Change]) -> str:
    """`93 questions`, or the fewest and the most of a comparison's cells."""
    counts = {(change.dataset, change.choice): change.questions for change in published}
    if not counts:
        return "no questions"
    few, most = min(counts.values()), max(counts.values())
    several = f"{few} to {most} questions" if few < most else f"{few} questions"
    return several if len(counts) > 1 or few != 1 else "1 question"


def chain_csv(result: ChainResult) -> str:
    """One line a comparison, measure and view, numbers in full precision, empty where not defined.

    The interval is that of `relative` for a metric and that of `after_value` for the others.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CHAIN_COLUMNS)
    labels = result.chain.labels
    for one in result.compared:
        for change in one.changes:
            numbers = (change.base, change.rl, change.relative, change.low, change.high)
            stands = {True: "yes", False: "no"}[change.everywhere]
            writer.writerow(
                (
                    labels[one.before], labels[one.after], change.dataset, change.choice,
                    change.measure, change.view,
                    *(float(value) if math.isfinite(value) else "" for value in numbers),
                    change.trend, stands if change.view == "published" else "", change.questions,
                )
            )  # fmt: skip
    return text.getvalue()


def chain_json(result: ChainResult) -> dict[str, Any]:
    """The chain, its models with their accuracy, the words, and every change."""
    chain = result.chain
    accuracies = result.accuracies()
    sentences = dict(chain_sentences(result))
    return {
        "chain": chain.name,
        "models": [
            {
                "label": label, "checkpoint": checkpoint,
                "accuracy": {
                    dataset: dataclasses.asdict(own[place])
                    for dataset, own in accuracies.items() if place in own
                },
            }
            for place, (label, checkpoint) in enumerate(
                zip(chain.labels, chain.checkpoints, strict=True)
            )
        ],
        "headline": chain_headline(result),
        "comparisons": [
            {
                "before": chain.labels[one.before], "after": chain.labels[one.after],
                "pair": chain.pairs[one.before, one.after].key,
                "method": chain.pairs[one.before, one.after].method,
                "finding": sentences[arrow(chain.labels, one.before, one.after)],
                "changes": [dataclasses.asdict(change) for change in one.changes],
            }
            for one in result.compared
        ],
        "not_compared": [[chain.labels[place] for place in places] for places in result.missing],
    }  # fmt: skip


def _standing(one: Compared) -> list[Change]:
    """Clear changes that every view of their cell has."""
    return [change for change in one.changes if change.everywhere and change.trend != "unclear"]


def _by_name(result: ChainResult, changes: Sequence[Change]) -> dict[str, tuple[str, str]]:
    """Way and alphas of each measure: `rises`, and ` (alpha 0.1)` unless it does at all alphas.
    Where it turns with alpha there is no one way."""
    found: dict[str, tuple[str, str]] = {}
    for name in dict.fromkeys(_name(result, change) for change in changes):
        own = [change for change in changes if _name(result, change) == name]
        ways = dict.fromkeys(change.trend for change in own)
        every = len([cell for cell in result.cells if cell[0] == own[0].dataset])
        if len(ways) > 1:
            by_alpha = ", ".join(f"{change.trend} at alpha {change.choice}" for change in own)
            found[name] = ("turns with alpha", f" ({by_alpha})")
        else:
            alphas = " and ".join(change.choice for change in own)
            found[name] = (own[0].trend, "" if len(own) == every else f" (alpha {alphas})")
    return found


def _name(result: ChainResult, change: Change) -> str:
    several = _several_datasets(result)
    return f"{change.label} ({change.dataset})" if several else change.label


def _several_datasets(result: ChainResult) -> bool:
    return len({dataset for dataset, _ in result.cells}) > 1


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
