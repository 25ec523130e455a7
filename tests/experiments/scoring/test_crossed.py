"""Each model on the other's texts: a torch program's scores where texts differ, its own elsewhere."""

import dataclasses

import numpy as np
import pytest
import toys
from hf_folder import write_toy

from eap_jax.graph import edge_mask, reader_names, writer_names
from eap_jax.sharding import make_mesh
from experiments import store
from experiments.errors import InputError
from experiments.responses.published_format import row_of
from experiments.scoring import crossed
from experiments.scoring.cells import plan_cell, results_path, score_cells
from experiments.study.opened import OpenStudy
from experiments.study.pairs import pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"]
PARAMS = {side: toys.random_params(TOY.config, seed) for seed, side in enumerate(toys.SIDES)}
# 10 answer tokens: 1, 3 and 6 are counted.
RULES = tuple(Rule(alpha=alpha) for alpha in (0.1, 0.3, 0.6))
# Where rl's text differs: in the prompt's last token, at answer token 2, at answer token 5, nowhere.
DIFFER = ({"prompt": 3}, {"answer": 1}, {"answer": 4}, {})


def rows() -> list:
    draw = np.random.default_rng(3)
    found = []
    for idx, differs in enumerate(DIFFER):
        prompt, answer = draw.integers(5, 60, 4).tolist(), draw.integers(5, 60, 10).tolist()
        fields = {"idx": idx, "base_prompt_tokens": prompt, "base_answer_tokens": answer}
        fields |= {"rl_prompt_tokens": list(prompt), "rl_answer_tokens": list(answer)}
        for kind, place in differs.items():
            fields[f"rl_{kind}_tokens"][place] = 1
        found.append(row_of(fields))
    return found


def study_in(folder, given, **settings):
    """Both models, and their three cells scored on their own texts."""
    study = Study(
        pair=pair_of("a", "b", "toy"), workdir=folder, datasets=("math",), rules=RULES, **settings
    )
    for side in toys.SIDES:
        write_toy(folder / side, TOY, PARAMS[side])
    opened = OpenStudy(
        study=study,
        checkpoints={side: folder / side for side in toys.SIDES},
        configs=dict.fromkeys(toys.SIDES, TOY.config),
        hashes={},
        answer_dtypes=dict.fromkeys(toys.SIDES, "float32"),
        mesh=make_mesh(study.mesh),
    )
    cells = [plan_cell(opened, "math", rule, given, lambda line: None) for rule in RULES]
    for side in toys.SIDES:
        score_cells(opened, cells, side)
    return opened, cells


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    opened, cells = study_in(tmp_path_factory.mktemp("crossed"), rows())
    for side in toys.SIDES:
        crossed.score_crossed(opened, cells, side)
    return opened, cells


def test_scores_and_losses_on_the_others_texts_are_a_torch_programs(scored, torch):
    import torch_eap

    _, cells = scored
    writers, readers = writer_names(2), reader_names(2)
    for model in toys.SIDES:
        network = toys.torch_model(TOY, PARAMS[model])
        for cell in cells[1:]:
            found_nWR, losses_n = crossed.read_crossed(cell, model)
            assert found_nWR.dtype == losses_n.dtype == np.float32
            for place, row in enumerate(cell.selection.rows):
                given = row.response(crossed.OTHER[model])
                text = toys.Text(prompt=given.prompt, answer=given.answer[: cell.selection.cut])
                scores, loss = torch_eap.edge_scores(network, text)
                expected_WR = np.zeros(found_nWR.shape[1:])
                for w, r in np.argwhere(edge_mask(2)):
                    expected_WR[w, r] = scores[writers[w], readers[r]]
                assert toys.relative(found_nWR[place], expected_WR) <= 1e-4
                assert losses_n[place] == pytest.approx(loss, rel=1e-5)


def test_own_scores_stand_exactly_where_the_texts_are_the_same(scored):
    opened, cells = scored
    assert [cell.selection.cut for cell in cells] == [1, 3, 6]
    assert [cell.selection.differing for cell in cells] == [[0], [0, 1], [0, 1, 2]]
    for side in toys.SIDES:
        for cell in cells:
            own_nWR = store.read_results(results_path(opened, cell, side))
            found_nWR, _ = crossed.read_crossed(cell, side)
            same = [bool(np.array_equal(*two)) for two in zip(own_nWR, found_nWR, strict=True)]
            assert [place for place in range(4) if not same[place]] == cell.selection.differing


def test_saved_files_are_left_alone_and_a_missing_one_comes_back_the_same(scored, monkeypatch):
    opened, cells = scored
    paths = [crossed.crossed_path(cell, "base") for cell in cells]
    assert [path.name for path in paths] == ["base_on_rl_text.npz"] * 3
    before = [path.read_bytes() for path in paths]
    paths[1].unlink()
    stamps = [path.stat().st_mtime_ns for path in (paths[0], paths[2])]
    crossed.score_crossed(opened, cells, "base")
    assert [path.read_bytes() for path in paths] == before
    assert [path.stat().st_mtime_ns for path in (paths[0], paths[2])] == stamps
    monkeypatch.setattr(crossed, "scores_of", None)  # nothing is missing: nothing is computed
    crossed.score_crossed(opened, cells, "base")


@pytest.mark.parametrize("settings", [{"stream_bytes": 2**22}, {"mesh": "data:2"}])
def test_streamed_weights_and_two_devices_give_the_same_scores(scored, tmp_path, settings):
    _, cells = scored
    opened, others = study_in(tmp_path, rows(), **settings)
    crossed.score_crossed(opened, others, "rl")
    for cell, other in zip(cells, others, strict=True):
        expected, found = (crossed.read_crossed(one, "rl") for one in (cell, other))
        assert toys.relative(found[0], expected[0]) <= 1e-5
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)


def test_where_all_texts_are_the_same_nothing_is_computed_and_that_is_said(tmp_path, monkeypatch):
    """The third row, alone, has one counted text at the two shorter cuts."""
    opened, cells = study_in(tmp_path, rows()[2:])
    said, passes = [], []
    original = crossed.scores_of

    def counted(opened, cells, side, *, texts, doing):
        passes.append((len(cells), len(texts)))
        return original(opened, cells, side, texts=texts, doing=doing)

    monkeypatch.setattr(crossed, "scores_of", counted)
    crossed.say_texts(cells, said.append)
    for side in toys.SIDES:
        crossed.score_crossed(opened, cells, side)
    assert passes == [(1, 1), (1, 1)], "one cell, one text, of each model"
    assert [crossed.read_crossed(cell, "rl") is None for cell in cells] == [True, True, False]
    assert said == [
        "math, alpha 0.1: base and rl have the same counted text in all 2 samples",
        "math, alpha 0.3: base and rl have the same counted text in all 2 samples",
        "math, alpha 0.6: counted texts differ in 1 of 2 samples: both models are scored on both texts",
    ]


def test_a_file_of_another_number_of_samples_is_named(scored, tmp_path):
    _, cells = scored
    cell = dataclasses.replace(cells[0], directory=tmp_path)
    scores_nWR = np.ones((3, 5, 9), np.float32)
    store.write_arrays(
        tmp_path / "rl_on_base_text.npz",
        scores=scores_nWR[0], all_scores=scores_nWR, losses=np.ones(3, np.float32),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"rl_on_base_text.npz: expected .* of 4 samples, found"):
        crossed.read_crossed(cell, "rl")
