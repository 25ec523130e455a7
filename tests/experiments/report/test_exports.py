"""Exported numbers: the tables, the edge lists and the graphs that EAP-IG reads."""

import csv
import dataclasses
import io
import json
import re

import head_graph
import numpy as np
import pytest
import toys
from toy_study import made_faithfulness, toy_cell, toy_study

from eap_jax.circuit import circuit_losses
from eap_jax.graph import num_edges
from experiments.fidelity.rankings import exported_circuit
from experiments.report import eap_ig, exports
from experiments.statistics.metrics import METRICS
from experiments.statistics.model_text import Effect, Split


def eap_ig_names(num_layers: int, num_heads: int) -> tuple[list[str], set[str]]:
    """Nodes and edges of EAP-IG's graph of a model, from its documented rules."""
    stream, edges = ["input"], set()
    for layer in range(num_layers):
        heads = [f"a{layer}.h{head}" for head in range(num_heads)]
        edges |= {f"{node}->{head}<{kind}>" for node in stream for head in heads for kind in "qkv"}
        stream += heads
        edges |= {f"{node}->m{layer}" for node in stream}
        stream.append(f"m{layer}")
    edges |= {f"{node}->logits" for node in stream}
    return [*stream, "logits"], edges


@pytest.mark.parametrize(("num_layers", "heads"), [(1, 3), (2, 1), (5, 4)])
def test_eap_ig_graph_has_exactly_the_nodes_and_edges_of_every_head(num_layers, heads):
    scores_WR = toy_cell(num_layers=num_layers).base_nWR.mean(axis=0)
    graph = eap_ig.eap_ig_graph(scores_WR, 24, heads)
    nodes, edges = eap_ig_names(num_layers, heads)
    assert list(graph["nodes"]) == nodes
    assert set(graph["edges"]) == edges
    assert heads > 1 or len(edges) == num_edges(num_layers)
    assert graph["cfg"] == {
        "n_layers": num_layers, "n_heads": heads, "parallel_attn_mlp": False, "d_model": 24
    }  # fmt: skip


def circuit_of_heads(toy, in_graph):
    """A circuit as a mask [W, R] and as a file of heads, for scores that no model made."""
    scores_WR = toy_cell(num_layers=toy.config.num_layers, seed=4).base_nWR.mean(axis=0)
    graph = eap_ig.eap_ig_graph(
        scores_WR, toy.config.d_model, toy.config.num_heads, in_graph=in_graph
    )
    return exported_circuit(scores_WR, in_graph), json.loads(json.dumps(graph))


@pytest.mark.parametrize(
    ("name", "in_graph"),
    [
        ("window 5 above the first layer", 30),
        ("window 5 above the first layer", 45),
        ("window 7, tied head", 14),
    ],
)
def test_the_circuit_of_heads_has_the_loss_of_the_circuit(name, in_graph):
    """Evaluated head by head on the file, as EAP-IG does it, against the engine's own pass."""
    toy = toys.ZOO[name]
    params, texts = toys.random_params(toy.config), toys.random_texts(toy.config)
    kept_WR, graph = circuit_of_heads(toy, in_graph)
    assert 0 < kept_WR.sum() < num_edges(toy.config.num_layers)
    batch = toys.batch_of(texts)
    kept_BWR = np.broadcast_to(kept_WR, (len(texts), *kept_WR.shape))
    losses_BJ = np.asarray(circuit_losses(params, batch, kept_BWR, config=toy.config))
    for row, text in enumerate(texts):
        expected = (losses_BJ[row] * batch.weights_BJ[row]).sum()
        assert head_graph.loss(toy, params, text, graph) == pytest.approx(expected, abs=1e-5)
    assert graph["about"]["edges_on_a_path"] == kept_WR.sum()


def test_a_graph_of_very_many_heads_lists_its_circuit_only(monkeypatch):
    scores_WR = toy_cell(num_layers=3).base_nWR.mean(axis=0)
    whole = eap_ig.eap_ig_graph(scores_WR, 8, 2, in_graph=20)
    monkeypatch.setattr(eap_ig, "MOST_LISTED", len(whole["edges"]) - 1)
    short = eap_ig.eap_ig_graph(scores_WR, 8, 2, in_graph=20)
    kept = {name: edge for name, edge in whole["edges"].items() if edge["in_graph"]}
    assert 0 < len(kept) < len(whole["edges"])
    assert short["edges"] == kept
    assert short["nodes"] == whole["nodes"]
    assert whole["about"]["edges_listed"] == "all"
    assert short["about"]["edges_listed"] == "those in the graph"


