"""A change split into model and text: hand arithmetic, `compare`'s own change, and what must be zero."""

import json

import numpy as np
import pytest
import toys
from paired_scores import draw_scores

from eap_jax import metrics
from experiments import store
from experiments.errors import InputError
from experiments.responses.published_format import row_of
from experiments.scoring.cells import Cell
from experiments.scoring.selection import select
from experiments.statistics.bootstrap import draw_weights, interval
from experiments.statistics.compare import compare
from experiments.statistics.functionals import Mean
from experiments.statistics.metrics import METRICS
from experiments.statistics.model_text import (
    PLACES,
    Split,
    measure_model_text,
    split_metrics,
    split_values,
)
from experiments.study.opened import OpenStudy
from experiments.study.pairs import pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

BASE, RL = toys.SIDES
PARTS = ("change", "model", "text", "interaction")


def stacks(samples=12) -> dict:
    """Four stacks [n, W, R] of one population, no two alike, by (model, text)."""
    draw = np.random.default_rng(5)
    first, second = (draw_scores(draw, samples) for _ in range(2))
    return dict(zip(PLACES, (*first, *second), strict=True))


def test_the_parts_of_four_numbers_by_hand():
    """Two questions; means: base on base's text 2, rl on it 5, base on rl's 4, rl on it 13."""
    values = {
        (BASE, BASE): np.array([1.0, 3.0]), (RL, BASE): np.array([4.0, 6.0]),
        (BASE, RL): np.array([4.0, 4.0]), (RL, RL): np.array([10.0, 16.0]),
    }  # fmt: skip
    found = split_values(values)
    assert found.values == {
        "base_on_base": 2.0, "rl_on_base": 5.0, "base_on_rl": 4.0, "rl_on_rl": 13.0,
    }  # fmt: skip
    assert {name: part.value for name, part in found.parts.items()} == {
        "change": 11.0,
        "model": (3.0 + 9.0) / 2,
        "text": (2.0 + 8.0) / 2,
        "interaction": 9.0 - 3.0,
    }
    assert all(part.trend == "unclear" for part in found.parts.values()), "two questions"
    assert all(np.isnan(part.interval).all() for part in found.parts.values())


def test_every_metrics_parts_are_the_formulas_and_model_and_text_make_the_change():
    given = stacks()
    found = split_metrics(given)
    published = compare(given[BASE, BASE], given[RL, RL])
    assert list(found) == [metric.key for metric in METRICS]
    for key, formula in (
        ("activation_intensity", metrics.intensity),
        ("information_complexity", metrics.complexity),
        ("distribution_kurtosis", metrics.kurtosis),
        ("sample_diversity", metrics.diversity),
        ("output_edge_entropy", metrics.output_entropy),
        ("strength_entropy", metrics.entropy_of_strengths),
    ):
        value = {place: formula(stack) for place, stack in given.items()}
        on_base = value[RL, BASE] - value[BASE, BASE]
        on_rl = value[RL, RL] - value[BASE, RL]
        parts = found[key].parts
        assert parts["model"].value == pytest.approx((on_base + on_rl) / 2, rel=1e-9), key
        assert parts["interaction"].value == pytest.approx(on_rl - on_base, rel=1e-9), key
        of_base = value[BASE, RL] - value[BASE, BASE]
        of_rl = value[RL, RL] - value[RL, BASE]
        assert parts["text"].value == pytest.approx((of_base + of_rl) / 2, rel=1e-9), key
        change = parts["model"].value + parts["text"].value
        assert change == pytest.approx(published[key].difference, rel=1e-9), key
        assert parts["change"].interval == pytest.approx(published[key].difference_interval), key


def test_a_means_interval_is_that_of_the_questions_own_parts():
    """Of the intensity, |W|'s mean, every question has a part of its own."""
    given = stacks()
    found = split_metrics(given)["activation_intensity"].parts
    own = {place: np.abs(stack).mean(axis=(1, 2)) for place, stack in given.items()}
    on_base, on_rl = (own[RL, text] - own[BASE, text] for text in toys.SIDES)
    of_base, of_rl = (own[model, RL] - own[model, BASE] for model in toys.SIDES)
    weights_Zn = draw_weights(12, 2000, 0)
    for name, own_n in (
        ("model", (on_base + on_rl) / 2),
        ("text", (of_base + of_rl) / 2),
        ("interaction", on_rl - on_base),
    ):
        expected = interval(Mean(values_n=own_n).resample(weights_Zn), weights_Zn, confidence=0.95)
        assert found[name].interval == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize("what", ["model", "text"])
