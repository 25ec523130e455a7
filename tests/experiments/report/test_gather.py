"""What the report shows is what the files of a run directory say."""

import dataclasses
import json
import math

import numpy as np
import pytest
from saved_study import PAIR, save_answers, save_study
from toy_study import scores

from experiments import store
from experiments.errors import InputError
from experiments.report import published
from experiments.report.gather import gather
from experiments.statistics.metrics import METRICS
from experiments.study.rule import Rule

BASE_nWR, RL_nWR = scores(2, 10, seed=1), scores(2, 10, seed=2, gain=1.5)
RULES = (Rule(alpha=0.1), Rule(alpha=0.3))


@pytest.fixture
def directory(tmp_path):
    return save_study(tmp_path, BASE_nWR, RL_nWR, rules=RULES)


def changed(path, change):
    """Rewrite one JSON file."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_cell_holds_its_scores_losses_rows_and_intervals(directory):
    study = gather([directory])
    assert [cell.name for cell in study.cells] == ["toy, math, alpha 0.1", "toy, math, alpha 0.3"]
    lines = (directory / "math" / "all_correct.jsonl").read_text().splitlines()
    by_idx = {json.loads(line)["idx"]: json.loads(line) for line in lines}
    for cell, name in zip(study.cells, ("cut0.1", "cut0.3"), strict=True):
        np.testing.assert_array_equal(cell.base_nWR, BASE_nWR)
        np.testing.assert_array_equal(cell.rl_nWR, RL_nWR)
        chosen = json.loads((directory / "math" / name / "cell.json").read_text())["rows"]
        assert list(cell.rows) == [by_idx[idx] for idx in chosen]
        np.testing.assert_allclose(cell.base_losses_n, np.linspace(0.1, 0.2, 10), rtol=1e-6)
        mean_WR = (RL_nWR - BASE_nWR).astype(np.float64).mean(axis=0)
        edges = mean_WR != 0
        assert (cell.edge_low_WR < mean_WR)[edges].all()
        assert (mean_WR < cell.edge_high_WR)[edges].all()
    assert [cell.t_cut for cell in study.cells] == [
        json.loads((directory / "math" / name / "metrics.json").read_text())["cut"]
        for name in ("cut0.1", "cut0.3")
    ]
    assert study.cells[0].t_cut < study.cells[1].t_cut


def test_comparisons_are_those_of_the_metrics_file(directory):
    path = directory / "math" / "cut0.3" / "metrics.json"
    saved = json.loads(path.read_text())["metrics"]
    found = gather([directory]).cells[1].comparisons
    assert found.keys() == saved.keys()
    for key, comparison in found.items():
        for field, value in dataclasses.asdict(comparison).items():
            expected = saved[key][field]
            assert value == (tuple(expected) if isinstance(expected, list) else expected), key


def test_what_is_not_defined_comes_back_as_nan(directory):
    def undefined(data):
        data["metrics"]["activation_intensity"] |= {"relative": None, "rl_interval": [None, None]}
        data["sides"]["rl"]["health"] = None
        data["sensitivities"][0]["base"] = None

    changed(directory / "math" / "cut0.1" / "metrics.json", undefined)
    study = gather([directory])
    comparison = study.cells[0].comparisons["activation_intensity"]
    assert math.isnan(comparison.relative)
    assert all(map(math.isnan, comparison.rl_interval))
    assert math.isnan(study.sensitivities[0].base)
    assert (study.health[1].value, study.health[1].sound) == ("undefined", None)
    assert study.health[0].sound is True


def test_a_column_sum_above_its_bar_is_not_sound(directory):
    changed(
        directory / "math" / "cut0.1" / "metrics.json",
        lambda data: data["sides"]["base"].update(health=0.7),
    )
    first, *others = gather([directory]).health
    assert (first.name, first.sound) == ("Column sums, toy, math, alpha 0.1, base", False)
    assert [figure.sound for figure in others] == [True] * 3
    changed(directory / "manifest.json", lambda data: data.update(numerics="bfloat16"))
    changed(
        directory / "math" / "cut0.1" / "metrics.json",
        lambda data: data["sides"]["base"].update(health=0.03),
    )
    assert gather([directory]).health[0].sound is True, "bfloat16 rounds"


def test_column_sums_say_which_readers_they_leave_out(directory):
    changed(
        directory / "math" / "cut0.1" / "metrics.json",
        lambda data: data["sides"]["base"].update(health_without=["mlp"]),
    )
    first, *others = gather([directory]).health
    assert "(mlp left out: this model reads there without a norm" in first.expected
    assert not any("left out" in figure.expected for figure in others)


def test_answers_give_accuracy_with_its_interval_and_begin_the_funnel(directory):
    before = gather([directory])
    assert before.accuracies == [], "nothing was asked here"
    assert before.cells[0].funnel[0].name == "both right"
    save_answers(directory, "base", [True] * 6 + [False] * 4)
    save_answers(directory, "rl", [True] * 8 + [False] * 2)
    after = gather([directory])
    found = [(a.pair, a.dataset, a.side, a.right, a.total) for a in after.accuracies]
    assert found == [("toy", "math", "base", 6, 10), ("toy", "math", "rl", 8, 10)]
    # Wilson: (p + z2/2n +- z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n) at p = 0.6, n = 10.
    assert after.accuracies[0].interval == pytest.approx((0.31267, 0.83182), abs=1e-4)
    steps = [(step.name, step.rows) for step in after.cells[0].funnel]
    assert steps[:3] == [("questions", 10), ("base right", 6), ("both right", 10)]
    assert after.cells[0].funnel[2:] == before.cells[0].funnel


def test_the_manifest_tells_where_everything_came_from(directory):
    study = gather([directory])
    manifest = json.loads((directory / "manifest.json").read_text())
    (pair,) = study.pairs
    assert (pair.key, pair.base, pair.rl, pair.method) == ("toy", "start", "grown", "GRPO")
    assert study.command == "python -m toy"
    assert study.hashes == {"toy, base": "0" * 64, "toy, rl": "1" * 64}
    assert study.versions["jax"] == manifest["packages"]["jax"]
    assert study.settings["seconds"] == "1.5"
    text = study.cells[0].decode([5, 6])
    assert study.cells[0].rl_decode([5, 6]) == text
    assert isinstance(text, str)
    assert text


def test_studies_of_several_pairs_stand_side_by_side(directory, tmp_path):
    key = "mistral"
    other = save_study(
        tmp_path, RL_nWR, BASE_nWR, pair=dataclasses.replace(PAIR, key=key, series=key)
    )
    study = gather([directory, other])
    assert [pair.key for pair in study.pairs] == ["toy", "mistral"]
    assert [cell.name for cell in study.cells] == [
        "toy, math, alpha 0.1", "toy, math, alpha 0.3", "mistral, math, alpha 0.3",
    ]  # fmt: skip
    assert study.cells[2].published == published.cell_values("mistral", "math", 0.3)
    assert study.cells[0].published == {}
    assert study.command == "python -m toy", "one command, once"
    assert len(study.health) == 2 * 3


def test_cells_of_other_rules_have_names_of_their_own_and_no_published_values(tmp_path):
    pair = dataclasses.replace(PAIR, key="mistral", series="mistral")
    rules = (Rule(alpha=0.3), Rule(alpha=0.3, delta=0.9))
    directory = save_study(tmp_path, BASE_nWR, RL_nWR, pair=pair, rules=rules)
    usual, other = gather([directory]).cells
    assert usual.name == "mistral, math, alpha 0.3"
    assert other.name == "mistral, math, alpha 0.3, delta 0.9"
    assert usual.published
    rows = gather([directory]).sensitivities
    assert {row.cell for row in rows} == {usual.name, other.name}
    assert not other.published


def test_texts_of_an_adapter_are_read_with_the_tokenizer_of_the_base_that_it_was_given(tmp_path):
    directory, adapter = save_study(tmp_path, BASE_nWR, RL_nWR), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    manifest = json.loads((directory / "manifest.json").read_text())
    expected = gather([directory]).cells[0].decode([5, 6])
    manifest["checkpoints"]["rl"] = str(adapter)
    (directory / "manifest.json").write_text(json.dumps(manifest))
    assert gather([directory]).cells[0].rl_decode is None
    manifest["adapter_bases"] = {"rl": manifest["checkpoints"]["base"]}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    assert gather([directory]).cells[0].rl_decode([5, 6]) == expected


def test_without_a_tokenizer_there_is_no_text(tmp_path):
    empty = tmp_path / "checkpoint"
    empty.mkdir()
    directory = save_study(tmp_path, BASE_nWR, RL_nWR, checkpoint=empty)
    (cell,) = gather([directory]).cells
    assert cell.decode is None
    assert cell.rl_decode is None


@pytest.mark.parametrize("samples", [1, 9])
def test_few_questions_have_no_edge_intervals(tmp_path, samples):
    directory = save_study(tmp_path, BASE_nWR[:samples], RL_nWR[:samples])
    (cell,) = gather([directory]).cells
    assert cell.edge_low_WR is None
    assert cell.num_samples == samples


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("manifest.json", lambda p: p.unlink(), "manifest.json: no such file"),
        ("manifest.json", lambda p: p.write_text("{"), "manifest.json: expected JSON"),
        ("math/cut0.1/metrics.json", lambda p: p.unlink(), "metrics.json: no such file"),
        ("math/cut0.1/losses_rl.json", lambda p: p.unlink(), "losses_rl.json: no such file"),
        ("math/cut0.1/edge_intervals.npz", lambda p: p.unlink(), "intervals.npz: no such file"),
        ("math/cut0.1/results_toy_math_rl_cut0.1.npz", lambda p: p.write_bytes(b"x"),
         "results_toy_math_rl_cut0.1.npz: expected an npz"),
        ("math/all_correct.jsonl", lambda p: p.write_text(p.read_text().split("\n", 1)[1]),
         "all_correct.jsonl: expected idx 0"),
    ],
)  # fmt: skip
def test_a_missing_or_broken_file_is_named(directory, file, damage, said):
    damage(directory / file)
    with pytest.raises(InputError) as error:
        gather([directory])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_model_and_text_are_read_where_they_were_split(directory):
    cell = directory / "math" / "cut0.3"
    without = gather([directory]).cells[1]
    assert without.identical_texts == 0.0, "the made-up texts of both models are drawn apart"
    assert without.model_text == {}
    part = {"value": 0.5, "interval": [None, 1.0], "trend": "unclear"}
    fields = {"values": {"base_on_base": 1.0}, "parts": {"model": part}}
    found = {"metrics": {METRICS[0].key: fields, "a later metric": fields}, "losses": fields}
    store.write_json(cell / "model_text.json", {"identical_texts": 0.0} | found)
    split = gather([directory]).cells[1].model_text
    assert set(split) == {METRICS[0].key, "loss"}
    effect = split["loss"].parts["model"]
    assert (effect.value, effect.interval[1], effect.trend) == (0.5, 1.0, "unclear")
    assert np.isnan(effect.interval[0])
