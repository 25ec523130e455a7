"""The report page: complete, escaped, self-contained, small; read back with an HTML parser."""

import dataclasses
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from html_page import Page, edges_of, rows
from toy_study import HOSTILE, letters, toy_cell, toy_study

from eap_jax.graph import num_edges
from experiments.report import page
from experiments.report.verdict import verdicts
from experiments.statistics.metrics import METRICS, TABLE_METRICS
from experiments.statistics.model_text import Effect, Split

WRITERS = ["input", "a0", "m0", "a1", "m1"]
READERS = ["a0<q>", "a0<k>", "a0<v>", "m0", "a1<q>", "a1<k>", "a1<v>", "m1", "logits"]


@pytest.fixture(scope="module")
def study():
    cell = toy_cell(num_layers=2, alpha=0.1, decode=letters, question=HOSTILE)
    return toy_study([cell])


@pytest.fixture(scope="module")
def text(study):
    return page.render(study)


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def test_page_is_well_formed_and_its_links_and_ids_meet(parsed):
    assert parsed.problems == []
    ids = [e[1]["id"] for e in parsed.elements if "id" in e[1]]
    assert len(ids) == len(set(ids))
    targets = [e[1]["href"] for e in parsed.all("a")]
    assert len(targets) >= 6
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert {e[1]["aria-describedby"] for e in parsed.elements if "aria-describedby" in e[1]} <= set(
        ids
    )


def test_page_asks_for_nothing_outside_itself_and_forbids_it(parsed):
    for element in parsed.elements:
        for name in (
            "src",
            "" if element[0] == "a" else "href",
            "srcset",
            "data",
            "action",
            "poster",
        ):
            value = element[1].get(name) or "#"
            assert value.startswith(("#", "data:")), (element[0], name, value[:80])
    style = parsed.all("style")[0][2]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [e for e in parsed.all("meta") if e[1].get("http-equiv")]
    assert policy[1]["content"].startswith("default-src 'none'; img-src data:;")


def test_headline_and_findings_stand_in_words_before_anything_else(study, text, parsed):
    (verdict,) = verdicts(study)
    assert parsed.text("p", class_="headline") == verdict.headline
    section = parsed.text("section", class_="verdict")
    for finding in verdict.findings:
        sign = " (one of the three signs)" * (finding.metric in TABLE_METRICS)
        assert f"{finding.metric.label}{sign} {finding.status} {finding.text}." in section
    for caution in verdict.cautions:
        assert caution in section
    assert text.index('class="headline"') < text.index("<table")


def test_every_text_of_the_user_is_escaped(text, parsed):
    assert HOSTILE not in text
    assert len(parsed.all("script")) == 2
    assert not [e for e in parsed.all("img") if not e[1]["src"].startswith("data:")]
    assert not parsed.all("b")
    assert " ".join(HOSTILE.split()) in parsed.text("pre")
    assert "{{ 7*7 }}" in parsed.text("section", id="examples")
    assert "grown <b>" in parsed.text("section", id="made")
    handlers = [name for e in parsed.elements for name in e[1] if name.startswith("on")]
    assert handlers == []


def test_names_in_the_edge_data_cannot_end_their_script():
    hostile = "</script><img src=x onerror=alert(1)> & <!-- \u2028"
    made = page.render(toy_study([toy_cell(num_layers=1, samples=2, dataset=hostile)]))
    parsed = Page(made)
    assert parsed.problems == []
    assert len(parsed.all("script")) == 2
    (cell,) = edges_of(parsed)["cells"]
    assert cell["name"] == f"tiny_grpo, {hostile}, alpha 0.3"


