"""The residual graph shows the strongest edges: what is drawn is read back and compared."""

import dataclasses

import numpy as np
import pytest
from plain_means import LAYERS, READERS, WRITERS, means
from toy_study import toy_cell

from experiments.report import graph_figure


@pytest.fixture(scope="module")
def cell():
    return toy_cell(num_layers=LAYERS, samples=6)


def test_graph_draws_the_same_strongest_block_edges_on_both_sides_wide_where_strong(cell):
    block = {}
    for (writer, reader), both in means(cell).items():
        node = reader.split("<")[0]
        before = block.get((writer, node), (0.0, 0.0))
        block[writer, node] = tuple(a + b for a, b in zip(before, both, strict=True))
    strongest = sorted(block.values(), key=lambda both: -max(map(abs, both)))[:12]
    largest = max(max(map(abs, both)) for both in block.values())
    *sides, changed = [
        axes for axes in graph_figure.graph_figure(cell, edges=12).axes if axes.texts
    ]
    assert changed.get_title("left") == f"Change: the 12 largest of {len(block)}"
    changes = sorted((abs(rl - base) for base, rl in block.values()), reverse=True)
    widths = 5.0 * np.sqrt(np.array(changes[:12][::-1]) / changes[0])
    np.testing.assert_allclose(changed.collections[0].get_linewidths(), widths, rtol=1e-6)
    for side, axes in enumerate(sides):
        (drawn,) = axes.collections
        shares = sorted(abs(both[side]) / largest for both in strongest)
        np.testing.assert_allclose(drawn.get_linewidths(), 5.0 * np.sqrt(shares), rtol=1e-6)
        red_minus_blue = np.array([colour[0] - colour[2] for colour in drawn.get_edgecolors()])
        signs = np.sign([both[side] for both in sorted(strongest, key=lambda b: abs(b[side]))])
        assert (np.sign(red_minus_blue) == signs)[np.array(shares) > 0.05].all()
    places = [
        [sorted(map(tuple, path.vertices[[0, -1]])) for path in axes.collections[0].get_paths()]
        for axes in sides
    ]
    assert sorted(places[0]) == sorted(places[1])
    nodes = {text.get_text() for text in sides[0].texts}
    assert nodes == {*WRITERS, "logits"}


def test_graph_edges_end_at_the_nodes_they_are_named_after(cell):
    """With one edge left, its two ends are the places of its writer and its reader."""
    edited = np.zeros_like(cell.base_nWR)
    edited[:, WRITERS.index("m0"), READERS.index("a2<k>")] = 1.0
    only = dataclasses.replace(cell, base_nWR=edited, rl_nWR=edited)
    axes = graph_figure.graph_figure(only, edges=1).axes[0]
    nodes = {text.get_text(): text.get_position() for text in axes.texts}
    (path,) = axes.collections[0].get_paths()
    assert [tuple(path.vertices[0]), tuple(path.vertices[-1])] == [nodes["m0"], nodes["a2"]]
