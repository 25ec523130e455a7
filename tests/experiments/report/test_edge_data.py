"""The explorer's numbers are what edges.csv holds, each to five digits of its own."""

import csv
import dataclasses
import io
import json

import numpy as np
from toy_study import toy_cell

from experiments.report.edge_data import edge_data
from experiments.report.exports import edges_csv

COLUMNS = {
    "base": "base", "rl": "rl", "difference": "difference",
    "low": "difference_low", "high": "difference_high",
}  # fmt: skip


def test_numbers_are_those_of_the_edge_list_beside_one_a_million_times_larger():
    cell = toy_cell(num_layers=3, samples=6)
    base_nWR = cell.base_nWR.astype(np.float64)
    base_nWR[:, 0, -1] = 1e6 * np.abs(base_nWR).max()
    cell = dataclasses.replace(cell, base_nWR=base_nWR)
    (data,) = json.loads(json.dumps(edge_data([cell])))
    assert (data["name"], data["layers"], data["samples"]) == (cell.name, 3, 6)
    lines = list(csv.DictReader(io.StringIO(edges_csv(cell))))
    for name, column in COLUMNS.items():
        wanted = np.array([float(line[column]) for line in lines])
        found = np.array(data[name]) * data["unit"]
        np.testing.assert_allclose(found, wanted, rtol=5.01e-5)
        assert (np.sign(found) == np.sign(wanted)).all()


def test_edges_that_a_score_cannot_measure_are_marked_in_the_list_and_in_the_explorer():
    cell = toy_cell(num_layers=3, samples=6)
    for estimator, names in (("eap", {"a0<q>", "a0<k>", "a0<v>"}), ("branch", set())):
        marked = dataclasses.replace(cell, estimator=estimator)
        lines = list(csv.DictReader(io.StringIO(edges_csv(marked))))
        hidden = [n for n, line in enumerate(lines) if line["measurable"] == "no"]
        assert {(lines[n]["writer"], lines[n]["reader"]) for n in hidden} == {
            ("input", name) for name in names
        }
        assert {line["measurable"] for line in lines} <= {"yes", "no"}
        assert edge_data([marked])[0]["not_measurable"] == hidden


def test_without_intervals_both_ends_are_none_and_zeros_are_zero():
    cell = toy_cell(num_layers=1, samples=2)
    zeros = np.zeros_like(cell.base_nWR)
    cell = dataclasses.replace(
        cell, base_nWR=zeros, rl_nWR=zeros, edge_low_WR=None, edge_high_WR=None
    )
    (data,) = edge_data([cell])
    assert (data["low"], data["high"]) == (None, None)
    assert set(data["base"]) == set(data["rl"]) == set(data["difference"]) == {0}