def test_explorer_holds_every_edge_s_means_and_interval(study, parsed):
    (cell,) = study.cells
    data = edges_of(parsed)
    assert data["names"] == {"2": {"writers": WRITERS, "readers": READERS}}
    (found,) = data["cells"]
    base_WR, rl_WR = cell.base_nWR.mean(0), cell.rl_nWR.mean(0)
    n = 0
    for w in range(5):
        for r in range(9):
            if w < {8: 5}.get(r, 2 * (r // 4) + (2 if r % 4 == 3 else 1)):
                numbers = [found[name][n] * found["unit"] for name in ("base", "rl", "low", "high")]
                wanted = (
                    base_WR[w, r],
                    rl_WR[w, r],
                    cell.edge_low_WR[w, r],
                    cell.edge_high_WR[w, r],
                )
                np.testing.assert_allclose(numbers, wanted, rtol=6e-5)
                n += 1
    assert n == len(found["base"]) == num_edges(2)


def test_table_1_has_both_values_intervals_change_and_the_published_pair(study, parsed):
    head, line = rows(parsed, "Table 1")
    assert head == [
        "Comparison", "Activation intensity", "Information complexity (nats)",
        "Distribution kurtosis",
    ]  # fmt: skip
    assert line[0] == "tiny_grpo, arithmetic, alpha 0.1 10 questions"
    found = study.cells[0].comparisons["activation_intensity"]
    expected = [
        *(found.base, *found.base_interval, found.rl, *found.rl_interval),
        *(100 * found.relative, found.difference, *found.difference_interval),
        *(1.10e-3, 1.31e-3),
    ]
    numbers = [float(n) for n in re.findall(r"[+-]?\d+\.?\d*(?:e-?\d+)?", line[1])]
    np.testing.assert_allclose(numbers, expected, rtol=6e-3)
    assert "as in the paper" in line[1]
    assert "published" not in line[2]


def test_statistics_table_has_every_metric_with_its_holm_corrected_p(study, parsed):
    head, *lines = rows(parsed, "All metrics and tests")
    assert [line[0] for line in lines] == [metric.label for metric in METRICS]
    p_values = [study.cells[0].comparisons[metric.key].wilcoxon_p for metric in METRICS]
    ranked = sorted(p_values)
    for line, p in zip(lines, p_values, strict=True):
        steps = [(len(ranked) - i) * q for i, q in enumerate(ranked[: ranked.index(p) + 1])]
        assert float(line[head.index("signed-rank p")]) == pytest.approx(p)
        assert float(line[head.index("p, Holm")]) == pytest.approx(min(1, max(steps)), rel=0.01)


def test_statistics_table_has_an_entropys_change_on_one_range_below_its_own(study):
    cell = study.cells[0]
    key = "information_complexity"
    found = dataclasses.replace(cell.comparisons[key], relative=0.123)
    cell = dataclasses.replace(cell, one_range={key: found})
    _, *lines = rows(Page(page.render(toy_study([cell]))), "All metrics and tests")
    assert len(lines) == len(METRICS) + 1
    own, one = lines[1:3]
    assert own[0] == "Information complexity"
    assert one[0] == "Information complexity on one range for both"
    assert one[4].startswith("+12.3")


def test_model_and_text_stand_under_the_findings_with_their_sentence(study):
    cell = study.cells[0]
    parts = {
        name: Effect(value=value, interval=(value - 1, value + 1), trend="rises")
        for name, value in {"change": 3.0, "model": 1.0, "text": 2.0, "interaction": 0.5}.items()
    }
    split = Split(values={"base_on_base": 4.0}, parts=parts)
    cell = dataclasses.replace(
        cell, identical_texts=0.7, model_text={"distribution_kurtosis": split, "loss": split}
    )
    shown = Page(page.render(toy_study([cell])))
    head, loss, kurtosis = rows(shown, f"Model and text, {cell.pair}")
    assert head == ["Metric", "Change", "Model", "Text", "Interaction"]
    assert (loss[0], kurtosis[0]) == ("Loss, nats a token", "Distribution kurtosis")
    assert kurtosis[2] == "+25.0 % rises; 1.00 [0, 2.00]"
    assert "the text more than the model changes distribution kurtosis" in shown.text(
        "p", class_="texts"
    )
    counted = [" ".join(e[2].split()) for e in shown.all("p") if e[2].startswith("Counted of each")]
    assert "of base and rl are the same in 70 % of the questions" in counted[0]
    same = Page(
        page.render(toy_study([dataclasses.replace(cell, identical_texts=1.0, model_text={})]))
    )
    assert (
        "same counted text in all 10 questions, so no change comes from another text"
        in same.text("p", class_="texts")
    )


def test_funnel_health_accuracies_sensitivities_and_origin_are_all_there(study, parsed):
    cell = study.cells[0]
    funnel = parsed.text("ol", class_="funnel")
    assert re.findall(r"\d+(?= [a-z])", funnel)[:2] == ["60", "31"]
    bars = [e[1]["style"] for e in parsed.all("span", class_="bar")]
    assert bars == ["width: 100.0%", "width: 51.7%", "width: 51.7%", "width: 16.7%"]
    assert all(step.reason in funnel for step in cell.funnel)
    assert f"base {cell.base_losses_n.mean():#.3g}" in parsed.text("section", id="selection")
    assert [line[-1] for line in rows(parsed, "Health")[1:]] == ["yes", "NO", "–"]
    assert [line[3] for line in rows(parsed, "Right answers")[1:]] == ["33 of 60", "48 of 60"]
    free = rows(parsed, "Free choices")
    assert free[1][:2] == ["Information complexity", "50 bins"]
    assert free[1][-1] == "+50.0"
    names, values = ([e[2] for e in parsed.all(tag)] for tag in ("dt", "dd"))
    made = dict(zip(names, values, strict=True))
    assert made == {
        "tiny_grpo": "start → grown <b> (GRPO)", **study.settings, **study.versions, **study.hashes
    }  # fmt: skip


def test_examples_mark_exactly_the_counted_tokens(study, parsed):
    cell = study.cells[0]
    marks = [mark for _, _, mark in parsed.all("mark")][1:]  # the first explains the marks
    answers = [row[f"{side}_answer_tokens"] for row in cell.rows[:3] for side in ("base", "rl")]
    assert marks == [letters(tokens[: cell.t_cut]) for tokens in answers]
    shown = [text for _, _, text in parsed.all("p", class_="answer")]
    for answer, tokens in zip(shown, answers, strict=True):
        assert answer.endswith(letters(tokens))
        assert f"{min(7, len(tokens))} of {len(tokens)} tokens counted" in answer


def test_a_long_answer_is_shortened_and_says_so():
    cell = toy_cell(num_layers=1, samples=2, decode=letters)
    row = dict(cell.rows[0], base_answer_tokens=[7] * 9000)
    cell = dataclasses.replace(cell, rows=[row, cell.rows[1]], t_cut=4000)
    shown = Page(page.render(toy_study([cell]))).all("p", class_="answer")[0][2]
    assert "4000 of 9000 tokens counted" in shown
    assert "(2,500 more characters)" in shown
    assert "(3,500 more characters)" in shown
    assert len(shown) < 3300


def test_figures_are_images_inside_the_page_with_a_name_for_who_cannot_see_them(parsed):
    images = parsed.all("img")
    assert len(images) == 5
    for _, attributes, _ in images:
        kind, _, data = attributes["src"].partition(",")
        assert kind == "data:image/svg+xml"
        assert ElementTree.fromstring(urllib.parse.unquote(data)).tag.endswith("svg")
        assert attributes["alt"].endswith("tiny_grpo, arithmetic, alpha 0.1")


def test_figures_are_numbered_and_link_to_their_files(study):
    (cell,) = study.cells
    made = Page(page.render(study, folders={cell.name: "a & b/cut0.1"}))
    captions = [e[2].split(".")[0] for e in made.all("figcaption")]
    assert captions == [f"Figure {number}" for number in range(1, 6)]
    links = [e[1]["href"] for e in made.all("a")]
    figures_ = [f"a%20%26%20b/figures/cut0.1_graph.{kind}" for kind in ("png", "pdf", "svg")]
    assert {*figures_, "a%20%26%20b/cut0.1/edges.csv", "table.csv"} <= set(links)


def test_the_models_size_stands_above_the_headline(study):
    (pair,) = study.pairs
    sized = dataclasses.replace(study, pairs=[dataclasses.replace(pair, size="7 parameters")])
    assert Page(page.render(sized)).text("p", class_="pair") == "tiny_grpo: GRPO; 7 parameters"


def test_a_heavy_figure_becomes_a_png(monkeypatch, study):
    monkeypatch.setattr(page, "_LARGEST_SVG", 1000)
    made = Page(page.render(study))
    assert {e[1]["src"][:27] for e in made.all("img")} == {"data:image/png;base64,iVBOR"}


def test_controls_are_reachable_and_named(parsed):
    (canvas,) = parsed.all("canvas")
    assert canvas[1]["tabindex"] == "0"
    assert canvas[1]["aria-label"]
    assert [e[1]["data-show"] for e in parsed.all("button") if "data-show" in e[1]] == [
        "base", "rl", "difference"
    ]  # fmt: skip
    sortable = [e for e in parsed.all("th") if "aria-sort" in e[1]]
    assert len(sortable) == 6
    for kind in ("input", "select"):
        for control in parsed.all(kind):
            assert "label" in parsed.ancestors[id(control)]
    scrolling = [e for e in parsed.all("div") if e[1].get("class") in ("wide", "tall")]
    assert all(e[1]["tabindex"] == "0" and e[1]["aria-label"] for e in scrolling)


def test_undefined_numbers_and_missing_parts_are_said_in_words():
    nan = float("nan")
    cell = toy_cell(num_layers=1, samples=2)
    key = "activation_intensity"
    undefined = dataclasses.replace(
        cell.comparisons[key], relative=nan, wilcoxon_p=nan, relative_interval=(nan, nan)
    )
    cell = dataclasses.replace(
        cell, comparisons={key: undefined}, edge_low_WR=None, edge_high_WR=None,
        base_losses_n=None, rl_losses_n=None,
    )  # fmt: skip
    made = Page(page.render(toy_study([cell], health=(), accuracies=(), sensitivities=())))
    visible = " ".join(e[2] for e in made.all("main") + made.all("header"))
    assert "nan" not in visible
    assert "None" not in visible
    assert rows(made, "Table 1")[1][2:] == ["not measured", "not measured"]
    assert edges_of(made)["cells"][0]["low"] is None


def test_equal_studies_give_equal_pages(study, text):
    assert page.render(study) == text
