"""Figures show the numbers they are made from: what is drawn is read back and compared."""

import dataclasses
import io
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.image import imread
from toy_study import comparison, toy_cell

from experiments.report import figures, graph_figure, sweep_figures
from experiments.report.figure_style import BASE_COLOUR, RL_COLOUR, png, svg
from experiments.statistics.metrics import METRIC_BY_KEY

DIVERSITY = METRIC_BY_KEY["sample_diversity"]

LAYERS = 3
WRITERS = ["input", "a0", "m0", "a1", "m1", "a2", "m2"]
READERS = [f"a{i}<{k}>" if k != "m" else f"m{i}" for i in range(LAYERS) for k in "qkvm"] + [
    "logits"
]


@pytest.fixture(scope="module")
def cell():
    return toy_cell(num_layers=LAYERS, samples=6)


def means(cell):
    """Mean score of every existing edge by (writer, reader): base and rl, in plain loops."""
    found = {}
    for w, writer in enumerate(WRITERS):
        for r, reader in enumerate(READERS):
            layer, kind = divmod(r, 4)
            before = len(WRITERS) if reader == "logits" else 1 + 2 * layer + (kind == 3)
            if w < before:
                found[writer, reader] = tuple(
                    sum(float(matrix[w, r]) for matrix in side) / len(side)
                    for side in (cell.base_nWR, cell.rl_nWR)
                )
    return found


def test_heat_maps_show_base_rl_and_difference_of_every_edge_and_no_other(cell):
    figure = figures.heat_maps(cell)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title("left")[:6] for axes in panels] == ["Before", "After ", "Differ"]
    expected = means(cell)
    for axes, value in zip(
        panels, (lambda b, r: b, lambda b, r: r, lambda b, r: r - b), strict=True
    ):
        drawn = axes.images[0].get_array()
        for w, writer in enumerate(WRITERS):
            for r, reader in enumerate(READERS):
                if (writer, reader) in expected:
                    wanted = value(*expected[writer, reader])
                    np.testing.assert_allclose(drawn[w, r], wanted, rtol=1e-9, atol=1e-15)
                else:
                    assert drawn.mask[w, r]
        assert [label.get_text() for label in axes.get_yticklabels()] == WRITERS
        assert [label.get_text() for label in axes.get_xticklabels()] == READERS


def test_heat_maps_give_both_models_one_symmetric_scale(cell):
    base, rl, difference = (axes.images[0].norm for axes in figures.heat_maps(cell).axes[:3])
    largest = max(max(abs(b), abs(r)) for b, r in means(cell).values())
    for norm in (base, rl):
        np.testing.assert_allclose((norm.vmin, norm.vmax), (-largest, largest), rtol=1e-9)
        assert norm(0.0) == pytest.approx(0.5)
    assert difference.vmax == pytest.approx(max(abs(r - b) for b, r in means(cell).values()))


def test_graph_draws_the_same_strongest_block_edges_on_both_sides_wide_where_strong(cell):
    block = {}
    for (writer, reader), both in means(cell).items():
        node = reader.split("<")[0]
        before = block.get((writer, node), (0.0, 0.0))
        block[writer, node] = tuple(a + b for a, b in zip(before, both, strict=True))
    strongest = sorted(block.values(), key=lambda both: -max(map(abs, both)))[:12]
    largest = max(max(map(abs, both)) for both in block.values())
    sides = [axes for axes in graph_figure.graph_figure(cell, edges=12).axes if axes.texts]
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


def test_top_changes_are_the_largest_in_order_with_their_values_and_intervals(cell):
    ranked = sorted(means(cell).items(), key=lambda item: -abs(item[1][1] - item[1][0]))[:7]
    values, changes = figures.top_changes(cell, count=7).axes
    names = [label.get_text() for label in values.get_yticklabels()]
    assert names == [f"{writer} → {reader}" for (writer, reader), _ in ranked]
    for line, side in zip(values.lines[:2], (0, 1), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [both[side] for _, both in ranked], rtol=1e-9)
    for place, ((writer, reader), (base, rl)) in enumerate(ranked):
        w, r = WRITERS.index(writer), READERS.index(reader)
        low, high = cell.edge_low_WR[w, r], cell.edge_high_WR[w, r]
        spread, dot = changes.lines[2 * place : 2 * place + 2]
        assert tuple(spread.get_xdata()) == (low, high)
        np.testing.assert_allclose(dot.get_xdata(), rl - base, rtol=1e-9)
        assert (dot.get_markerfacecolor() == "white") == (low <= 0 <= high)


def test_distribution_is_a_density_over_decades_and_its_tail_counts_stronger_scores(cell):
    density, tail = figures.score_distribution(cell).axes
    edges_of = [(WRITERS.index(w), READERS.index(r)) for w, r in means(cell)]
    for side_nWR, stairs, line in zip(
        (cell.base_nWR, cell.rl_nWR), density.patches, tail.lines, strict=True
    ):
        scores = np.array([abs(float(m[edge])) for m in side_nWR for edge in edges_of])
        heights, bounds, _ = stairs.get_data()
        shares = heights * np.diff(np.log10(bounds))
        inside = ((scores >= bounds[0]) & (scores <= bounds[-1])).mean()
        np.testing.assert_allclose(shares.sum(), inside, atol=1e-9)
        for strength, share in list(zip(line.get_xdata(), line.get_ydata(), strict=True))[::9]:
            np.testing.assert_allclose(share, (scores >= strength).mean(), atol=1e-9)


