"""README's result is that of results.json, and results.json is what the study measures."""

import json
import shutil
from pathlib import Path

import pytest
from paired_scores import FORMULAS

from experiments.errors import InputError
from experiments.posttrain import family_results
from experiments.posttrain.family import ARMS
from experiments.statistics.compare import Comparison
from experiments.statistics.metrics import METRICS
from experiments.statistics.trend import trend

REPOSITORY = Path(__file__).resolve().parents[3]
SHIPPED = REPOSITORY / "experiments" / "checkpoints"
SAVED = json.loads((SHIPPED / "results.json").read_text())


def test_readmes_table_is_made_from_the_saved_figures():
    assert family_results.table(SAVED["arms"]) in (REPOSITORY / "README.md").read_text(
        encoding="utf-8"
    )


def test_every_arm_has_three_seeds_with_all_figures():
    assert set(SAVED["arms"]) == set(ARMS)
    for entries in SAVED["arms"].values():
        assert len(entries) == 3
        for entry in entries:
            assert entry["samples"] == 100
            assert 0 < entry["training_seconds"] <= 40 * 60
            assert set(entry["metrics"]) == set(FORMULAS)
            for fields in entry["metrics"].values():
                low, high = fields["difference_interval"]
                assert low <= fields["difference"] <= high
                assert fields["difference"] == pytest.approx(fields["rl"] - fields["base"])


@pytest.mark.parametrize("arm", ARMS)
def test_the_first_seeds_accuracies_are_those_of_the_shipped_models(arm):
    first = SAVED["arms"][arm][0]["accuracy"]
    for side, name in (("base", "tiny_start"), ("rl", arm)):
        card = json.loads((SHIPPED / name / "figures.json").read_text())
        assert first[side] == pytest.approx(card["accuracy"], abs=1e-9)


def test_table_says_the_median_change_and_counts_clear_seeds():
    def entry(relative, low, high, p, effect):
        fields = {
            "metric": "m", "base": 1.0, "rl": 1.0 + relative, "difference": relative,
            "relative": relative, "base_interval": [0, 1], "rl_interval": [0, 1],
            "difference_interval": [low, high], "relative_interval": [low, high],
            "wilcoxon_p": p, "sign_p": p, "effect_size": effect, "samples": 5,
        }  # fmt: skip
        return {
            "accuracy": {"base": 0.5, "rl": 0.75},
            "metrics": dict.fromkeys((metric.key for metric in METRICS), fields),
        }

    entries = [
        entry(0.10, 0.05, 0.2, 0.01, 0.5),
        entry(0.30, 0.2, 0.4, 0.01, 0.5),
        entry(-0.20, -0.3, 0.1, 0.5, -0.1),
    ]
    *_, line = family_results.table({"arm": entries}).splitlines()
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["arm", "50 → 75, 75, 75", *["+10% (rises 2/3)"] * len(METRICS)]
    mixed = [*entries[:2], entry(-0.20, -0.3, -0.1, 0.01, -0.5)]
    *_, line = family_results.table({"arm": mixed}).splitlines()
    assert "+10% (rises 2/3, falls 1/3)" in line
    unclear = [entry(0.1, -0.1, 0.3, 0.5, 0.1)] * 3
    *_, line = family_results.table({"arm": unclear}).splitlines()
    assert "+10% (unclear)" in line


@pytest.fixture
def family(tmp_path):
    """The shipped family as `experiments.posttrain.family` leaves one: start and two arms."""
    for name in ("tiny_start", "tiny_grpo"):
        shutil.copytree(SHIPPED / name, tmp_path / name / "model")
        shutil.copy(SHIPPED / name / "figures.json", tmp_path / name)
    (tmp_path / "tiny_start" / "model" / "figures.json").unlink()
    (tmp_path / "tiny_grpo" / "model" / "figures.json").unlink()
    recipe = {"start_directory": str(tmp_path / "tiny_start" / "model")}
    (tmp_path / "tiny_grpo" / "recipe.json").write_text(json.dumps(recipe))
    return tmp_path


def test_an_arm_is_compared_with_its_start_by_the_study(family, tmp_path, monkeypatch):
    monkeypatch.setattr(family_results, "ARMS", ("tiny_grpo",))
    ((entry,),) = family_results.collect([family], 0.3, 40, tmp_path / "work").values()
    start, end = (
        json.loads((SHIPPED / name / "figures.json").read_text())
        for name in ("tiny_start", "tiny_grpo")
    )
    assert entry["accuracy"] == {"base": start["accuracy"], "rl": end["accuracy"]}
    assert entry["worked"] == {"base": start["worked"], "rl": end["worked"]}
    assert 10 <= entry["samples"] <= 40
    # Of the saved 100 questions these are some: the clear change has the same sign.
    saved = SAVED["arms"]["tiny_grpo"][0]["metrics"]["sample_diversity"]
    found = entry["metrics"]["sample_diversity"]
    assert trend(Comparison.from_json(saved)) == "rises"
    assert found["difference"] > 0
    assert found["base"] == pytest.approx(saved["base"], rel=0.5)


def test_the_saved_figures_are_what_the_study_measures_of_the_shipped_models(tmp_path):
    """All five metrics with intervals and tests, of the arm that the default study compares."""
    found = family_results._arm(SHIPPED, "tiny_grpo", SAVED["alpha"], SAVED["questions"], tmp_path)
    saved = SAVED["arms"]["tiny_grpo"][0]
    assert found["accuracy"] == saved["accuracy"]
    assert found["samples"] == saved["samples"]
    for key, fields in saved["metrics"].items():
        for name, value in fields.items():
            measured = found["metrics"][key][name]
            assert measured == (
                value if isinstance(value, str) else pytest.approx(value, rel=1e-2, abs=1e-6)
            )


def test_an_unfinished_training_is_named(family, tmp_path):
    (family / "tiny_grpo" / "figures.json").unlink()
    with pytest.raises(InputError, match=r"model: expected a finished training"):
        family_results._arm(family, "tiny_grpo", 0.3, 40, tmp_path / "work")
