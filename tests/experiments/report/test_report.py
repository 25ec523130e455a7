"""From saved files alone: report, tables, edges, graphs and figures of a pair and of a sweep."""

import csv
import dataclasses
import json
import time

import numpy as np
import pytest
from html_page import Page, edges_of
from saved_study import PAIR, save_study
from toy_study import scores

from eap_jax.graph import num_edges
from experiments.errors import InputError
from experiments.report.report import write_report, write_sweep_report
from experiments.study.rule import Rule


def names(folder):
    return {path.name for path in folder.iterdir()}


def drawn(folder):
    """Names of figures, each of which is there as PNG, PDF and SVG."""
    found = names(folder)
    stems = {name.removesuffix(".png") for name in found if name.endswith(".png")}
    assert found == {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf", "svg")}
    assert all((folder / name).stat().st_size > 1000 for name in found)
    return stems


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The directories of two pairs, one of two cells and one of one."""
    workdir = tmp_path_factory.mktemp("runs")
    rules = (Rule(alpha=0.1), Rule(alpha=0.3))
    one = save_study(workdir, scores(2, 6, seed=1), scores(2, 6, seed=2, gain=1.5), rules=rules)
    other = dataclasses.replace(PAIR, key="second", series="second")
    two = save_study(workdir, scores(2, 6, seed=3), scores(2, 6, seed=4), pair=other)
    return one, two


def test_a_pairs_report_is_whole_and_every_file_of_a_cell_is_written(pairs):
    directory, _ = pairs
    path = write_report(directory)
    assert path == directory / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.problems == []
    assert [cell["name"] for cell in edges_of(page)["cells"]] == [
        "toy, math, alpha 0.1", "toy, math, alpha 0.3",
    ]  # fmt: skip
    for cell in ("cut0.1", "cut0.3"):
        folder = directory / "math" / cell
        with (folder / "edges.csv").open(encoding="utf-8", newline="") as file:
            assert len(list(csv.reader(file))) == 1 + num_edges(2)
        for side in ("base", "rl"):
            graph = json.loads((folder / f"graph_{side}.json").read_text())
            assert graph["cfg"]["d_model"] == 24
            assert graph["cfg"]["n_layers"] == 2
    kinds = ("graph", "heat_maps", "top_changes", "score_distribution", "answer_lengths")
    assert drawn(directory / "math" / "figures") == {
        f"{cell}_{kind}" for cell in ("cut0.1", "cut0.3") for kind in kinds
    }
    assert drawn(directory / "figures")
    links = [e[1]["href"] for e in page.all("a") if not e[1]["href"].startswith("#")]
    assert len(links) > 30
    assert all((directory / link).is_file() for link in links)
    assert page.text("p", class_="pair").endswith("parameters")
    with (directory / "table.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert {line["alpha"] for line in table} == {"0.1", "0.3"}
    saved = json.loads((directory / "math" / "cut0.3" / "metrics.json").read_text())["metrics"]
    (line,) = [
        line for line in table
        if line["alpha"] == "0.3" and line["metric"] == "sample_diversity"
    ]  # fmt: skip
    assert float(line["difference"]) == saved["sample_diversity"]["difference"]


def test_a_pair_of_one_cell_has_no_figures_over_cells(pairs):
    _, directory = pairs
    write_report(directory)
    assert not (directory / "figures").exists()
    assert {"report.html", "table.md", "table.csv"} <= names(directory)


def test_a_sweeps_report_holds_the_cells_of_all_pairs(pairs):
    one, two = pairs
    path = write_sweep_report(one.parent, [one, two])
    assert path == one.parent / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.problems == []
    assert [cell["name"] for cell in edges_of(page)["cells"]] == [
        "toy, math, alpha 0.1", "toy, math, alpha 0.3", "second, math, alpha 0.3",
    ]  # fmt: skip
    assert drawn(one.parent / "figures")
    links = {e[1]["href"] for e in page.all("a") if not e[1]["href"].startswith("#")}
    assert "second/math/cut0.3/edges.csv" in links
    assert all((one.parent / link).is_file() for link in links - {"table.md", "table.csv"})
    assert (one.parent / "table.md").read_text().count("second") >= 1


def test_a_report_is_not_written_from_broken_files(pairs, tmp_path):
    directory = save_study(tmp_path, scores(1, 3, seed=1), scores(1, 3, seed=2))
    (directory / "math" / "cut0.3" / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics.json: expected JSON"):
        write_report(directory)
    assert not (directory / "report.html").exists()


def test_report_of_32_layers_and_100_samples_is_small_and_quick(tmp_path):
    """From reading the score files to the last figure; the metrics were measured before."""
    base_nWR = scores(32, 100, seed=1)
    rl_nWR = (1.2 * base_nWR + 0.4 * scores(32, 100, seed=2)).astype(np.float32)
    directory = save_study(tmp_path, base_nWR, rl_nWR)
    start = time.perf_counter()
    path = write_report(directory)
    seconds = time.perf_counter() - start
    assert path.stat().st_size <= 5_000_000
    assert seconds <= 30
    page = Page(path.read_text(encoding="utf-8"))
    assert page.problems == []
    assert len(edges_of(page)["cells"]) == 1