def test_answer_lengths_count_every_question_once_and_mark_the_counted_tokens(cell):
    (axes,) = figures.answer_lengths(cell).axes
    for outline, side in ((axes.patches[0], "base"), (axes.patches[2], "rl")):
        counts, bounds, _ = outline.get_data()
        assert counts.sum() == len(cell.rows)
        for count, low, high in zip(counts, bounds[:-1], bounds[1:], strict=True):
            assert count == sum(low < len(row[f"{side}_answer_tokens"]) < high for row in cell.rows)
    (mark,) = axes.lines
    assert set(mark.get_xdata()) == {cell.t_cut}


def sweep():
    changes = (0.10, -0.05, 0.01, 0.40)
    cells = []
    for alpha, change in zip((0.5, 0.03, 0.1, 0.3), changes, strict=True):
        made = toy_cell(num_layers=1, samples=3, alpha=alpha)
        found = comparison(DIVERSITY.key, 2.0, 2.0 * (1 + change), 0.06)
        cells.append(
            dataclasses.replace(made, comparisons=made.comparisons | {DIVERSITY.key: found})
        )
    return cells


def test_figure_3_bars_are_relative_changes_with_their_intervals_and_a_sum_in_the_title():
    axes = sweep_figures.change_figure(sweep(), DIVERSITY).axes[0]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], (0.10, -0.05, 0.01, 0.40))
    assert [bar.get_hatch() for bar in axes.patches] == [None, None, "////", None]
    colours = [bar.get_facecolor()[:3] for bar in axes.patches]
    expected = [RL_COLOUR, BASE_COLOUR, RL_COLOUR, RL_COLOUR]
    assert colours == [to_rgba(colour)[:3] for colour in expected]
    intervals = [tuple(line.get_xdata()) for line in axes.lines[:4]]
    np.testing.assert_allclose(intervals[0], (0.07, 0.13))
    np.testing.assert_allclose(intervals[2], (-0.02, 0.04))
    title = axes.get_title("left")
    assert title == "Inter-sample diversity rises in 75 % of 4 cells, by +11.5 % on average"


def test_alpha_figure_orders_alphas_and_shows_both_sides_of_every_metric():
    cells = sweep()
    panels = sweep_figures.alpha_figure(cells).axes
    ordered = sorted(cells, key=lambda cell: cell.alpha)
    assert [label.get_text() for label in panels[0].get_xticklabels()] == [
        "0.03", "0.1", "0.3", "0.5"
    ]  # fmt: skip
    for axes, key in zip(panels, cells[0].comparisons, strict=True):
        for line, side in zip(axes.lines, ("base", "rl"), strict=True):
            wanted = [getattr(cell.comparisons[key], side) for cell in ordered]
            np.testing.assert_allclose(line.get_ydata(), wanted)
            bars = axes.collections[("base", "rl").index(side)].get_segments()
            ends = [getattr(cell.comparisons[key], f"{side}_interval") for cell in ordered]
            np.testing.assert_allclose([bar[:, 1] for bar in bars], ends)


def test_undefined_changes_are_named_in_the_figure_and_left_out_of_the_sum():
    cells = sweep()
    nan = float("nan")
    found = dataclasses.replace(cells[0].comparisons[DIVERSITY.key], relative=nan)
    cells[0] = dataclasses.replace(
        cells[0], comparisons=cells[0].comparisons | {DIVERSITY.key: found}
    )
    axes = sweep_figures.change_figure(cells, DIVERSITY).axes[0]
    assert [text.get_text().strip() for text in axes.texts] == ["not defined"]
    assert "rises in 67 % of 3 cells" in axes.get_title("left")


def test_files_are_valid_equal_for_equal_input_and_leave_the_user_s_style_alone(cell, tmp_path):
    before = dict(matplotlib.rcParams)
    first = figures.write_figures(figures.cell_figures(cell), tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        second = figures.write_figures(figures.cell_figures(cell), tmp_path / "b")
    assert dict(matplotlib.rcParams) == before
    assert [path.name for path in first] == [
        f"{figure.name}.{kind}" for figure in figures.CELL_FIGURES for kind in ("png", "svg")
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        if one.suffix == ".png":
            pixels = imread(io.BytesIO(one.read_bytes()))
            assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20
        else:
            assert ElementTree.parse(one).getroot().tag.endswith("svg")


def test_names_with_dollar_signs_and_markup_are_drawn_as_they_are():
    cell = toy_cell(num_layers=1, samples=2, pair="$\\frac$", dataset="<b>$x$ & é")
    for figure in (
        *figures.cell_figures(cell).values(),
        *sweep_figures.sweep_figures([cell] * 2).values(),
    ):
        assert png(figure)
        assert ElementTree.fromstring(svg(figure)) is not None


def test_a_model_of_32_layers_names_every_second_layer_where_its_row_is():
    axes = figures.heat_maps(toy_cell(num_layers=32, samples=2)).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:3] == ["input", "a2", "a4"]
    assert axes.get_xticklabels()[-1].get_text() == "logits"
    places = axes.get_yticks()
    assert [names[i] for i in range(1, len(names))] == [
        f"a{int(place - 1) // 2}" for place in places[1:]
    ]
