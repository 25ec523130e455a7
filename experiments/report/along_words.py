"""What changes first along a training, in words and as files: along.csv and along.json."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.along import Point
from experiments.report.formats import percent

ALONG_COLUMNS = (
    "step", "dataset", "alpha", "measure", "view", "start", "snapshot", "relative", "low", "high",
    "trend", "questions",
)  # fmt: skip


def first_change(points: Sequence[Point]) -> str:
    """One sentence: which measure first changes clearly, or that it cannot be told.

    Of a metric the published view counts; it has changed at a step where it has at some alpha.
    """
    found = _first_steps(points)
    steps = sorted({point.step for point in points})
    if not found:
        return (
            f"Cannot tell what changes first: no measure changes clearly at any of {_count(steps)}."
        )
    first = min(found.values())
    now = [name for name, step in found.items() if step == first]
    if len(now) > 1:
        place = f"the first of {_count(steps)}"
        if first > steps[0]:
            place += " where anything has"
        names, count = (
            _listed([_short(points, name) for name in now]),
            "both" if len(now) == 2 else "all",
        )
        return (
            f"Cannot tell what changes first: {names} have {count} changed clearly by step {first}, "
            f"{place}."
        )
    changes = "; ".join(
        f"{point.trend}{_size(point)}{_alpha(points, point)}"
        for point in _clear(points, now[0], first)
    )
    text = f"{_short(points, now[0])} changes first: at step {first} it {changes}."
    return text[0].upper() + text[1:]


def later_changes(points: Sequence[Point]) -> str:
    """What comes after it, each with its first step, and which changes stand in every view.

    The latter are those where, at some alpha, from that step to the last, every view has the same
    clear sign.
    """
    found = _first_steps(points)
    first = min(found.values(), default=0)
    later = {name: step for name, step in found.items() if step > first}
    text = ""
    if later:
        text = f"Clear later: {_listed(_at(points, later, 'step'))}. "
    last = max(point.step for point in points)
    standing: dict[str, int] = {}
    published = [point for point in points if point.view == "published"]
    for series in _grouped(published, "measure", "dataset", "choice").values():
        since = None
        for point in sorted(series, key=lambda point: point.step, reverse=True):
            way = point.trend if since is None else since.trend
            if not point.everywhere or point.trend != way or (since is None and point.step < last):
                break
            since = point
        if since is not None:
            name = _name(since)
            standing[name] = min(standing.get(name, since.step), since.step)
    if not standing:
        return f"{text}At step {last} no metric's change stands in every view."
    by_step = dict(sorted(standing.items(), key=lambda item: item[1]))
    names = _listed(_at(points, by_step, "since step"))
    return f"{text}At step {last}, in every view: {names}."


def along_csv(points: Sequence[Point]) -> str:
    """One line a step, measure and view, numbers in full precision, empty where not defined.

    The interval is that of `relative` for a metric and that of `snapshot` for the others.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ALONG_COLUMNS)
    for p in points:
        numbers = (p.start, p.snapshot, p.relative, p.low, p.high)
        writer.writerow(
            (
                p.step, p.dataset, p.choice, p.measure, p.view,
                *(float(value) if math.isfinite(value) else "" for value in numbers),
                p.trend, p.questions,
            )
        )  # fmt: skip
    return text.getvalue()


def along_json(name: str, points: Sequence[Point]) -> Mapping[str, Any]:
    """The training, its steps, both sentences, each measure's first clear change, and all points."""
    found = _first_steps(points)
    return {
        "along": name,
        "steps": sorted({point.step for point in points}),
        "first": first_change(points),
        "later": later_changes(points),
        "first_changes": [
            {
                "measure": point.measure, "dataset": point.dataset, "alpha": point.choice,
                "step": step, "trend": point.trend, "relative": point.relative,
            }
            for key, step in found.items()
            for point in _clear(points, key, step)
        ],
        "points": [dataclasses.asdict(point) for point in points],
    }  # fmt: skip


def _name(point: Point) -> str:
    return f"{point.label} ({point.dataset})"


def _short(points: Sequence[Point], name: str) -> str:
    """A measure's name, with its dataset only where there are several."""
    several = len({point.dataset for point in points}) > 1
    return name if several else next(p.label for p in points if _name(p) == name)


def _first_steps(points: Sequence[Point]) -> dict[str, int]:
    """Each measure's first step with a clear change, by its name, steps rising."""
    found: dict[str, int] = {}
    for point in sorted(points, key=lambda point: point.step):
        if point.trend != "unclear" and point.view in ("", "published"):
            found.setdefault(_name(point), point.step)
    return found


def _clear(points: Sequence[Point], name: str, step: int) -> list[Point]:
    """A measure's clear changes at a step, one an alpha."""
    return [
        point for point in points
        if (_name(point), point.step) == (name, step)
        and point.trend != "unclear" and point.view in ("", "published")
    ]  # fmt: skip


def _grouped(points: Sequence[Point], *fields: str) -> dict[tuple, list[Point]]:
    found: dict[tuple, list[Point]] = {}
    for point in points:
        found.setdefault(tuple(getattr(point, field) for field in fields), []).append(point)
    return found


def _size(point: Point) -> str:
    """` by 12 %`, or nothing where the start's value is 0."""
    if not math.isfinite(point.relative):
        return ""
    return f" by {percent(abs(point.relative), 0).lstrip('+')} %"


def _alpha(points: Sequence[Point], point: Point) -> str:
    several = len({p.choice for p in points if p.choice}) > 1
    return f" (alpha {point.choice})" if several and point.choice else ""


def _at(points: Sequence[Point], steps: Mapping[str, int], word: str) -> list[str]:
    return [f"{_short(points, name)} ({word} {step})" for name, step in steps.items()]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _count(steps: Sequence[int]) -> str:
    return f"{len(steps)} snapshot{'' if len(steps) == 1 else 's'}"
