"""Exported numbers: the tables, the edge lists and the graphs that EAP-IG reads."""

import csv
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from toy_study import toy_cell, toy_study

from eap_jax.graph import num_edges
from experiments.report import exports
from experiments.statistics.metrics import METRICS


def eap_ig_names(num_layers: int) -> tuple[list[str], set[str]]:
    """Nodes and edges of EAP-IG's graph of a model with one head, from its documented rules."""
    stream, edges = ["input"], set()
    for layer in range(num_layers):
        edges |= {f"{node}->a{layer}.h0<{kind}>" for node in stream for kind in "qkv"}
        stream.append(f"a{layer}.h0")
        edges |= {f"{node}->m{layer}" for node in stream}
        stream.append(f"m{layer}")
    edges |= {f"{node}->logits" for node in stream}
    return [*stream, "logits"], edges


def test_eap_ig_graph_has_exactly_the_nodes_and_edges_of_a_one_head_model():
    for num_layers in (1, 2, 5):
        scores_WR = toy_cell(num_layers=num_layers).base_nWR.mean(axis=0)
        graph = exports.eap_ig_graph(scores_WR, 24, 1)
        nodes, edges = eap_ig_names(num_layers)
        assert list(graph["nodes"]) == nodes
        assert set(graph["edges"]) == edges
        assert len(edges) == num_edges(num_layers)
        assert graph["cfg"] == {
            "n_layers": num_layers, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 24
        }  # fmt: skip


def test_eap_ig_graph_puts_each_score_on_the_edge_of_its_row_and_column():
    scores_WR = np.arange(5 * 9, dtype=np.float32).reshape(5, 9) + 1
    edges = exports.eap_ig_graph(scores_WR, 8)["edges"]
    assert edges["input->a0.h0<q>"]["score"] == 1
    assert edges["input->a0.h0<v>"]["score"] == 3
    assert edges["a0.h0->m0"]["score"] == 9 + 4
    assert edges["m0->a1.h0<k>"]["score"] == 2 * 9 + 6
    assert edges["a1.h0->m1"]["score"] == 3 * 9 + 8
    assert edges["m1->logits"]["score"] == 4 * 9 + 9


@pytest.mark.parametrize("count", [0, 1, 3, 10, 40, 10_000])
def test_circuit_holds_the_strongest_edges_that_lie_on_a_path_from_input_to_logits(count):
    scores_WR = toy_cell(num_layers=4, seed=3).base_nWR.mean(axis=0)
    graph = exports.eap_ig_graph(scores_WR, 24, in_graph=count)
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
        found = [float(line[name]) for name in exports.EDGE_COLUMNS[2:]]
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
    edges, base, rl = exports.write_edges(cell, tmp_path, 24)
    assert edges.read_text(encoding="utf-8") == exports.edges_csv(cell)
    for path, scores_nWR in ((base, cell.base_nWR), (rl, cell.rl_nWR)):
        mean_WR = scores_nWR.mean(axis=0, dtype=np.float64)
        assert json.loads(path.read_text()) == exports.eap_ig_graph(mean_WR, 24)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "edges.csv", "graph_base.json", "graph_rl.json", "table.csv", "table.md"
    ]  # fmt: skip
