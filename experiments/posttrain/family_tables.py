"""README's tables of the tiny family, made from results.json and nothing else.

A cell holds the median relative change over the training seeds and in how many seeds it is clear:
`-75% (falls 3/3)`. It is bold where the change is clear, in one direction, in every view and seed.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.statistics.metrics import METRICS
from experiments.statistics.views import VIEWS

CONTROL = "tiny_sft"
# The published scores, and what they are meant to predict.
_SHOWN = {"published": "scores", "exact": "edges cut"}
_VIEW_LABELS = {
    "published": "scores, as published",
    "per_loss": "divided by the question's loss",
    "per_gradient": "divided by the gradient at the last stream",
    "logit_difference": "logit difference instead of the loss",
    "exact": "every edge really cut",
}
Entry = Mapping[str, Any]


def arms_table(results: Entry) -> str:
    """Markdown: of each arm the accuracies, and each metric's change from the start, as scored and
    with the edges really cut.

    Args:
      results: what results.json holds.
    """
    lines = _head("arm", "accuracy, %", "view")
    for arm, entries in results["arms"].items():
        before = entries[0]["accuracy"]["base"]
        after = ", ".join(f"{100 * entry['accuracy']['rl']:.0f}" for entry in entries)
        name = f"{arm} (control)" if arm == CONTROL else arm
        lines += _lines(entries, name, f"{100 * before:.0f} → {after}")
    return "\n".join(lines)


def control_table(results: Entry) -> str:
    """Markdown: how each arm differs from the control on the same questions, likewise."""
    lines = _head(f"arm against {CONTROL}", "questions", "view")
    for arm, entries in results["against_control"].items():
        lines += _lines(entries, arm, ", ".join(str(entry["samples"]) for entry in entries))
    return "\n".join(lines)


def views_table(entry: Entry) -> str:
    """Markdown: one arm and seed in every view; a change is shown where it is clear."""
    lines = _head("view")
    for view in VIEWS:
        found = entry["views"][view]
        cells = [
            _percent(found[metric.key]["relative"])
            if found[metric.key]["trend"] != "unclear"
            else "unclear"
            for metric in METRICS
        ]
        lines.append("| " + " | ".join([_VIEW_LABELS[view], *cells]) + " |")
    return "\n".join(lines)


def found_in_every_view(entries: Sequence[Entry], metric: str) -> bool:
    """Whether a metric's change is clear, in one direction, in every view and seed."""
    seen = {entry["views"][view][metric]["trend"] for entry in entries for view in VIEWS}
    return len(seen) == 1 and seen != {"unclear"}


def _head(*names: str) -> list[str]:
    columns = [*names, *(metric.brief for metric in METRICS)]
    return ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]


def _lines(entries: Sequence[Entry], *names: str) -> list[str]:
    """One line a shown view of one arm; only the first names the arm."""
    lines = []
    for number, (view, label) in enumerate(_SHOWN.items()):
        cells = [
            _cell(
                [entry["views"][view][metric.key] for entry in entries],
                bold=found_in_every_view(entries, metric.key),
            )
            for metric in METRICS
        ]
        first = names if number == 0 else [""] * len(names)
        lines.append("| " + " | ".join([*first, label, *cells]) + " |")
    return lines


def _cell(found: Sequence[Entry], *, bold: bool) -> str:
    """`-75% (falls 3/3)`."""
    changes = [one["relative"] for one in found]
    known = all(change is not None and math.isfinite(change) for change in changes)
    middle = _percent(statistics.median(changes)) if known else "undefined"
    seen = Counter(one["trend"] for one in found)
    clear = ", ".join(
        f"{word} {seen[word]}/{len(found)}" for word in ("rises", "falls") if seen[word]
    )
    text = f"{middle} ({clear or 'unclear'})"
    return f"**{text}**" if bold else text


def _percent(share: float) -> str:
    return f"{share:+.0%}"
