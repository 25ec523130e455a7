"""Figures show the numbers they are made from: what is drawn is read back and compared."""

import dataclasses
import io
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from plain_means import LAYERS, READERS, WRITERS, means
from toy_study import toy_cell

from experiments.report import figures
from experiments.report.figure_style import svg


@pytest.fixture(scope="module")
def cell():
    return toy_cell(num_layers=LAYERS, samples=6)


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


def test_edges_that_change_little_are_told_apart_beside_one_that_changes_much(cell):
    base_nWR = cell.base_nWR.copy()
    base_nWR[:, 0, -1] += 1000 * np.abs(base_nWR).max()
    values, changes = figures.top_changes(dataclasses.replace(cell, base_nWR=base_nWR)).axes
    for axes in (values, changes):
        assert axes.get_xlabel().endswith("(arcsinh scale)")
    dots = [line.get_xdata()[0] for line in changes.lines[1:40:2]]
    shown = changes.transData.transform([(dot, 0) for dot in dots])[:, 0]
    width = np.ptp(changes.transAxes.transform([(0, 0), (1, 0)])[:, 0])
    assert np.ptp(shown[1:]) > 0.1 * width
    assert np.ptp(dots[1:]) < 0.01 * np.ptp(changes.get_xlim())
    assert all("arcsinh" not in axes.get_xlabel() for axes in figures.top_changes(cell, 7).axes)


def test_a_figures_text_is_text_in_its_svg(cell):
    root = ElementTree.fromstring(svg(figures.answer_lengths(cell)))
    words = {
        " ".join("".join(e.itertext()).split()) for e in root.iter() if e.tag.endswith("}text")
    }
    assert "answer length in tokens" in words


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


def test_files_are_valid_equal_for_equal_input_and_leave_the_user_s_style_alone(cell, tmp_path):
    before = dict(matplotlib.rcParams)
    first = figures.write_figures(figures.cell_figures(cell), tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        second = figures.write_figures(figures.cell_figures(cell), tmp_path / "b")
    assert dict(matplotlib.rcParams) == before
    assert [path.name for path in first] == [
        f"{figure.name}.{kind}"
        for figure in figures.CELL_FIGURES
        if figure.possible(cell)
        for kind in figures.FIGURE_KINDS
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        if one.suffix == ".png":
            pixels = np.round(255 * imread(io.BytesIO(one.read_bytes()))).astype(np.uint8)
            assert len(np.unique(pixels.view(np.uint32))) > 20  # four bytes, one colour
        elif one.suffix == ".pdf":
            assert one.read_bytes().startswith(b"%PDF")
        else:
            assert ElementTree.parse(one).getroot().tag.endswith("svg")
