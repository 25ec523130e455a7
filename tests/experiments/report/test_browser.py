"""The report in a real browser: silent, offline, and its edge matrix answers mouse and keys."""

import dataclasses
import io

import chromium
import numpy as np
import pytest
from matplotlib.image import imread
from toy_study import HOSTILE, letters, toy_cell, toy_study

from experiments.report import page

CANVAS = "document.getElementById('matrix')"
EDGE = "document.getElementById('edge').textContent"


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    binary = chromium.find()
    if binary is None:
        pytest.skip("no Chromium or Chrome found")
    with chromium.browser(binary, tmp_path_factory.mktemp("profile")) as connection:
        yield connection


@pytest.fixture(scope="module")
def study():
    cells = [
        toy_cell(num_layers=2, alpha=alpha, seed=seed, decode=letters, question=HOSTILE)
        for alpha, seed in ((0.1, 0), (0.3, 5))
    ]
    cells[1] = dataclasses.replace(cells[1], edge_low_WR=None, edge_high_WR=None)
    return toy_study(cells)


@pytest.fixture(scope="module")
def url(study, tmp_path_factory):
    return page.write_page(study, tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture
def tab(connection, url):
    return chromium.Tab(connection, url)


def edge_line(cell, writer, reader, w, r):
    """What the page should say of an edge, written a second time."""

    def short(value, sign=False):
        if 0.01 <= abs(value) < 1000:
            text = f"{value:#.3g}".rstrip(".")
        else:
            mantissa, exponent = f"{value:.2e}".split("e")
            text = f"{mantissa}e{int(exponent)}"
        return ("+" if sign and value > 0 else "") + text

    base, rl = float(cell.base_nWR[:, w, r].mean()), float(cell.rl_nWR[:, w, r].mean())
    text = f"{writer} → {reader}: base {short(base)}, rl {short(rl)}, "
    text += f"difference {short(rl - base, True)} (95 % interval "
    if cell.edge_low_WR is None:
        return text + "not measured)"
    low, high = cell.edge_low_WR[w, r], cell.edge_high_WR[w, r]
    word = "includes" if low <= 0 <= high else "excludes"
    return text + f"{short(low, True)} to {short(high, True)}, {word} 0)"


def square(tab, w, r, layers=2):
    """Middle of an edge's square in the viewport."""
    tab.value(f"{CANVAS}.scrollIntoView({{block: 'center'}})")
    box = tab.value(
        f"(({{x, y, width, height}}) => [x, y, width, height])({CANVAS}.getBoundingClientRect())"
    )
    size = (box[2] - 40) / (4 * layers + 1)
    return box[0] + 40 + (r + 0.5) * size, box[1] + 50 + (w + 0.5) * size


NOISES = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


def requests(tab):
    """Addresses asked for, those inside the page left out."""
    asked = {event["request"]["url"] for event in tab.events("Network.requestWillBeSent")}
    return {address for address in asked if not address.startswith("data:")}


def test_a_noisy_page_would_be_noticed(connection, tmp_path):
    other = tmp_path / "noisy.html"
    other.write_text(
        "<script>console.log('x'); setTimeout(() => { throw Error('y'); });</script>"
        "<img src='missing.png'><div style='width: 2000px'>wide</div>"
    )
    tab = chromium.Tab(connection, other.as_uri(), width=360)
    assert all(tab.events(kind) for kind in NOISES)
    assert requests(tab) == {other.as_uri(), (tmp_path / "missing.png").as_uri()}
    assert tab.value("document.documentElement.scrollWidth") >= 2000


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_page_opens_silently_offline_and_fits_its_width(connection, url, width, dark):
    tab = chromium.Tab(connection, url, width=width, dark=dark)
    tab.value("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    broken = tab.value(
        "Promise.all([...document.images].map((i) => { i.loading = 'eager'; "
        "return i.decode().then(() => i.naturalWidth === 0, () => true); }))"
    )
    assert broken == [False] * 13
    assert [tab.events(kind) for kind in NOISES] == [[], [], []]
    assert requests(tab) == {url}
    assert tab.value("performance.getEntriesByType('resource').map((e) => e.name)"
                     ".filter((name) => !name.startsWith('data:'))") == []  # fmt: skip
    assert tab.value("document.documentElement.scrollWidth") == width
    pixels = imread(io.BytesIO(tab.screenshot()))
    assert pixels.shape[:2] == (900, width)
    background = pixels[-1, 2, :3].mean()
    assert background < 0.2 if dark else background > 0.9


def test_text_keeps_enough_contrast_in_both_modes(connection, url):
    def luminance(colour):
        parts = [float(part) / 255 for part in colour[4:-1].split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot((0.2126, 0.7152, 0.0722), linear))

    for dark in (False, True):
        tab = chromium.Tab(connection, url, dark=dark)
        back = luminance(tab.value("getComputedStyle(document.body).backgroundColor"))
        for selector in ("body", "small", "a", ".as-in-the-paper", ".failed", ".tag"):
            colour = tab.value(f"getComputedStyle(document.querySelector('{selector}')).color")
            bright, dim = sorted((back, luminance(colour)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (selector, dark)


def test_pointing_at_a_square_tells_its_edge(tab, study):
    assert tab.value(EDGE) == "No edge chosen."
    tab.move(*square(tab, 3, 7))
    assert tab.value(EDGE) == edge_line(study.cells[0], "a1", "m1", 3, 7)
    tab.move(*square(tab, 0, 8))
    assert tab.value(EDGE) == edge_line(study.cells[0], "input", "logits", 0, 8)
    tab.move(*square(tab, 4, 0))  # no edge there: the last one stays
    assert tab.value(EDGE) == edge_line(study.cells[0], "input", "logits", 0, 8)


def test_arrow_keys_walk_from_edge_to_edge_past_places_without_one(tab, study):
    tab.value(f"{CANVAS}.focus()")
    assert tab.value(EDGE).startswith("input → a0<q>:")
    for key, place in (
        ("ArrowRight", "input → a0<k>"), ("ArrowDown", "input → a0<k>"),
        ("ArrowRight", "input → a0<v>"), ("ArrowRight", "input → m0"), ("ArrowDown", "a0 → m0"),
        ("ArrowLeft", "a0 → m0"), ("ArrowUp", "input → m0"), ("ArrowLeft", "input → a0<v>"),
    ):  # fmt: skip
        tab.press(key)
        assert tab.value(EDGE).startswith(f"{place}:"), key
    assert tab.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_every_control_is_reached_by_the_tab_key(tab):
    reached = set()
    for _ in range(80):
        tab.press("Tab")
        reached.add(tab.value(
            "(({id, dataset, tagName}) => id || dataset.show || dataset.sort || tagName)"
            "(document.activeElement)"
        ))  # fmt: skip
    assert {
        "SUMMARY", "A", "cell", "base", "rl", "difference", "matrix", "filter", "clear",
        "writer", "reader", "TR",
    } <= reached  # fmt: skip


def test_switch_shows_base_rl_and_difference_in_their_own_colours(tab, study):
    cell = study.cells[0]
    shown = {
        "base": cell.base_nWR.mean(0), "rl": cell.rl_nWR.mean(0),
        "difference": (cell.rl_nWR - cell.base_nWR).mean(0),
    }  # fmt: skip
    for name, scores_WR in shown.items():
        tab.value(f"document.querySelector('[data-show={name}]').click()")
        pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map((b) => b.dataset.show)"
        assert tab.value(pressed) == [name]
        for w, r in ((0, 3), (1, 6), (2, 8), (4, 8)):
            x, y = (np.array(square(tab, w, r)) - tab.value(
                f"(({{x, y}}) => [x, y])({CANVAS}.getBoundingClientRect())"))  # fmt: skip
            red, _, blue, _ = tab.value(
                f"[...{CANVAS}.getContext('2d').getImageData({int(x)}, {int(y)}, 1, 1).data]"
            )
            assert (red > blue) == (scores_WR[w, r] > 0), (name, w, r)


def listed(tab):
    """Rows of the edge list as text."""
    return tab.value(
        "[...document.querySelectorAll('#edges tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )


def test_edge_list_is_sorted_filtered_and_follows_the_keys(tab, study):
    cell = study.cells[0]
    change_WR = np.abs((cell.rl_nWR - cell.base_nWR).mean(0))
    rows = listed(tab)
    assert len(rows) == 3 * 1 + 2 + 3 * 3 + 4 + 5
    sizes = [abs(float(row[4])) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_allclose(sizes[0], change_WR.max(), rtol=0.01)
    tab.value("document.querySelector('[data-sort=reader]').click()")
    assert [row[1] for row in listed(tab)][:5] == ["a0<q>", "a0<k>", "a0<v>", "m0", "m0"]
    assert tab.value("document.querySelector('[aria-sort=ascending]').textContent") == "Reader"
    tab.value("const f = document.getElementById('filter'); f.value = 'logits A1'; "
              "f.dispatchEvent(new Event('input'))")  # fmt: skip
    assert [row[:2] for row in listed(tab)] == [["a1", "logits"]]
    assert tab.value("document.getElementById('count').textContent") == "1 edge"
    for text in ("a1 -> logits", "A1\u2192logits"):
        tab.value(f"f.value = '{text}'; f.dispatchEvent(new Event('input'))")
        assert [row[:2] for row in listed(tab)] == [["a1", "logits"]], text
    tab.value("f.value = ''; document.getElementById('clear').click()")
    clear = int(((cell.edge_low_WR > 0) | (cell.edge_high_WR < 0)).sum())
    assert len(listed(tab)) == clear
    tab.value("document.querySelector('#edges tbody tr').focus()")
    tab.press("ArrowDown")
    writer, reader = listed(tab)[1][:2]
    assert tab.value(EDGE).startswith(f"{writer} → {reader}:")


def test_a_name_in_the_filter_does_not_find_longer_numbers(connection, tmp_path):
    study = toy_study([toy_cell(num_layers=12, samples=2)])
    tab = chromium.Tab(connection, page.write_page(study, tmp_path).as_uri())
    tab.value("const f = document.getElementById('filter')")

    def found(text):
        tab.value(f"f.value = '{text}'; f.dispatchEvent(new Event('input'))")
        return [tuple(row[:2]) for row in listed(tab)]

    def node(name):
        return name.split("<")[0]

    one = found("a1")
    assert one
    assert all("a1" in (writer, node(reader)) for writer, reader in one)
    assert {reader for writer, reader in found("a10 -> a11")} == {"a11<q>", "a11<k>", "a11<v>"}
    assert found("a10 -> m11") == [("a10", "m11")]
    assert found("m11 -> a10") == []
    assert {reader for _, reader in found("m9 <k>")} == {"a10<k>", "a11<k>"}


def test_choosing_the_other_comparison_shows_its_numbers(tab, study):
    names = tab.value("[...document.getElementById('cell').options].map((o) => o.text)")
    assert names == [cell.name for cell in study.cells]
    tab.value("const p = document.getElementById('cell'); p.value = 1; "
              "p.dispatchEvent(new Event('change'))")  # fmt: skip
    tab.move(*square(tab, 1, 8))
    assert tab.value(EDGE) == edge_line(study.cells[1], "a0", "logits", 1, 8)
    assert tab.value("document.getElementById('clear').disabled") is True
