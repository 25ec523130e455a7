"""What a study found, in plain words beside what the paper reports.

The paper's three signs of online RL: activation intensity rises, information complexity rises,
kurtosis falls. A sign shows in a cell where `trend.trend` is the paper's direction, and in a pair
where it shows in more than half of the pair's cells. It counts as found only where every view of a
cell (`statistics.views`) has it, and where it does not turn with alpha (`alpha_words`).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from experiments.report.alpha_words import (
    AlphaViews,
    alpha_changes,
    alpha_turn,
    alpha_turns,
    alpha_views,
    cautions_of_cells,
    one_ladder,
    places,
    turned_ladders,
    turning_in_cells,
)
from experiments.report.formats import number, percent
from experiments.report.headline import BY_SUPPORT, Status, headline
from experiments.report.results import CellResult, PairInfo, StudyResult, comparisons_of
from experiments.report.view_words import (
    ViewLine,
    fidelity_sentence,
    loss_cautions,
    median_text,
    turning_sentence,
    view_lines,
)
from experiments.statistics.bootstrap import FEWEST
from experiments.statistics.compare import Comparison
from experiments.statistics.metrics import METRICS, TABLE_METRICS, Direction, Metric
from experiments.statistics.sensitivity import ONE_RANGE, OWN_RANGE, Sensitivity
from experiments.statistics.trend import disputed, trend
from experiments.statistics.views import support

_FEW_QUESTIONS = 30
_MOST_SENTENCES = 12
_CHANGE = {"rises": "rises", "falls": "falls", "unclear": "does not clearly change"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One metric of one pair: how it stands to the paper, a sentence of numbers, and its views,
    those of cells that differ in alpha only side by side."""

    metric: Metric
    status: Status
    text: str
    views: tuple[ViewLine, ...] = ()
    by_alpha: AlphaViews | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairVerdict:
    """One pair: the headline, a finding a metric, and what to keep in mind.

    Attributes:
      pair: which.
      headline: what was found.
      turns: what other views make of the paper's signs, a sentence each.
      fidelity: how true the scores are, a sentence a cell whose edges were cut.
      findings: one a metric.
      cautions: a sentence each.
    """

    pair: PairInfo
    headline: str
    turns: tuple[str, ...]
    fidelity: tuple[str, ...]
    findings: tuple[Finding, ...]
    cautions: tuple[str, ...]


def verdicts(study: StudyResult) -> list[PairVerdict]:
    """One verdict a pair that has cells, in the study's order."""
    found = []
    for pair in study.pairs:
        cells = [cell for cell in study.cells if cell.pair == pair.key]
        if cells:
            findings = tuple(
                _finding(metric, cells) for metric in METRICS if comparisons_of(cells, metric)
            )
            found.append(
                PairVerdict(
                    pair=pair,
                    headline=" ".join(
                        [headline(pair.method, _signs(findings), cells), *alpha_turns(cells)]
                    ),
                    turns=tuple(_turns(cells)),
                    fidelity=tuple(_fidelity(cells)),
                    findings=findings,
                    cautions=tuple(_cautions(study, cells)),
                )
            )
    return found


def agreement(comparison: Comparison, direction: Direction | None) -> Status:
    """How one cell's comparison stands to the paper's direction, None if the paper gives none."""
    if direction is None:
        return "not in the paper"
    seen = trend(comparison)
    if seen == "unclear":
        return "no clear change"
    return "as in the paper" if seen == direction else "opposite to the paper"


def _finding(metric: Metric, cells: Sequence[CellResult]) -> Finding:
    measured = [cell for cell in cells if metric.key in cell.comparisons]
    seen = Counter(status(cell, metric) for cell in measured)
    majority = next((name for name, count in seen.items() if 2 * count > len(measured)), "mixed")
    clear = {name for name in seen if name != "no clear change"}
    if majority == "mixed" and len(clear) == 1 and clear <= set(BY_SUPPORT.values()):
        majority = clear.pop()  # Where there is a change at all, another view does not have it.
    ladder = one_ladder(measured)
    text = _sentence(measured, metric)
    if metric.paper is None and any(support(c.views, metric.key) == "turns" for c in measured):
        text += "; it turns with the view"
    return Finding(
        metric=metric,
        status="turns with alpha" if turned_ladders(measured, metric) else majority,
        text=text,
        views=view_lines(measured, metric) if ladder is None else (),
        by_alpha=None if ladder is None else alpha_views(ladder, metric),
    )


