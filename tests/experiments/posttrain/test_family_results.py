"""results.json holds every arm and seed in every view, and is what the study measures."""

import json
import math
import shutil
from pathlib import Path

import pytest
from paired_scores import FORMULAS

from experiments.errors import InputError
from experiments.posttrain import family_results
from experiments.posttrain.families import FAMILIES
from experiments.posttrain.family_results import study_of
from experiments.posttrain.family_tables import CONTROL
from experiments.statistics.metrics import METRICS
from experiments.statistics.views import VIEWS, View

REPOSITORY = Path(__file__).resolve().parents[3]
ARMS = FAMILIES["tiny"].arms
SHIPPED = REPOSITORY / "experiments" / "checkpoints"
SAVED = json.loads((SHIPPED / "results.json").read_text())


def test_every_arm_and_seed_has_all_figures_in_every_view():
    assert set(SAVED["arms"]) == set(ARMS)
    assert set(SAVED["against_control"]) == set(ARMS) - {CONTROL}
    entries = [one for found in SAVED["arms"].values() for one in found]
    against = [one for found in SAVED["against_control"].values() for one in found]
    assert len(entries) == len(ARMS) * len(SAVED["arms"][CONTROL])
    assert len(against) == (len(ARMS) - 1) * len(SAVED["arms"][CONTROL])
    for entry in entries:
        assert 0 < entry["training_seconds"] <= 40 * 60
        assert set(FORMULAS) <= set(entry["metrics"])
        assert set(entry["fidelity"]) == {"base", "rl"}
        for fields in entry["metrics"].values():
            low, high = fields["difference_interval"]
            assert low <= fields["difference"] <= high
        for key, fields in entry["views"]["published"].items():
            assert fields["relative"] == entry["metrics"][key]["relative"]
    for entry in entries + against:
        assert entry["samples"] >= 30
        assert set(entry["views"]) == set(VIEWS)
        for found in entry["views"].values():
            assert set(found) == {metric.key for metric in METRICS}
            for fields in found.values():
                difference = fields["rl"] - fields["base"]
                assert fields["difference_low"] <= difference <= fields["difference_high"]
                assert fields["relative"] == pytest.approx(
                    difference / abs(fields["base"]), rel=1e-2, abs=1e-4
                )


def test_the_file_is_small():
    assert (SHIPPED / "results.json").stat().st_size < 500_000


@pytest.mark.parametrize("arm", ARMS)
def test_the_first_seeds_accuracies_are_those_of_the_shipped_models(arm):
    first = SAVED["arms"][arm][0]["accuracy"]
    for side, name in (("base", "tiny_start"), ("rl", arm)):
        card = json.loads((SHIPPED / name / "figures.json").read_text())
        assert first[side] == pytest.approx(card["accuracy"], abs=1e-9)


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


def test_an_unpublished_family_names_its_start_in_the_recipe(family, tmp_path):
    study = study_of(family, "tiny_grpo", 0.2, 40, tmp_path / "work")
    assert study.pair.base == str(family / "tiny_start" / "model")
    assert study.pair.rl == str(family / "tiny_grpo" / "model")
    published = study_of(SHIPPED, "tiny_grpo", 0.2, 40, tmp_path / "work")
    assert (published.pair.base, published.pair.rl) == (
        str(SHIPPED / "tiny_start"), str(SHIPPED / "tiny_grpo"),
    )  # fmt: skip
    assert [rule.alpha for rule in study.rules] == [0.2]
    assert (study.questions.limit, study.fidelity) == (40, "all")


def test_the_saved_figures_are_what_the_study_measures_of_the_shipped_models(tmp_path):
    """Of the arm that the default study compares: metrics with intervals and tests, every view, and
    fidelity."""
    study = study_of(SHIPPED, "tiny_grpo", SAVED["alpha"], SAVED["questions"], tmp_path)
    found, views = family_results._arm(study)
    saved = SAVED["arms"]["tiny_grpo"][0]
    for name in ("accuracy", "worked", "samples", "cut"):
        assert found[name] == saved[name]
    for key, fields in saved["metrics"].items():
        assert close(found["metrics"][key], fields)
    for view, of_view in saved["views"].items():
        for key, fields in of_view.items():
            assert close(found["views"][view][key], fields)
    for side, fields in saved["fidelity"].items():
        for name in ("pearson", "spearman", "sign", "size_ratio"):
            assert found["fidelity"][side][name] == pytest.approx(fields[name], abs=1e-2)
    assert len(views) == len(VIEWS) * len(METRICS)


def close(measured, saved) -> bool:
    """Whether texts are equal and numbers nearly: the metric's to its size, shares to 1."""
    size = max(abs(saved["base"]), abs(saved["rl"]))
    sizes = dict.fromkeys(("relative", "low", "high", "relative_interval", "effect_size"), 1.0)
    sizes |= {"wilcoxon_p": 1e-3, "sign_p": 1e-3}
    return all(
        measured[name] == value
        if isinstance(value, str)
        else measured[name] == pytest.approx(value, rel=1e-2, abs=2e-3 * sizes.get(name, size))
        for name, value in saved.items()
    )


def test_the_seeds_and_the_control_are_put_together_from_the_studies(monkeypatch, tmp_path):
    """Two families with made-up studies: who is compared with whom, and the sums over seeds."""

    def row(change):
        return View(
            view="exact", metric=METRICS[0].key, base=1.0, rl=1 + change, relative=change, low=-1,
            high=math.nan, trend="rises", samples=30,
        )  # fmt: skip

    change = {"a": 0.12345678, "b": 0.3, CONTROL: 0.0}
    monkeypatch.setattr(
        family_results, "study_of", lambda family, arm, *rest: (family.name, arm, rest[-1].name)
    )
    monkeypatch.setattr(
        family_results, "_arm", lambda study: ({"study": study}, [row(change[study[1]])])
    )
    monkeypatch.setattr(
        family_results, "_against", lambda arm, control: ({"pair": (arm, control)}, [row(0.5)])
    )
    families = [tmp_path / "first", tmp_path / "second"]
    found = family_results.collect(families, 0.3, 40, tmp_path, ("a", "b", CONTROL))
    assert [one["study"] for one in found["arms"]["a"]] == [
        ["first", "a", "seed0"], ["second", "a", "seed1"],
    ]  # fmt: skip
    assert set(found["against_control"]) == {"a", "b"}
    assert found["against_control"]["b"][1]["pair"] == [
        ["second", "b", "seed1"], ["second", CONTROL, "seed1"],
    ]  # fmt: skip
    summed = found["over_seeds"]["arms"]["a"]["exact"][METRICS[0].key]
    assert (summed["seeds"], summed["rises"], summed["median"]) == (2, 2, 0.123457)
    assert summed["interval"] == [None, None]
    text = family_results.formatted(found)
    assert json.loads(text) == found
    assert '"study": ["first", "a", "seed0"]' in text


def test_an_unfinished_training_is_named(family, tmp_path):
    (family / "tiny_grpo" / "figures.json").unlink()
    with pytest.raises(InputError, match=r"model: expected a finished training"):
        study_of(family, "tiny_grpo", 0.3, 40, tmp_path / "work")
