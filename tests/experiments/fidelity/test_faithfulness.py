"""faithfulness.json is what a literal torch program finds that keeps the edges of a plain sort."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import toys
from failed_array import FailedArray
from hf_folder import write_toy
from saved_study import rows
from toy_study import scores

from eap_jax.batching import Text
from eap_jax.graph import edge_mask, reader_names, writer_names
from eap_jax.sharding import make_mesh
from experiments import store
from experiments.errors import InputError
from experiments.fidelity import faithfulness
from experiments.scoring.cells import Cell
from experiments.scoring.selection import select, truncate
from experiments.study.opened import OpenStudy
from experiments.study.pairs import pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

TOY = toys.ZOO["window 5 above the first layer"]
LAYERS, SAMPLES, RULE = TOY.config.num_layers, 3, Rule(alpha=0.3, seed=7)
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
PARAMS = {"base": toys.random_params(TOY.config), "rl": toys.random_params(TOY.config, seed=1)}
SCORES = {side: scores(LAYERS, SAMPLES, seed) for side, seed in (("base", 1), ("rl", 2))}


def prepared(workdir):
    """A study with one scored cell, whose scores are made up."""
    study = Study(pair=pair_of("a", "b", "toy"), workdir=workdir, datasets=("math",), rules=(RULE,))
    for side in toys.SIDES:
        write_toy(workdir / side, TOY, PARAMS[side])
    opened = OpenStudy(
        study=study,
        checkpoints={side: workdir / side for side in toys.SIDES},
        configs=dict.fromkeys(toys.SIDES, TOY.config),
        hashes={},
        answer_dtypes=dict.fromkeys(toys.SIDES, "float32"),
        mesh=make_mesh(""),
    )
    cell = Cell(
        dataset="math", rule=RULE, selection=select(rows(SAMPLES), RULE), directory=workdir / "cell"
    )
    for side in toys.SIDES:
        path = store.results_path(cell.directory, "toy", "math", side, RULE.alpha)
        store.write_results(path, SCORES[side])
    return opened, cell


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    opened, cell = prepared(tmp_path_factory.mktemp("study"))
    for side in reversed(toys.SIDES):
        faithfulness.measure_faithfulness(opened, cell, side)
    path = cell.directory / "faithfulness.json"
    return opened, cell, json.loads(path.read_text()), path.read_bytes()


def literal(side: str, cell, ablation: str) -> dict:
    """Losses, curves and areas of one side by torch, hooks and loops."""
    import torch
    import torch_eap

    model = toys.torch_model(TOY, PARAMS[side])
    texts = []
    for row in cell.selection.rows:
        text = truncate(row, side, cell.selection.cut)
        answer = tuple(text.targets)
        texts.append(
            toys.Text(prompt=text.tokens[: len(text.tokens) - len(answer) + 1], answer=answer)
        )
    writers, readers = writer_names(LAYERS), reader_names(LAYERS)
    places = [tuple(place) for place in np.argwhere(edge_mask(LAYERS))]
    known = {}
    instead = torch_eap.mean_writes(model, texts) if ablation == "mean" else None

    def loss(kept: tuple) -> float:
        if kept not in known:
            names = {(writers[w], readers[r]) for w, r in kept}
            with torch.no_grad():
                found = [
                    float(torch_eap.loss_of(model, text, kept=names, means=instead)[0])
                    for text in texts
                ]
            known[kept] = sum(found) / len(found)
        return known[kept]

    full, empty = loss(tuple(places)), loss(())
    means = {name: SCORES[name].mean(axis=0, dtype=np.float64) for name in toys.SIDES}
    other = {"base": "rl", "rl": "base"}[side]
    draw = np.random.default_rng(RULE.seed)
    strengths = {
        "size": np.abs(means[side]), "signed": means[side], "transfer": np.abs(means[other])
    }  # fmt: skip
    strengths |= {number: draw.random(means[side].shape) for number in range(3)}
    curves = {}
    for name, strength_WR in strengths.items():
        ranked = sorted(places, key=lambda place, s=strength_WR: -s[place])
        curve = []
        for share in SHARES:
            kept = tuple(sorted(ranked[: int(share * len(places))]))
            recovered = (loss(kept) - empty) / (full - empty)
            curve.append((share, len(kept), loss(kept), recovered))
        curves[name] = curve
    areas = {}
    for name, curve in curves.items():
        points = [(0.0, 0.0), *((share, recovered) for share, _, _, recovered in curve)]
        cpr = cmd = 0.0
        for (x, y), (to_x, to_y) in itertools.pairwise(points):
            cpr += (to_x - x) * (y + to_y) / 2
            cmd += (to_x - x) * (abs(1 - y) + abs(1 - to_y)) / 2
        areas[name] = (cpr, cmd)
    return {"full": full, "empty": empty, "curves": curves, "areas": areas}


@pytest.mark.parametrize(("side", "ablation"), [("base", "zero"), ("base", "mean"), ("rl", "zero")])
def test_losses_curves_and_areas_are_those_of_a_literal_program(measured, side, ablation, torch):
    _, cell, found, _ = measured
    found, expected = found[side], literal(side, cell, ablation)
    if ablation == "mean":
        assert found["mean"]["empty_loss"] != pytest.approx(found["empty_loss"], abs=1e-3)
        found = found["mean"]
    assert (found["edges"], found["samples"]) == (edge_mask(LAYERS).sum(), SAMPLES)
    assert found["full_loss"] == pytest.approx(expected["full"], abs=1e-5)
    assert found["empty_loss"] == pytest.approx(expected["empty"], abs=1e-5)
    assert found["empty_loss"] != pytest.approx(expected["full"], abs=1e-2)
    curves = {"size": found["curve"], **found["curves"]}
    for number, curve in enumerate(curves.pop("random")):
        curves[number] = curve
    assert curves.keys() == expected["curves"].keys()
    for name, curve in curves.items():
        lines = [(line["share"], line["kept"], line["loss"], line["recovered"]) for line in curve]
        np.testing.assert_allclose(lines, expected["curves"][name], atol=1e-4, err_msg=str(name))
    assert curves["size"] != curves["signed"]
    areas = {
        "size": (found["cpr"], found["cmd"]),
        "signed": (found["signed"]["cpr"], found["signed"]["cmd"]),
        "transfer": (found["transfer_cpr"], found["transfer_cmd"]),
        **dict(enumerate(zip(found["random_cpr"], found["random_cmd"], strict=True))),
    }
    for name, area in areas.items():
        assert area == pytest.approx(expected["areas"][name], abs=1e-4), name


def test_the_whole_graph_recovers_the_whole_loss_exactly(measured):
    for found in measured[2].values():
        assert found["curve"][-1]["recovered"] == 1
        assert found["exported"]["recovered"] == 1, "this small graph is exported whole"


def test_intervals_hold_their_values(measured):
    for found in measured[2].values():
        for name in ("cpr", "cmd"):
            low, high = found[f"{name}_interval"]
            assert low < found[name] < high


@pytest.mark.parametrize(
    "settings", [{"stream_bytes": 2**20}, {"mesh": "data:2"}, {"mesh": "model:2"}]
)
def test_streamed_weights_and_two_devices_give_the_same_figures(measured, tmp_path, settings):
    opened, cell, expected, _ = measured
    study = dataclasses.replace(opened.study, **settings)
    again = dataclasses.replace(opened, study=study, mesh=make_mesh(study.mesh), _loaded={})
    beside = dataclasses.replace(cell, directory=tmp_path / "cell")
    for side in toys.SIDES:
        name = store.results_path(cell.directory, "toy", "math", side, RULE.alpha).name
        store.write_results(beside.directory / name, SCORES[side])
    faithfulness.measure_faithfulness(again, beside, "rl")
    found = json.loads((beside.directory / "faithfulness.json").read_text())["rl"]
    for ablation in (lambda fields: fields, lambda fields: fields["mean"]):
        one, other = ablation(found), ablation(expected["rl"])
        for name in ("full_loss", "empty_loss", "cpr", "cmd", "transfer_cpr"):
            assert one[name] == pytest.approx(other[name], abs=1e-4), name
    assert bool(again._loaded) == (study.stream_bytes is None)


def test_a_side_that_is_there_is_not_run_again_and_a_killed_run_ends_with_the_same_bytes(
    measured, tmp_path, monkeypatch
):
    opened, cell, _, whole = measured
    path = cell.directory / "faithfulness.json"
    part = json.loads(whole)
    del part["base"]
    store.write_json(path, part)
    assert faithfulness.is_measured(cell, "rl")
    assert not faithfulness.is_measured(cell, "base")
    faithfulness.measure_faithfulness(opened, cell, "base")
    assert path.read_bytes() == whole
    monkeypatch.setattr(faithfulness, "circuit_losses", None)
    for side in toys.SIDES:
        faithfulness.measure_faithfulness(opened, cell, side)
    path.write_text("{")
    with pytest.raises(InputError, match=r"faithfulness\.json: expected JSON"):
        faithfulness.is_measured(cell, "base")
    path.write_bytes(whole)


def test_samples_cost_at_most_four_attributions_or_next_to_nothing_but_eight_run():
    text = Text(tokens=tuple(range(40)), targets=tuple(range(9)))
    config = dataclasses.replace(TOY.config, num_layers=3, d_model=1024, d_ff=4096, vocab_size=64)
    # Two operations a weight and token; attention's sizes are those of the toy.
    heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    forward = 2 * 40 * 3 * (heads * 1024 + 3 * 1024 * 4096 + 2 * 1024) + 2 * 9 * 64 * 1024
    for passes, samples in ((40, 1000), (1000, 100), (10**6, 100)):
        bound = max(8 * samples / passes, 4e11 / passes / forward)
        found = faithfulness.affordable_samples(config, [text] * samples, passes)
        assert found == pytest.approx(max(8, bound), rel=0.02, abs=1)


def test_samples_are_drawn_by_the_seed():
    found = faithfulness.chosen_rows(100, 20, 0)
    assert found == sorted(set(found)) == faithfulness.chosen_rows(100, 20, 0)
    assert len(found) == 20
    assert set(found) < set(range(100))
    assert found != faithfulness.chosen_rows(100, 20, 1)
    assert faithfulness.chosen_rows(5, 8, 0) == list(range(5))


@pytest.mark.parametrize("name", ["circuit_losses", "mean_writes"])
def test_a_circuit_whose_allocation_failed_ends_in_its_error(tmp_path, monkeypatch, name):
    opened, cell = prepared(tmp_path)
    monkeypatch.setattr(faithfulness, name, lambda *_, **__: FailedArray(1, 1))
    with pytest.raises(RuntimeError, match="^RESOURCE_EXHAUSTED"):
        faithfulness.measure_faithfulness(opened, cell, "base")
    assert not faithfulness.faithfulness_path(cell).exists()