def test_what_changes_nothing_has_no_part_and_the_other_has_the_whole_change(what):
    """Two models with one behaviour; two texts that are one."""
    draw = np.random.default_rng(2)
    one, other = draw_scores(draw, 40)
    other = 3 * other
    varies = {"model": 1, "text": 0}[what]  # the place's other half decides
    given = {place: (one if place[varies] == BASE else other) for place in PLACES}
    active = "text" if what == "model" else "model"
    published = compare(one, other)
    for key, split in split_metrics(given).items():
        for none in (what, "interaction"):
            assert split.parts[none].value == 0, (key, none)
            assert split.parts[none].trend == "unclear", (key, none)
        assert split.parts[active].value == pytest.approx(published[key].difference), key
        low, high = split.parts[active].interval
        assert (low, high) == pytest.approx(published[key].difference_interval), key
    intensity = split_metrics(given)["activation_intensity"].parts
    assert (intensity[active].trend, intensity["change"].trend) == ("rises", "rises")


def test_stacks_of_different_shapes_are_an_error():
    given = stacks()
    given[RL, BASE] = given[RL, BASE][1:]
    with pytest.raises(ValueError, match="four stacks of one shape"):
        split_metrics(given)


def cell_in(folder, *, differ: bool):
    """A study and a cell of 12 questions whose texts differ in the prompt, or not at all."""
    study = Study(
        pair=pair_of("a", "b", "toy"), workdir=folder, datasets=("math",), rules=(Rule(alpha=0.3),)
    )
    opened = OpenStudy(
        study=study, checkpoints={}, configs={}, hashes={}, answer_dtypes={}, mesh=None
    )
    rows = []
    for idx in range(12):
        fields = {"idx": idx}
        for side in toys.SIDES:
            fields[f"{side}_prompt_tokens"] = [1, 2 if side == "rl" and differ else 3]
            fields[f"{side}_answer_tokens"] = list(range(5, 15))
        rows.append(row_of(fields))
    rule = study.rules[0]
    cell = Cell(dataset="math", rule=rule, selection=select(rows, rule), directory=folder / "cell")
    for place, scores_nWR in stacks().items():
        model, text = place
        losses = [float(len(model) + idx) for idx in range(12)]
        if model == text:
            path = store.results_path(cell.directory, "toy", "math", model, 0.3)
            store.write_results(path, scores_nWR.astype(np.float32))
            store.write_json(cell.directory / f"losses_{model}.json", {"losses": losses})
        elif differ:
            store.write_arrays(
                cell.directory / f"{model}_on_{text}_text.npz",
                scores=scores_nWR.mean(axis=0).astype(np.float32),
                all_scores=scores_nWR.astype(np.float32),
                losses=np.asarray(losses, np.float32),
            )
    return opened, cell


def test_the_file_holds_the_splits_of_the_saved_scores(tmp_path):
    opened, cell = cell_in(tmp_path, differ=True)
    found = measure_model_text(opened, cell)
    saved = store.read_json(cell.directory / "model_text.json")
    assert saved == json.loads(json.dumps(found))
    assert (saved["samples"], saved["differing"], saved["identical_texts"]) == (12, 12, 0.0)
    # rl's losses are 2 lower, since its name is 2 shorter, whatever the text.
    assert {name: saved["losses"]["parts"][name]["value"] for name in PARTS} == {
        "change": -2.0, "model": -2.0, "text": 0.0, "interaction": 0.0,
    }  # fmt: skip
    expected = split_metrics({p: s.astype(np.float32) for p, s in stacks().items()})
    assert list(saved["metrics"]) == list(expected)
    for key, fields in saved["metrics"].items():
        assert Split.from_json(fields) == expected[key]


def test_where_texts_are_the_same_or_not_scored_crosswise_nothing_is_split(tmp_path):
    opened, cell = cell_in(tmp_path / "same", differ=False)
    assert measure_model_text(opened, cell) == {
        "samples": 12, "differing": 0, "identical_texts": 1.0,
    }  # fmt: skip
    opened, cell = cell_in(tmp_path / "other", differ=True)
    (cell.directory / "rl_on_base_text.npz").unlink()
    assert set(measure_model_text(opened, cell)) == {"samples", "differing", "identical_texts"}


def test_a_broken_file_is_named(tmp_path):
    opened, cell = cell_in(tmp_path, differ=True)
    (cell.directory / "base_on_rl_text.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"base_on_rl_text.npz: expected an npz file"):
        measure_model_text(opened, cell)
