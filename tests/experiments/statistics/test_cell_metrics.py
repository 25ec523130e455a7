"""A cell's metrics.json holds the paper's formulas applied to the cell's saved scores."""

import itertools
import json
import shutil

import numpy as np
import pytest
import toys

from eap_jax.graph import edge_mask
from experiments import store
from experiments.errors import InputError
from experiments.responses.published_format import read_rows
from experiments.scoring.cells import Cell
from experiments.scoring.selection import select
from experiments.statistics import cell_metrics
from experiments.statistics.metrics import METRICS
from experiments.study.opened import OpenStudy
from experiments.study.pairs import pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

SERIES, ALPHA = "mistral", 0.3


@pytest.fixture
def scored(tmp_path):
    """A study with one scored cell: the authors' own score files."""
    study = Study(
        pair=pair_of("a", "b", "toy"),
        workdir=tmp_path,
        datasets=("math",),
        rules=(Rule(alpha=ALPHA),),
    )
    opened = OpenStudy(
        study=study, checkpoints={}, configs={}, hashes={}, answer_dtypes={}, mesh=None
    )
    rows = read_rows(toys.GOLDEN / "responses" / SERIES / "math" / "all_correct.jsonl")
    directory = tmp_path / "toy" / "math" / "cut0.3"
    directory.mkdir(parents=True)
    cell = Cell(
        dataset="math",
        rule=study.rules[0],
        selection=select(rows, study.rules[0]),
        directory=directory,
    )
    for side in toys.SIDES:
        golden = (
            toys.GOLDEN / "results" / "float32" / f"results_{SERIES}_math_{side}_cut{ALPHA}.npz"
        )
        shutil.copyfile(golden, directory / f"results_toy_math_{side}_cut0.3.npz")
        losses = {"base": [1.0, 2.0, 6.0] * 5, "rl": [0.5, 0.25] * 7 + [0.375]}[side]
        facts = {"health": {"base": 1e-6, "rl": 2e-6}[side], "losses": losses}
        (directory / f"losses_{side}.json").write_text(json.dumps(facts))
    return opened, cell


def entropy(values, bins=100, upper=None):
    """REFERENCE: -sum p log p over equal bins of [0, max], in nats."""
    values = np.abs(np.asarray(values, np.float64)).ravel()
    places = np.minimum((values / (upper or values.max()) * bins).astype(int), bins - 1)
    shares = np.bincount(places, minlength=bins) / values.size
    return -sum(p * np.log(p) for p in shares if p > 0)


def kurtosis(values):
    spread = values - values.mean()
    return (spread**4).mean() / (spread**2).mean() ** 2 - 3


def expected(scores_nWR):
    """The paper's metrics from REFERENCE's formulas."""
    scores_nWR = scores_nWR.astype(np.float64)
    flat = [scores_WR.ravel() for scores_WR in scores_nWR]
    pairs = [np.corrcoef(*two)[0, 1] for two in itertools.combinations(flat, 2)]
    return {
        "activation_intensity": np.abs(scores_nWR).mean(),
        "information_complexity": entropy(scores_nWR),
        "distribution_kurtosis": np.mean([kurtosis(one) for one in flat]),
        "sample_diversity": 1 - np.mean(pairs),
        "output_edge_entropy": entropy(scores_nWR[:, :, -1]),
    }


def test_metrics_of_both_sides_are_the_published_formulas(scored):
    opened, cell = scored
    result = cell_metrics.measure_cell(opened, cell)
    assert store.read_json(cell.directory / "metrics.json") == json.loads(json.dumps(result))
    values = {s: expected(toys.golden_scores(SERIES, s, ALPHA)) for s in toys.SIDES}
    assert list(result["metrics"]) == [metric.key for metric in METRICS]
    for key in values["base"]:
        found = result["metrics"][key]
        base, rl = values["base"][key], values["rl"][key]
        assert found["base"] == pytest.approx(base, rel=1e-6), key
        assert found["rl"] == pytest.approx(rl, rel=1e-6), key
        assert found["difference"] == pytest.approx(rl - base, rel=1e-5, abs=1e-9), key
        assert found["relative"] == pytest.approx((rl - base) / abs(base), rel=1e-5, abs=1e-9), key
        low, high = found["difference_interval"]
        assert low < high, key


def test_edges_only_leaves_out_the_entries_that_are_no_edges(scored):
    opened, cell = scored
    found = cell_metrics.measure_cell(opened, cell)["edges_only"]
    mask_WR = edge_mask(4)
    for side in toys.SIDES:
        scores_nE = toys.golden_scores(SERIES, side, ALPHA)[:, mask_WR].astype(np.float64)
        assert found["activation_intensity"][side] == pytest.approx(np.abs(scores_nE).mean())
        assert found["information_complexity"][side] == pytest.approx(entropy(scores_nE))
        expected_kurtosis = np.mean([kurtosis(one) for one in scores_nE])
        assert found["distribution_kurtosis"][side] == pytest.approx(expected_kurtosis)


