"""The residual graph against a walk through the model, written as loops."""

import numpy as np
import pytest

from eap_jax import graph


def walk(num_layers: int, granularity: str):
    """Writers, readers and edges in the order in which a forward pass meets them."""
    writers, readers, edges = ["input"], [], []

    def read(name):
        readers.append(name)
        edges.extend((writer, name) for writer in writers)

    for layer in range(num_layers):
        for suffix in ("<q>", "<k>", "<v>") if granularity == "qkv" else ("",):
            read(f"a{layer}{suffix}")
        writers.append(f"a{layer}")
        read(f"m{layer}")
        writers.append(f"m{layer}")
    read("logits")
    return writers, readers, edges


@pytest.mark.parametrize("granularity", graph.GRANULARITIES)
@pytest.mark.parametrize("num_layers", [1, 2, 5])
def test_names_and_edges_equal_a_walk_through_the_model(num_layers, granularity):
    writers, readers, edges = walk(num_layers, granularity)
    assert graph.writer_names(num_layers) == tuple(writers)
    assert graph.reader_names(num_layers, granularity) == tuple(readers)
    mask = graph.edge_mask(num_layers, granularity)
    assert mask.dtype == bool
    found = {(writers[w], readers[r]) for w, r in np.argwhere(mask)}
    assert found == set(edges)
    assert graph.num_edges(num_layers, granularity) == len(edges)


@pytest.mark.parametrize(("num_layers", "edges"), [(30, 3691), (32, 4193), (28, 3221)])
def test_number_of_edges_is_the_published_one(num_layers, edges):
    assert graph.num_edges(num_layers) == edges


def test_default_granularity_is_the_published_one():
    assert graph.reader_names(1) == ("a0<q>", "a0<k>", "a0<v>", "m0", "logits")
    assert graph.edge_mask(1).tolist() == [
        [True, True, True, True, True],
        [False, False, False, True, True],
        [False, False, False, False, True],
    ]


@pytest.mark.parametrize("num_layers", [1, 3])
def test_layers_follow_from_the_shape_of_a_score_matrix(num_layers):
    assert graph.num_layers_of(*graph.edge_mask(num_layers).shape) == num_layers


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 7), (5, 5), (2, 5), (0, 0)])
def test_a_shape_of_no_model_is_refused_by_its_sizes(shape):
    with pytest.raises(ValueError, match=rf"found \[{shape[0]}, {shape[1]}\]"):
        graph.num_layers_of(*shape)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_block_scores_add_up_the_columns_of_each_attention_by_name(leading):
    scores = np.random.default_rng(0).normal(size=(*leading, 5, 9)).astype(np.float32)
    qkv, block = graph.reader_names(2), graph.reader_names(2, "block")
    found = graph.to_block(scores)
    assert found.dtype == np.float32
    assert found.shape == (*leading, 5, 5)
    for column, name in enumerate(block):
        parts = [n for n, reader in enumerate(qkv) if reader.split("<")[0] == name]
        assert len(parts) == (3 if name.startswith("a") else 1)
        expected = sum(scores[..., part].astype(np.float64) for part in parts)
        np.testing.assert_allclose(found[..., column], expected, rtol=1e-6, atol=1e-6)


def test_an_unknown_granularity_is_refused():
    for function in (graph.reader_names, graph.edge_mask, graph.num_edges):
        with pytest.raises(ValueError, match="granularity.*'head'"):
            function(2, "head")


@pytest.mark.parametrize("granularity", graph.GRANULARITIES)
def test_every_edge_of_a_walk_is_parsed_to_its_row_and_column(granularity):
    writers, readers, edges = walk(3, granularity)
    for writer, reader in edges:
        place = (writers.index(writer), readers.index(reader))
        pair = np.array([writer, reader])  # as the names of an array's axes come back
        for edge in ((writer, reader), pair, f"{writer} -> {reader}", f" {writer}->{reader} "):
            assert graph.parse_edge(edge, 3, granularity) == place


def test_every_pair_of_names_outside_the_walk_is_refused():
    writers, readers, edges = walk(2, "qkv")
    absent = {(writer, reader) for writer in writers for reader in readers} - set(edges)
    assert absent
    for edge in absent:
        with pytest.raises(ValueError, match="expected a reader that comes after the writer"):
            graph.parse_edge(edge, 2)


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        ("a0", "expected 'writer -> reader' or a pair.*found 'a0'"),
        ("a0 -> m0 -> m1", "expected 'writer -> reader'.*found 'a0 -> m0 -> m1'"),
        (("a0", "m0", "m1"), "expected 'writer -> reader'"),
        ((0, 3), r"expected 'writer -> reader'.*found \(0, 3\)"),
        (7, "expected 'writer -> reader'.*found 7"),
        ("m2 -> logits", "expected a writer input, a0, m0, ... m1, found 'm2'"),
        ("a0<q> -> logits", "expected a writer.*found 'a0<q>'"),
        ("a0 -> a1", "expected a reader a0<q>, a0<k>, a0<v>, m0, ... m1, logits, found 'a1'"),
        ("a0 -> ", "expected a reader.*found ''"),
    ],
)
def test_what_is_no_edge_is_refused_in_one_line_that_says_what_is_expected(edge, message):
    with pytest.raises(ValueError, match=message) as caught:
        graph.parse_edge(edge, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("granularity", ["qkv", "block"])
@pytest.mark.parametrize("count", [0, 1, 7, 10_000])
def test_edges_are_sorted_by_strength_and_ties_by_place(granularity, count):
    """Whole numbers, so that many strengths are equal; where no edge is the matrix is largest."""
    mask_WR = graph.edge_mask(3, granularity)
    strength_WR = np.random.default_rng(0).integers(0, 4, mask_WR.shape).astype(float)
    strength_WR[~mask_WR] = 100.0
    places = [
        (w, r) for w in range(mask_WR.shape[0]) for r in range(mask_WR.shape[1]) if mask_WR[w, r]
    ]
    expected = sorted(places, key=lambda place: (-strength_WR[place], place))[:count]
    assert graph.strongest_edges(strength_WR, mask_WR, count) == expected


def test_an_edge_of_strength_zero_is_an_edge():
    mask_WR = graph.edge_mask(2)
    found = graph.strongest_edges(np.zeros(mask_WR.shape), mask_WR, graph.num_edges(2))
    assert len(found) == mask_WR.sum()
    assert found == sorted(found)


def test_names_kinds_and_distances_are_those_of_the_walk():
    """Distance: how many of the walk's writers come between; alone: a reader with one writer."""
    layers = 3
    writers, readers, edges = walk(layers, "qkv")
    kinds, distances_WR = graph.reader_kinds(layers), graph.edge_distances(layers)
    alone = []
    for writer, reader in edges:
        w, r = writers.index(writer), readers.index(reader)
        assert graph.edge_name(w, r, layers) == f"{writer} -> {reader}"
        seen = [name for name, other in edges if other == reader]
        assert distances_WR[w, r] == len(seen) - 1 - seen.index(writer)
        expected = {"a": reader[-2], "m": "mlp", "l": "logits"}[reader[0]]
        assert kinds[r] == expected
        alone += [(w, r)] * (len(seen) == 1)
    assert list(graph.single_writer_edges(layers)) == alone
    assert (distances_WR[~graph.edge_mask(layers)] < 0).all()
