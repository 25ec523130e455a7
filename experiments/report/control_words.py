"""Arms against the control in words and as a table: arm_control.csv and the report's section."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

from experiments.report.formats import percent
from experiments.statistics.against_control import AgainstControl, differs
from experiments.statistics.metrics import METRICS
from experiments.statistics.views import VIEWS, View, ViewName

CONTROL_COLUMNS = (
    "arm", "control", "dataset", "alpha", "metric", "view", "control_value", "arm_value",
    "difference", "difference_low", "difference_high", "relative", "relative_low", "relative_high",
    "trend", "questions", "selection",
)  # fmt: skip
_WAY = {"rises": "higher", "falls": "lower", "unclear": "unclear"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlLine:
    """One metric of one comparison: how the arm differs from the control in each of `VIEWS`."""

    comparison: str
    metric: str
    views: tuple[str, ...]


def control_csv(found: Sequence[AgainstControl]) -> str:
    """One line a comparison, metric and view, numbers in full precision, empty where not defined.

    `difference` is the arm's value minus the control's, `relative` the same as a share of the
    control's size, each with its 95 % interval over questions.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CONTROL_COLUMNS)
    for one in found:
        for view in one.views:
            numbers = (
                view.base, view.rl, view.difference, view.difference_low, view.difference_high,
                view.relative, view.low, view.high,
            )  # fmt: skip
            writer.writerow(
                (
                    one.arm, one.control, one.dataset, one.rule.alpha, view.metric, view.view,
                    *(float(value) if math.isfinite(value) else "" for value in numbers),
                    view.trend, view.samples, one.rule.variant,
                )
            )  # fmt: skip
    return text.getvalue()


def control_sentences(found: Sequence[AgainstControl]) -> list[str]:
    """One plain sentence an arm, over all its datasets and rules."""
    arms: dict[str, list[AgainstControl]] = {}
    for one in found:
        arms.setdefault(one.arm, []).append(one)
    return [_sentence(arm, cells) for arm, cells in arms.items()]


def control_lines(found: Sequence[AgainstControl]) -> list[ControlLine]:
    """One line a comparison and metric, each view's relative difference and whether it is clear."""
    lines = []
    for one in found:
        alpha = ", ".join(filter(None, [f"alpha {one.rule.alpha:g}", one.rule.variant]))
        name = f"{one.arm}, {one.dataset}, {alpha}; {one.samples} questions, {one.cut} tokens"
        for metric in METRICS:
            views = {view.view: view for view in one.views if view.metric == metric.key}
            cells = tuple(_difference(views.get(view)) for view in VIEWS)
            lines.append(ControlLine(comparison=name, metric=metric.label, views=cells))
    return lines


def _difference(view: View | None) -> str:
    if view is None:
        return "not measured"
    return f"{percent(view.relative)} %, {_WAY[view.trend]}"


def _sentence(arm: str, cells: Sequence[AgainstControl]) -> str:
    """`tiny_grpo against tiny_sft (100 questions, alpha 0.3): in every view ...; by scores ...`."""
    made = {view.view for cell in cells for view in cell.views}
    parts = [f"in every view {_clear(cells, VIEWS)}", f"by scores {_clear(cells, ('published',))}"]
    if "exact" in made:
        parts.append(f"with edges really cut {_clear(cells, ('exact',))}")
    alphas = ", ".join(dict.fromkeys(f"{one.rule.alpha:g}" for one in cells))
    samples = sorted({one.samples for one in cells})
    count = f"{samples[0]}" if len(samples) == 1 else f"{samples[0]} to {samples[-1]}"
    where = f" and all {len(cells)} comparisons" if len(cells) > 1 else ""
    parts[0] = parts[0].replace("in every view", f"in every view{where}", 1)
    return (
        f"{arm} against {cells[0].control} ({count} questions, alpha {alphas}): {'; '.join(parts)}."
    )


def _clear(cells: Sequence[AgainstControl], views: Sequence[ViewName]) -> str:
    """`kurtosis is lower and diversity is higher`, or that it cannot be told."""
    names: dict[str, list[str]] = {}
    for metric in METRICS:
        names.setdefault(differs(cells, metric.key, views), []).append(metric.label.lower())
    clear = [
        f"{_listed(names[way])} {'is' if len(names[way]) == 1 else 'are'} {_WAY[way]}"
        for way in ("rises", "falls")
        if way in names
    ]
    return _listed(clear) if clear else "no metric differs clearly"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
