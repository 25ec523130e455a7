"""The stage cuts what was chosen, finds a torch program's effects, and skips what is there."""

import dataclasses
import json

import numpy as np
import pytest
import toys

from eap_jax.graph import edge_mask, reader_names, writer_names
from experiments import store
from experiments.errors import InputError
from experiments.fidelity.cell_fidelity import fidelity_line, measure_fidelity
from experiments.fidelity.effects import choose, cut_cells, effects_path
from experiments.fidelity.logit_difference import logit_difference_path, score_logit_difference
from experiments.responses.published_format import row_of
from experiments.responses.tokenization import load_tokenizer
from experiments.scoring.cells import plan_cell, score_cells
from experiments.study.opened import open_study
from experiments.study.pairs import find_pair
from experiments.study.rule import Rule
from experiments.study.settings import Study

QUESTIONS = (("Hugo", 7, 4, 11), ("Eva", 31, 9, 40), ("Ida", 2, 5, 7))


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Three short questions to the embedded pair at two alphas, everything cut: (study, cells)."""
    study = Study(
        pair=find_pair("tiny_grpo"),
        workdir=tmp_path_factory.mktemp("cut"),
        datasets=("arithmetic",),
        rules=(Rule(alpha=0.4), Rule(alpha=0.9)),
    )
    opened = open_study(study, lambda line: None)
    tokenizer = load_tokenizer(opened.checkpoints["base"])
    rows = []
    for idx, (name, first, second, total) in enumerate(QUESTIONS):
        asked = f"Question: {name} has {first} keys. {name} buys {second}. How many?\nAnswer:"
        fields = {"idx": idx, "question": asked, "gt": str(total)}
        for side in toys.SIDES:
            answer = tokenizer(f" {first} + {second} = {total}.", add_special_tokens=False)
            fields[f"{side}_prompt_tokens"] = tokenizer(asked)["input_ids"]
            fields[f"{side}_answer_tokens"] = answer["input_ids"]
        rows.append(row_of(fields))
    cells = [plan_cell(opened, "arithmetic", rule, rows, lambda line: None) for rule in study.rules]
    said = []
    for side in toys.SIDES:
        score_cells(opened, cells, side)
        choose(opened, cells, said.append)
        cut_cells(opened, cells, side)
    assert "every edge of 3 samples cut exactly" in said[0]
    return opened, cells


def test_every_saved_effect_is_that_of_a_torch_program(cut, torch):
    import torch_eap
    import transformers

    opened, cells = cut
    writers, readers = writer_names(4), reader_names(4)
    largest = 0.0
    for side in toys.SIDES:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            opened.checkpoints[side], dtype=torch.float32, attn_implementation="eager"
        )
        for cell in cells:
            found = store.read_arrays(effects_path(cell, side), ("effects", "rows"))
            assert found["effects"].dtype == np.float32
            np.testing.assert_array_equal(found["rows"], [0, 1, 2])
            assert np.isnan(found["effects"][:, ~edge_mask(4)]).all()
            row = cell.selection.rows[1].response(side)
            text = toys.Text(prompt=row.prompt, answer=row.answer[: cell.selection.cut])
            with torch.no_grad():
                whole = float(torch_eap.loss_of(model, text)[0])
                for w, r in np.argwhere(edge_mask(4)):
                    loss = float(torch_eap.loss_of(model, text, (writers[w], readers[r]))[0])
                    assert found["effects"][1, w, r] == pytest.approx(loss - whole, abs=1e-3)
                    largest = max(largest, abs(loss - whole))
    assert largest > 2


def test_a_saved_side_is_left_alone_and_a_missing_one_comes_back_the_same(cut):
    opened, cells = cut
    paths = [effects_path(cell, "rl") for cell in cells]
    before = [path.read_bytes() for path in paths]
    paths[0].unlink()
    stamp = paths[1].stat().st_mtime_ns
    cut_cells(opened, cells, "rl")
    assert [path.read_bytes() for path in paths] == before
    assert paths[1].stat().st_mtime_ns == stamp


def test_fidelity_json_has_a_side_each_and_a_line(cut):
    opened, cells = cut
    found = measure_fidelity(opened, cells[0])
    saved = json.loads((cells[0].directory / "fidelity.json").read_text())
    assert list(saved) == list(toys.SIDES)
    assert (saved["rl"]["edges"], saved["rl"]["samples"]) == (77, 3)
    assert f"rl Pearson {saved['rl']['pearson']:.2f}" in fidelity_line(found)
    broken = dataclasses.replace(cells[0], directory=cells[0].directory / "elsewhere")
    assert measure_fidelity(opened, broken) is None


def test_a_plan_of_fewer_edges_is_not_overwritten_by_all(cut, tmp_path):
    opened, cells = cut
    cell = dataclasses.replace(cells[0], directory=tmp_path)
    store.write_json(tmp_path / "fidelity_plan.json", {"rows": [0], "edges": [[0, 3], [4, 16]]})
    choose(opened, [cell], lambda line: None)  # auto goes on with it
    every = dataclasses.replace(
        opened, study=dataclasses.replace(opened.study, fidelity="all"), _loaded={}
    )
    with pytest.raises(InputError, match="holds results of other settings"):
        choose(every, [cell], lambda line: None)
    cut_cells(opened, [cell], "base")
    found = store.read_effects(effects_path(cell, "base"), (3, 9, 17)).effects_mWR
    assert np.isfinite(found).sum() == 2
    whole = store.read_effects(effects_path(cells[0], "base"), (3, 9, 17)).effects_mWR
    np.testing.assert_allclose(found[0, 4, 16], whole[0, 4, 16], atol=1e-5)


def test_streamed_weights_give_the_same_effects(cut, tmp_path):
    opened, cells = cut
    streamed = dataclasses.replace(
        opened, study=dataclasses.replace(opened.study, stream_bytes=2**20), _loaded={}
    )
    cell = dataclasses.replace(cells[0], directory=tmp_path)
    choose(streamed, [cell], lambda line: None)
    cut_cells(streamed, [cell], "rl")
    paths = effects_path(cell, "rl"), effects_path(cells[0], "rl")
    found, expected = (store.read_effects(path, (3, 9, 17)).effects_mWR for path in paths)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not streamed._loaded


def test_the_logit_differences_scores_are_torchs_gradients(cut, torch):
    import torch_eap
    import transformers

    opened, cells = cut
    score_logit_difference(opened, cells[:1], "rl")
    found = store.read_results(logit_difference_path(cells[0], "rl"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        opened.checkpoints["rl"], dtype=torch.float32, attn_implementation="eager"
    )
    row = cells[0].selection.rows[0].response("rl")
    answer = row.answer[: cells[0].selection.cut]
    state = torch_eap.run(model, row.prompt + answer[:-1])
    logits = state.logits[len(row.prompt) - 1 :]
    places = torch.arange(len(answer))
    targets = torch.tensor(answer)
    others = logits.clone()
    others[places, targets] = -torch.inf
    lead = (others.max(dim=1).values - logits[places, targets]).mean()
    gradients = torch.autograd.grad(lead, list(state.taps.values()))
    expected = np.zeros((9, 17))
    for r, (reader, gradient) in enumerate(zip(state.taps, gradients, strict=True)):
        for w, writer in enumerate(state.seen[reader]):
            write = state.writes[writer].detach()
            expected[w, r] = -float((gradient.double() * write.double()).sum())
    assert list(state.taps) == list(reader_names(4))
    assert toys.relative(found[0], expected) <= 1e-4
