"""Models whose embeddings differ in length are scored as a torch program scores them: on their own and
on the other's texts, for both objectives, in memory, streamed and on a mesh that divides one only."""

import dataclasses

import numpy as np
import pytest
import toys
from hf_folder import write_toy

from eap_jax.graph import reader_names, writer_names
from eap_jax.sharding import make_mesh
from experiments import store
from experiments.errors import InputError
from experiments.fidelity.logit_difference import logit_difference_path, score_logit_difference
from experiments.responses.published_format import row_of
from experiments.scoring.cells import plan_cell, results_path, score_cells
from experiments.scoring.crossed import OTHER, read_crossed, score_crossed
from experiments.study.opened import open_study
from experiments.study.pairs import pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

RULE = Rule(alpha=0.3)
SIZES = {"base": 61, "rl": 64}
TOYS = {
    side: dataclasses.replace(
        toys.ZOO["multi-head"],
        config=dataclasses.replace(toys.ZOO["multi-head"].config, vocab_size=size),
    )
    for side, size in SIZES.items()
}
PARAMS = {side: toys.random_params(TOYS[side].config, seed) for seed, side in enumerate(SIZES)}


def rows(**changes) -> list:
    """Two rows of 4 prompt and 10 answer tokens, 3 of which count; `changes` put an id somewhere."""
    draw = np.random.default_rng(3)
    found = []
    for idx in range(2):
        fields = {"idx": idx}
        for side in SIZES:
            for kind, length in (("prompt", 4), ("answer", 10)):
                fields[f"{side}_{kind}_tokens"] = draw.integers(0, 61, length).tolist()
        found.append(fields)
    for place, token in changes.items():
        name, _, at = place.rpartition("_")
        found[1][name][int(at)] = token
    return [row_of(fields) for fields in found]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for side in SIZES:
        write_toy(folder / side, TOYS[side], PARAMS[side])
    return folder


def study_in(workdir, folders, **settings):
    study = Study(
        pair=pair_of(str(folders / "base"), str(folders / "rl"), "toy"), workdir=workdir,
        datasets=("math",), rules=(RULE,), responses=workdir / "not read.jsonl", **settings,
    )  # fmt: skip
    return open_study(study, lambda line: None)


def on_both_texts(opened, cell, side) -> tuple[np.ndarray, np.ndarray]:
    """A side's scores on its own and the other's texts."""
    score_cells(opened, [cell], side)
    score_crossed(opened, [cell], side)
    return store.read_results(results_path(opened, cell, side)), read_crossed(cell, side)[0]


def lead_of(opened, cell, side) -> np.ndarray:
    """A side's scores of the logit difference."""
    score_logit_difference(opened, [cell], side)
    return store.read_results(logit_difference_path(cell, side))


@pytest.fixture(scope="module")
def scored(folders, tmp_path_factory):
    opened = study_in(tmp_path_factory.mktemp("scored"), folders)
    cell = plan_cell(opened, "math", RULE, rows(), lambda line: None)
    found = {}
    for side in SIZES:
        found[side] = *on_both_texts(opened, cell, side), lead_of(opened, cell, side)
    return cell, found


def torch_matrix(torch, network, response, cut, *, lead=False) -> np.ndarray:
    """[W, R] from autograd; of the runner-up's lead in logits, or of the loss."""
    import torch_eap

    answer = torch.tensor(response.answer[:cut])
    state = torch_eap.run(network, (*response.prompt, *response.answer[: cut - 1]))
    logits = state.logits[len(response.prompt) - 1 :]
    value = torch.nn.functional.cross_entropy(logits, answer)
    if lead:
        places = torch.arange(cut)
        others = logits.clone()
        others[places, answer] = -torch.inf
        value = (others.max(dim=1).values - logits[places, answer]).mean()
    gradients = torch.autograd.grad(value, list(state.taps.values()))
    writers, readers = writer_names(2), reader_names(2)
    found_WR = np.zeros((len(writers), len(readers)))
    for reader, gradient in zip(state.taps, gradients, strict=True):
        for writer in state.seen[reader]:
            product = gradient.double() * state.writes[writer].detach().double()
            found_WR[writers.index(writer), readers.index(reader)] = -float(product.sum())
    return found_WR


def test_each_model_is_scored_on_both_texts_and_objectives_as_torch_does(scored, torch):
    cell, found = scored
    assert cell.selection.cut == 3
    for side in SIZES:
        network = toys.torch_model(TOYS[side], PARAMS[side])
        own_nWR, crossed_nWR, lead_nWR = found[side]
        for place, row in enumerate(cell.selection.rows):
            mine, theirs = row.response(side), row.response(OTHER[side])
            expected = torch_matrix(torch, network, mine, 3)
            assert toys.relative(own_nWR[place], expected) <= 1e-4
            expected = torch_matrix(torch, network, theirs, 3)
            assert toys.relative(crossed_nWR[place], expected) <= 1e-4
            expected = torch_matrix(torch, network, mine, 3, lead=True)
            assert toys.relative(lead_nWR[place], expected) <= 1e-4


@pytest.mark.parametrize("settings", [{"stream_bytes": 2**22}, {"mesh": "model:2"}], ids=str)
def test_streamed_and_divided_weights_give_the_same_scores(settings, scored, folders, tmp_path):
    opened = study_in(tmp_path, folders, **settings)
    assert opened.mesh.size == make_mesh(settings.get("mesh", "")).size
    cell = plan_cell(opened, "math", RULE, rows(), lambda line: None)
    for side in SIZES:
        found, expected = on_both_texts(opened, cell, side), scored[1][side][:2]
        for mine, theirs in zip(found, expected, strict=True):
            assert toys.relative(mine, theirs) <= 1e-5


@pytest.mark.parametrize("place", ["rl_prompt_tokens_2", "rl_answer_tokens_2"])
def test_a_counted_id_that_one_model_lacks_is_named_before_anything_is_scored(
    place, folders, tmp_path
):
    opened = study_in(tmp_path, folders)
    with pytest.raises(InputError) as error:
        plan_cell(opened, "math", RULE, rows(**{place: 62}), lambda line: None)
    message = str(error.value)
    assert message.startswith("math, alpha 0.3: rl: row 1: counted text: expected ids that both")
    assert "found 62, which is rl's alone: base's embedding has 61 ids" in message
    assert not list(tmp_path.rglob("cell.json"))


def test_an_id_that_is_not_counted_may_be_one_models_alone(folders, tmp_path):
    opened = study_in(tmp_path, folders)
    cell = plan_cell(opened, "math", RULE, rows(rl_answer_tokens_3=62), lambda line: None)
    assert cell.selection.cut == 3