def status(cell: CellResult, metric: Metric) -> Status:
    """`agreement`, unless another view of the cell does not have the change."""
    found = agreement(cell.comparisons[metric.key], metric.paper)
    if found in ("as in the paper", "opposite to the paper") and cell.views:
        return BY_SUPPORT.get(support(cell.views, metric.key), found)
    return found


def _turns(cells: Sequence[CellResult]) -> list[str]:
    """Sentences on the paper's signs that other views do not have."""
    alone = len(cells) == 1
    found = (
        turning_sentence(cells[0], metric) if alone else turning_in_cells(cells, metric)
        for metric in TABLE_METRICS
    )  # fmt: skip
    return [sentence for sentence in found if sentence]


def _fidelity(cells: Sequence[CellResult]) -> list[str]:
    """What the scores of each cell are worth, with its name where there are several."""
    shown = cells[:_MOST_SENTENCES]
    found = zip(places(cells), map(fidelity_sentence, shown), strict=False)
    return [text if len(cells) == 1 else f"{place}: {text}" for place, text in found if text]


def _sentence(cells: Sequence[CellResult], metric: Metric) -> str:
    comparisons = comparisons_of(cells, metric)
    if len(comparisons) == 1:
        (only,) = comparisons
        if not math.isfinite(only.relative):
            return "is not defined here"
        low, high = only.difference_interval
        known = math.isfinite(low) and math.isfinite(high)
        few = f"no interval of fewer than {FEWEST} questions"
        none = few if only.samples < FEWEST else "no interval"
        spread = f"95 % interval {number(low)} to {number(high)}" if known else none
        text = (
            f"{_CHANGE[trend(only)]}: {percent(only.relative)} %, from {number(only.base)} to "
            f"{number(only.rl)} (difference {number(only.difference)}, {spread})"
        )
        if median := median_text(cells[0], metric.key):
            text += f"; the median question by {median}"
        if disputed(only):
            way = "falls" if only.effect_size < 0 else "rises"
            text += f", but question by question it {way} (signed-rank p {number(only.wilcoxon_p)})"
        return text
    if (ladder := one_ladder(cells)) is not None:
        return alpha_changes(ladder, metric)
    seen = Counter(trend(comparison) for comparison in comparisons)
    parts = [
        f"{_CHANGE[name]} in {seen[name]}" for name in ("rises", "falls", "unclear") if seen[name]
    ]
    changes = [c.relative for c in comparisons if math.isfinite(c.relative)]
    average = f"; {percent(float(np.mean(changes)))} % on average" if changes else ""
    text = f"{', '.join(parts)} of {len(comparisons)} comparisons{average}"
    turn = alpha_turn(cells, metric)
    return text if turn is None else f"{text}. It turns with alpha: {turn}"


def _signs(findings: Sequence[Finding]) -> list[Status]:
    return [finding.status for finding in findings if finding.metric.in_table]


def _cautions(study: StudyResult, cells: Sequence[CellResult]) -> list[str]:
    found = []
    fewest = min(cell.num_samples for cell in cells)
    if fewest < _FEW_QUESTIONS:
        noun = "question" if fewest == 1 else "questions"
        what = "no intervals" if fewest < FEWEST else "intervals are rough"
        found.append(f"Only {fewest} {noun} in the smallest comparison: {what}.")
    names = [cell.name for cell in cells]
    for metric in METRICS:
        turned = [name for name in names if _range_decides(study.sensitivities, name, metric)]
        if turned:
            where = "" if len(names) == 1 else f" in {len(turned)} of {len(names)} comparisons"
            found.append(
                f"The sign of {metric.label.lower()} depends on its histogram's range"
                f"{where}: each side's own, as published, or one for both; see How much the free "
                "choices matter."
            )
    found += loss_cautions(cells[0]) if len(cells) == 1 else cautions_of_cells(cells)
    if any(check.sound is False for check in study.health):
        found.append("A check of the run's soundness failed; see Health before you trust the rest.")
    return found


def _range_decides(sensitivities: Sequence[Sensitivity], cell: str, metric: Metric) -> bool:
    """Whether a metric rises with one choice of the histogram's range and falls with the other."""
    changes = [
        row.rl - row.base
        for row in sensitivities
        if (row.cell, row.metric) == (cell, metric.key) and row.choice in (OWN_RANGE, ONE_RANGE)
    ]
    return len(changes) == 2 and changes[0] * changes[1] < 0
