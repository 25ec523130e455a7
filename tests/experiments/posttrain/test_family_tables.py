"""README's tables say what results.json holds: medians, clear seeds, and what stands in every view."""

import json
import math
import statistics
from pathlib import Path

import pytest

from experiments.posttrain.family_tables import (
    arms_table,
    control_table,
    found_in_every_view,
    views_table,
)
from experiments.statistics.metrics import METRICS
from experiments.statistics.views import VIEWS

REPOSITORY = Path(__file__).resolve().parents[3]
SAVED = json.loads((REPOSITORY / "experiments" / "checkpoints" / "results.json").read_text())
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "table", [arms_table(SAVED), control_table(SAVED), views_table(SAVED["arms"]["tiny_grpo"][0])]
)
def test_readmes_tables_are_made_from_the_saved_figures(table):
    assert table in README


def test_readme_names_the_alpha_and_the_seeds_of_its_tables():
    section = " ".join(README.split("## A result")[1].split("\n## ")[0].split())
    assert f"alpha {SAVED['alpha']:g}" in section
    seeds = {len(entries) for entries in SAVED["arms"].values()}
    assert f"{seeds.pop()} training seeds" in section


def entry(relative, trend, *, exact=None, accuracy=0.75):
    """One seed in which every metric changes alike, in the exact view perhaps otherwise."""
    views = {}
    for view in VIEWS:
        change, seen = exact if exact and view == "exact" else (relative, trend)
        views[view] = {metric.key: {"relative": change, "trend": seen} for metric in METRICS}
    return {"accuracy": {"base": 0.5, "rl": accuracy}, "samples": 7, "views": views}


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_cell_is_the_median_change_and_counts_clear_seeds():
    entries = [entry(0.1, "rises"), entry(0.3, "rises", accuracy=0.8), entry(-0.2, "unclear")]
    *_, scores, cut = arms_table({"arms": {"arm": entries}}).splitlines()
    count = len(METRICS)
    assert cells(scores) == ["arm", "50 → 75, 80, 75", "scores", *["+10% (rises 2/3)"] * count]
    assert cells(cut) == ["", "", "edges cut", *["+10% (rises 2/3)"] * count]
    mixed = [entry(0.1, "rises"), entry(0.3, "rises"), entry(-0.2, "falls")]
    assert "+10% (rises 2/3, falls 1/3)" in arms_table({"arms": {"arm": mixed}})
    unclear = {"arms": {"tiny_sft": [entry(math.nan, "unclear")] * 2}}
    *_, scores, _ = arms_table(unclear).splitlines()
    assert cells(scores)[0] == "tiny_sft (control)"
    assert cells(scores)[-1] == "undefined (unclear)"
    *_, scores, _ = control_table({"against_control": {"arm": entries}}).splitlines()
    assert cells(scores)[:3] == ["arm", "7, 7, 7", "scores"]


def test_bold_is_what_every_view_and_seed_has():
    metric = METRICS[0].key
    all_fall = [entry(-0.1, "falls"), entry(-0.4, "falls")]
    assert found_in_every_view(all_fall, metric)
    assert "**-25% (falls 2/2)**" in arms_table({"arms": {"arm": all_fall}})
    for other in ("rises", "unclear"):
        doubtful = [entry(-0.1, "falls"), entry(-0.4, "falls", exact=(0.0, other))]
        assert not found_in_every_view(doubtful, metric)
        assert "**" not in arms_table({"arms": {"arm": doubtful}})
    assert not found_in_every_view([entry(0.0, "unclear")], metric)


def test_the_table_of_views_shows_a_change_where_it_is_clear():
    lines = views_table(entry(-0.58, "falls", exact=(0.01, "unclear"))).splitlines()[2:]
    assert len(lines) == len(VIEWS)
    assert all(set(cells(line)[1:]) == {"-58%"} for line in lines[:-1])
    assert set(cells(lines[-1])[1:]) == {"unclear"}


def test_the_saved_medians_over_seeds_are_those_of_the_seeds():
    for kind in ("arms", "against_control"):
        for arm, entries in SAVED[kind].items():
            for view in VIEWS:
                for metric in METRICS:
                    changes = [one["views"][view][metric.key]["relative"] for one in entries]
                    summed = SAVED["over_seeds"][kind][arm][view][metric.key]
                    assert summed["seeds"] == len(entries)
                    assert summed["median"] == pytest.approx(statistics.median(changes), rel=1e-4)
