"""Words and lines of the split of a change into model and text (`statistics.model_text`)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from experiments.report.results import CellResult
from experiments.statistics.bootstrap import Interval
from experiments.statistics.metrics import METRICS
from experiments.statistics.model_text import FACTORS, LOSS, Part, Split
from experiments.statistics.trend import Trend

PART_LABELS: Mapping[Part, str] = {part: part.capitalize() for part in FACTORS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartShown:
    """One part of a change: in shares of base's own value, as it is with its interval, its trend."""

    share: float
    value: float
    interval: Interval
    trend: Trend


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitLine:
    """A line of the table: the cell's choice, the metric's label, and the parts."""

    cell: str
    label: str
    parts: tuple[PartShown, ...]


def split_lines(cells: Sequence[CellResult]) -> list[SplitLine]:
    """One line a cell that was scored crosswise and metric, the loss first."""
    lines = []
    for cell in cells:
        for key, label in (
            (LOSS, "Loss, nats a token"),
            *((metric.key, metric.label) for metric in METRICS),
        ):
            if key in cell.model_text:
                lines.append(
                    SplitLine(cell=cell.name, label=label, parts=_shown(cell.model_text[key]))
                )
    return lines


def _shown(split: Split) -> tuple[PartShown, ...]:
    own = abs(split.values["base_on_base"])
    found = []
    for part in PART_LABELS:
        effect = split.parts[part]
        found.append(
            PartShown(
                share=effect.value / own if own else math.nan,
                value=effect.value,
                interval=effect.interval,
                trend=effect.trend,
            )
        )
    return tuple(found)


def texts_sentences(cells: Sequence[CellResult]) -> list[str]:
    """Plain sentences of a pair's cells: can texts be what changed, and how much of a change is the model's?

    One for all cells whose counted texts are the same, one for each of the others.
    """
    known = [cell for cell in cells if cell.identical_texts is not None]
    same = sum(cell.identical_texts == 1 for cell in known)
    if len(cells) == 1 and same:
        return [
            f"Base and rl have the same counted text in all {cells[0].num_samples} questions, so no "
            "change comes from another text."
        ]
    found = []
    if same:
        found.append(
            f"In {same} of {len(cells)} comparisons base and rl have the same counted text in every "
            "question, so no change there comes from another text."
        )
    for cell in known:
        if cell.identical_texts < 1:
            name = f"{cell.name}: " if len(cells) > 1 else ""
            found.append(name + _sentence(cell))
    return found


def _sentence(cell: CellResult) -> str:
    """Of a cell whose counted texts are not all the same."""
    samples = cell.num_samples
    same = round(cell.identical_texts * samples)
    begin = f"The counted texts of base and rl differ in {samples - same} of {samples} questions"
    if not cell.model_text:
        return f"{begin}, and were not scored by both models: a change may be the model's or the text's."
    mostly: dict[str, list[str]] = {"model": [], "text": []}
    for metric in METRICS:
        parts = cell.model_text[metric.key].parts if metric.key in cell.model_text else {}
        clear = [name for name in mostly if parts and parts[name].trend != "unclear"]
        if clear:
            larger = max(clear, key=lambda name: abs(parts[name].value))
            mostly[larger].append(metric.label.lower())
    found = [f"the {name} more than the {other} changes {_listed(mostly[name])}"
             for name, other in (("model", "text"), ("text", "model")) if mostly[name]]  # fmt: skip
    if not found:
        return f"{begin}; neither the model nor the text changes a metric clearly."
    return f"{begin}; {', and '.join(found)}."


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