def test_both_entropies_stand_on_one_range_too(scored):
    opened, cell = scored
    result = cell_metrics.measure_cell(opened, cell)
    sides = {s: toys.golden_scores(SERIES, s, ALPHA).astype(np.float64) for s in toys.SIDES}
    wanted = {"information_complexity": slice(None), "output_edge_entropy": slice(-1, None)}
    assert set(result["one_range"]) == set(wanted)
    for key, columns in wanted.items():
        upper = max(np.abs(side[:, :, columns]).max() for side in sides.values())
        for side, scores_nWR in sides.items():
            expected_ = entropy(scores_nWR[:, :, columns], upper=upper)
            assert result["one_range"][key][side] == pytest.approx(expected_, rel=1e-6)
        low, high = result["one_range"][key]["difference_interval"]
        assert low < result["one_range"][key]["difference"] < high
        assert result["one_range"][key]["wilcoxon_p"] == result["metrics"][key]["wilcoxon_p"]


def test_the_cell_is_described_with_its_rule_selection_health_and_loss(scored):
    opened, cell = scored
    result = cell_metrics.measure_cell(opened, cell)
    assert (result["pair"], result["dataset"], result["cut"]) == ("toy", "math", cell.selection.cut)
    assert result["rule"] == {
        "alpha": 0.3, "beta": 0.5, "gamma": 1.5, "delta": 0.5, "num_samples": 100, "seed": 42,
    }  # fmt: skip
    assert result["samples"] == result["selection"][-1]["rows"] == 15
    assert result["sides"] == {
        "base": {"health": 1e-6, "loss": 3.0}, "rl": {"health": 2e-6, "loss": 0.375},
    }  # fmt: skip


def test_edge_intervals_hold_the_mean_difference_of_each_edge(scored):
    opened, cell = scored
    cell_metrics.measure_cell(opened, cell)
    with np.load(cell.directory / "edge_intervals.npz") as arrays:
        low_WR, high_WR = arrays["low"], arrays["high"]
    base_nWR, rl_nWR = (toys.golden_scores(SERIES, side, ALPHA) for side in toys.SIDES)
    mean_WR = (rl_nWR - base_nWR).astype(np.float64).mean(axis=0)
    mask_WR = edge_mask(4)
    inside = (low_WR < mean_WR) & (mean_WR < high_WR)
    assert inside[mask_WR].all()


def test_measuring_again_gives_equal_bytes(scored):
    opened, cell = scored
    files = [cell.directory / name for name in ("metrics.json", "edge_intervals.npz")]
    cell_metrics.measure_cell(opened, cell)
    first = [path.read_bytes() for path in files]
    cell_metrics.measure_cell(opened, cell)
    assert [path.read_bytes() for path in files] == first


def test_one_question_has_values_and_no_intervals(scored):
    opened, cell = scored
    for side in toys.SIDES:
        path = cell.directory / f"results_toy_math_{side}_cut0.3.npz"
        store.write_results(path, toys.golden_scores(SERIES, side, ALPHA)[:1])
        facts = {"health": 1e-6, "losses": [0.5]}
        (cell.directory / f"losses_{side}.json").write_text(json.dumps(facts))
    cell_metrics.measure_cell(opened, cell)
    saved = store.read_json(cell.directory / "metrics.json")["metrics"]
    one_WR = toys.golden_scores(SERIES, "base", ALPHA)[0].astype(np.float64)
    assert saved["activation_intensity"]["base"] == pytest.approx(np.abs(one_WR).mean())
    assert saved["activation_intensity"]["difference_interval"] == [None, None]
    assert saved["sample_diversity"]["base"] is None
    assert not (cell.directory / "edge_intervals.npz").exists()


def test_a_missing_or_broken_file_of_the_cell_is_named(scored):
    opened, cell = scored
    (cell.directory / "losses_rl.json").unlink()
    with pytest.raises(InputError, match=r"losses_rl.json: no such file"):
        cell_metrics.measure_cell(opened, cell)
    (cell.directory / "results_toy_math_base_cut0.3.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"results_toy_math_base_cut0.3.npz: expected an npz file"):
        cell_metrics.measure_cell(opened, cell)
    assert not (cell.directory / "metrics.json").exists()


def test_losses_of_other_questions_are_named(scored):
    opened, cell = scored
    facts = {"health": 1e-6, "losses": [0.5] * 14}
    (cell.directory / "losses_rl.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="losses_rl.json: losses: expected 15, one a question"):
        cell_metrics.measure_cell(opened, cell)