def test_a_graph_says_how_its_edges_were_ranked_and_how_faithful_its_circuit_is(tmp_path):
    cell = toy_cell()
    found = made_faithfulness(cell)
    shape = {"d_model": 24, "num_heads": 4}
    models = {"base": shape, "rl": shape}
    measured = dataclasses.replace(cell, faithfulness=found)
    _, *graphs = exports.write_edges(measured, tmp_path, models)
    for path, side in zip(graphs, ("base", "rl"), strict=True):
        about = json.loads(path.read_text())["about"]
        assert about["ranked_by"] == "absolute value of the mean score"
        assert about["estimator"] == "eap"
        assert about["not_measurable"] == ["input -> a0<q>", "input -> a0<k>", "input -> a0<v>"]
        said, exported = about["faithfulness"], found[side]["exported"]
        assert said["recovered"] == exported["recovered"]
        assert said["circuit_loss"] == exported["loss"]
        assert said["recovered_interval"] == list(exported["interval"])
        assert said["full_loss"] == found[side]["full_loss"]
        assert said["cpr_of_the_ranking"] == found[side]["cpr"]
        assert (said["ablation"], said["mean"]["ablation"]) == ("zero", "mean")
        assert said["mean"]["circuit_loss"] == found[side]["mean"]["exported"]["loss"]


def test_eap_ig_graph_puts_each_score_on_the_edge_of_its_row_and_column():
    scores_WR = np.arange(5 * 9, dtype=np.float32).reshape(5, 9) + 1
    edges = eap_ig.eap_ig_graph(scores_WR, 8, 1)["edges"]
    assert edges["input->a0.h0<q>"]["score"] == 1
    assert edges["input->a0.h0<v>"]["score"] == 3
    assert edges["a0.h0->m0"]["score"] == 9 + 4
    assert edges["m0->a1.h0<k>"]["score"] == 2 * 9 + 6
    assert edges["a1.h0->m1"]["score"] == 3 * 9 + 8
    assert edges["m1->logits"]["score"] == 4 * 9 + 9


@pytest.mark.parametrize("count", [0, 1, 3, 10, 40, 10_000])
def test_circuit_holds_the_strongest_edges_that_lie_on_a_path_from_input_to_logits(count):
    scores_WR = toy_cell(num_layers=4, seed=3).base_nWR.mean(axis=0)
    graph = eap_ig.eap_ig_graph(scores_WR, 24, 1, in_graph=count)
    ranked = sorted(graph["edges"], key=lambda name: -abs(graph["edges"][name]["score"]))
    strongest = [tuple(re.sub(r"<.>", "", name).split("->")) for name in ranked[:count]]

    def reached(start: str, step) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += step(node)
        return found

    ahead = reached("input", lambda node: [child for parent, child in strongest if parent == node])
    back = reached("logits", lambda node: [parent for parent, child in strongest if child == node])
    kept = {
        name
        for name, (parent, child) in zip(ranked[:count], strongest, strict=False)
        if parent in ahead and child in back
    }
    assert {name for name, edge in graph["edges"].items() if edge["in_graph"]} == kept
    in_graph = {name for name, node in graph["nodes"].items() if node["in_graph"]}
    ends = {end for name in kept for end in re.sub(r"<.>", "", name).split("->")}
    assert in_graph == ends | {"logits"}


def test_edges_csv_holds_every_edge_once_with_its_means_and_interval():
    cell = toy_cell(num_layers=3)
    lines = list(csv.DictReader(io.StringIO(exports.edges_csv(cell))))
    assert len(lines) == num_edges(3)
    writers = ["input", "a0", "m0", "a1", "m1", "a2", "m2"]
    readers = [f"a{i}<{k}>" if k != "m" else f"m{i}" for i in range(3) for k in "qkvm"] + ["logits"]
    assert len({(line["writer"], line["reader"]) for line in lines}) == len(lines)
    for line in lines:
        w, r = writers.index(line["writer"]), readers.index(line["reader"])
        base = np.mean([matrix[w, r] for matrix in cell.base_nWR.astype(np.float64)])
        rl = np.mean([matrix[w, r] for matrix in cell.rl_nWR.astype(np.float64)])
        expected = (base, rl, rl - base, cell.edge_low_WR[w, r], cell.edge_high_WR[w, r])
        found = [float(line[name]) for name in exports.EDGE_COLUMNS[2:-1]]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_edges_csv_leaves_unknown_intervals_empty():
    cell = dataclasses.replace(toy_cell(), edge_low_WR=None, edge_high_WR=None)
    lines = list(csv.DictReader(io.StringIO(exports.edges_csv(cell))))
    assert {(line["difference_low"], line["difference_high"]) for line in lines} == {("", "")}
    assert sum(float(line["base"]) != 0 for line in lines) > len(lines) / 2


def test_table_csv_gives_back_every_number_exactly():
    study = toy_study([toy_cell(alpha=0.1), toy_cell(alpha=0.3, seed=5)])
    lines = list(csv.DictReader(io.StringIO(exports.table_csv(study))))
    assert len(lines) == 2 * len(METRICS)
    for line in lines:
        cell = study.cells[0] if line["alpha"] == "0.1" else study.cells[1]
        found = cell.comparisons[line["metric"]]
        for name in ("base", "rl", "difference", "relative", "wilcoxon_p", "sign_p", "effect_size"):
            assert float(line[name]) == getattr(found, name)
        for name in ("base", "rl", "difference", "relative"):
            interval = (float(line[f"{name}_low"]), float(line[f"{name}_high"]))
            assert interval == getattr(found, f"{name}_interval")
    assert lines[0]["published_base"] == "0.0011"
    assert lines[-1]["published_base"] == ""


def test_table_csv_has_the_parts_of_model_and_text_where_they_were_split():
    key = "distribution_kurtosis"
    values = {"change": 3.0, "model": 1 / 3, "text": 8 / 3, "interaction": -0.5}
    parts = {
        name: Effect(value=value, interval=(value, value), trend="rises")
        for name, value in values.items()
    }
    split = {key: Split(values={"base_on_base": 1.0}, parts=parts)}
    cell = dataclasses.replace(toy_cell(), identical_texts=0.7, model_text=split)
    for line in csv.DictReader(io.StringIO(exports.table_csv(toy_study([cell])))):
        assert line["identical_texts"] == "0.7"
        found = [line[name] for name in ("model_part", "text_part", "interaction")]
        assert found == (
            ["", "", ""] if line["metric"] != key else [str(1 / 3), str(8 / 3), "-0.5"]
        )


def test_tables_call_a_change_clear_only_where_its_interval_excludes_zero():
    cell = toy_cell()
    edited = dict(cell.comparisons)
    for key, interval in (
        ("activation_intensity", (0.1, 0.2)),
        ("information_complexity", (-0.1, 0.2)),
        ("distribution_kurtosis", (-0.2, -0.1)),
        ("sample_diversity", (0.0, 0.1)),
    ):
        edited[key] = dataclasses.replace(edited[key], difference_interval=interval)
    study = toy_study([dataclasses.replace(cell, comparisons=edited)])
    lines = csv.DictReader(io.StringIO(exports.table_csv(study)))
    trends = {line["metric"]: line["trend"] for line in lines}
    assert list(trends.values())[:4] == ["rises", "unclear", "falls", "unclear"]
    markdown = exports.table_markdown(study).splitlines()
    assert [line.split(" | ")[7] for line in markdown[2:6]] == list(trends.values())[:4]


def test_markdown_table_has_equal_columns_and_keeps_a_pipe_inside_its_cell():
    study = toy_study([toy_cell(dataset="a|b", alpha=0.1)])
    lines = exports.table_markdown(study).splitlines()
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines[: 2 + len(METRICS)]]
    assert len(set(bars)) == 1
    assert "a\\|b" in lines[2]
    assert "1.10e-3 → 1.31e-3" in lines[2]


def test_undefined_numbers_are_named_for_people_and_empty_for_programs():
    cell = toy_cell()
    nan = float("nan")
    undefined = dataclasses.replace(
        cell.comparisons["sample_diversity"], base=nan, rl=nan, difference=nan, relative=nan,
        difference_interval=(nan, nan), relative_interval=(nan, nan),
    )  # fmt: skip
    comparisons = cell.comparisons | {"sample_diversity": undefined}
    study = toy_study([dataclasses.replace(cell, comparisons=comparisons)])
    line = list(csv.DictReader(io.StringIO(exports.table_csv(study))))[3]
    assert (line["base"], line["relative_low"], line["trend"]) == ("", "", "unclear")
    assert "nan" not in exports.table_csv(study)
    assert "undefined" in exports.table_markdown(study).splitlines()[5]


def test_written_files_hold_what_the_functions_return(tmp_path):
    study = toy_study()
    cell = study.cells[0]
    markdown, table = exports.write_tables(study, tmp_path)
    assert markdown.read_text(encoding="utf-8") == exports.table_markdown(study)
    assert table.read_text(encoding="utf-8") == exports.table_csv(study)
    models = {"base": {"d_model": 24, "num_heads": 4}, "rl": {"d_model": 24, "num_heads": 2}}
    edges, base, rl = exports.write_edges(cell, tmp_path, models, "branch")
    assert edges.read_text(encoding="utf-8") == exports.edges_csv(cell)
    about = {"estimator": "branch", "not_measurable": [], "faithfulness": "not measured"}
    for path, scores_nWR, heads in ((base, cell.base_nWR, 4), (rl, cell.rl_nWR, 2)):
        mean_WR = scores_nWR.mean(axis=0, dtype=np.float64)
        expected = eap_ig.eap_ig_graph(mean_WR, 24, heads, about=about)
        assert json.loads(path.read_text()) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "edges.csv", "graph_base.json", "graph_rl.json", "table.csv", "table.md"
    ]  # fmt: skip
