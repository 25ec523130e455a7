"""Scores belong to their text: batches, devices, other cuts and reading by layers do not matter."""

import jax.numpy as jnp
import numpy as np
import pytest
import toys
from hf_folder import write_toy

from converters.load import Checkpoint
from converters.stored import StoredWeights
from eap_jax.attribution import attribute, attribute_prefixes
from eap_jax.batching import Text
from eap_jax.sharding import make_mesh, place_parameters
from experiments.out_of_memory import OutOfMemoryError
from experiments.scoring import memory, score
from experiments.scoring.score import score_streamed, score_texts
from experiments.study.numerics import running_sum_differences

TOY = toys.ZOO["window 5 above the first layer"]
CUTS = (2, 5)
# (prompt, answer) lengths: few different ones, since every shape of the oracle is compiled.
LENGTHS = [(4, 5), (7, 5), (4, 5), (7, 5), (4, 5), (7, 5), (4, 5)]


@pytest.fixture(scope="module")
def model():
    return Checkpoint(config=TOY.config, params=toys.random_params(TOY.config))


@pytest.fixture(scope="module")
def responses():
    return toys.random_texts(TOY.config, LENGTHS)


@pytest.fixture(scope="module")
def single(model, responses):
    """For each cut: scores and losses of every text on its own, unpadded, by the engine."""
    found = []
    for cut in CUTS:
        results = [
            attribute(
                model.params,
                toys.batch_of(
                    [toys.Text(prompt=text.prompt, answer=text.answer[:cut])], targets=CUTS[-1]
                ),
                config=model.config,
            )
            for text in responses
        ]
        scores = np.concatenate([result.scores_BWR for result in results])
        found.append((scores, np.concatenate([result.loss_B for result in results])))
    return found


@pytest.fixture(scope="module")
def texts(responses):
    return [Text(tokens=r.prompt + r.answer[:-1], targets=r.answer) for r in responses]


def check(found, single):
    for scores, (expected_nWR, losses_n) in zip(found, single, strict=True):
        assert scores.scores_nWR.dtype == np.float32
        for one_WR, other_WR in zip(scores.scores_nWR, expected_nWR, strict=True):
            assert toys.relative(one_WR, other_WR) <= 1e-5
        np.testing.assert_allclose(scores.losses_n, losses_n, rtol=1e-5)


@pytest.mark.parametrize("batch_tokens", [10_000, 40])
def test_scores_equal_those_of_each_text_alone_whatever_the_batches(
    model, texts, single, batch_tokens
):
    found = score_texts(
        model, texts, cuts=CUTS, numerics="float32", batch_tokens=batch_tokens, mesh=make_mesh()
    )
    check(found, single)
    assert all(scores.health <= 1e-4 for scores in found)


def test_two_devices_share_an_odd_number_of_texts(model, texts, single):
    mesh = make_mesh("data:2")
    placed = Checkpoint(
        config=model.config, params=place_parameters(model.params, model.config, mesh)
    )
    found = score_texts(
        placed, texts, cuts=CUTS, numerics="float32", batch_tokens=10_000, mesh=mesh
    )
    check(found, single)


@pytest.mark.parametrize("kept_bytes", [1, 10**9])
def test_reading_the_weights_layer_by_layer_gives_the_same_scores(
    model, texts, single, kept_bytes, tmp_path
):
    """With room for nothing, each batch reads all weights; with room for all, they share them."""
    write_toy(tmp_path, TOY, model.params)
    with StoredWeights(tmp_path) as stored:
        found = score_streamed(
            stored,
            texts,
            cuts=CUTS,
            numerics="float32",
            batch_tokens=40,
            kept_bytes=kept_bytes,
        )
    check(found, single)


def test_batches_that_do_not_fit_go_on_in_halves_from_where_they_were(
    model, texts, single, monkeypatch, capfd
):
    """Passes of more tokens than `most` fail as XLA fails; no text is scored twice."""
    sizes, most = [], 40

    def limited(params, batch, weights_ABJ, **settings):
        sizes.append(batch.tokens_BT.size)
        if sizes[-1] > most:
            jnp.zeros((2**18, 2**30)).block_until_ready()
        return attribute_prefixes(params, batch, weights_ABJ, **settings)

    monkeypatch.setattr(score, "attribute_prefixes", limited)
    settings = {"cuts": CUTS, "numerics": "float32", "mesh": make_mesh(), "description": "toy"}
    check(score_texts(model, texts, batch_tokens=10_000, **settings), single)
    assert sum(size > most for size in sizes) == 1
    assert "tokens of toy at once: out of memory, on with" in capfd.readouterr().out
    most = 5
    with pytest.raises(OutOfMemoryError, match="tokens of toy at once: out of memory"):
        score_texts(model, texts, batch_tokens=10_000, **settings)


def test_texts_that_the_plan_has_no_room_for_are_scored_all_the_same_after_one_line(
    model, texts, single, monkeypatch, capfd
):
    """Two kinds of score of one run: the second does not say it again."""
    monkeypatch.setattr(memory, "usable_on", lambda _: 2**16)
    settings = {"cuts": CUTS, "numerics": "float32", "mesh": make_mesh(), "batch_tokens": 40}
    first = iter((True, False))
    for description in ("one", "other"):
        found = score_texts(
            model,
            texts,
            **settings,
            description=description,
            first_warning=lambda: next(first),
        )
        check(found, single)
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "warning" in line]
    assert line.startswith("one: warning: scores of ")
    assert line.endswith("MB of 0.1; the run goes on")


def test_without_cuts_all_targets_count_and_the_bar_shows_rate_and_time(
    model, texts, single, capfd
):
    (found,) = score_texts(
        model, texts, numerics="float32", batch_tokens=10_000, mesh=make_mesh(), description="toy"
    )
    check([found], single[-1:])
    bar = capfd.readouterr().err
    assert "toy: 100%" in bar
    assert "7/7" in bar
    assert "tokens/s" in bar


def test_published_numerics_run_over_the_texts_in_their_order_not_the_batches(model, texts, single):
    """The running sum meets the samples as selected; batches are sorted by length."""
    found = score_texts(
        model, texts, cuts=CUTS, numerics="published", batch_tokens=40, mesh=make_mesh()
    )
    for scores, (expected_nWR, _) in zip(found, single, strict=True):
        error = toys.relative(scores.scores_nWR, running_sum_differences(expected_nWR))
        # A score next to a rounding boundary may fall to either side of it.
        assert error <= 1e-3
        backwards_nWR = running_sum_differences(expected_nWR[::-1])[::-1]
        assert toys.relative(scores.scores_nWR, backwards_nWR) >= 3e-3


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("mesh", ["", "model:2"])
def test_the_pass_recomputes_and_lays_out_as_memory_and_mesh_ask(
    model, texts, monkeypatch, recompute, mesh
):
    mesh, asked = make_mesh(mesh), []
    # With enough memory all is kept; with none, nothing.
    monkeypatch.setattr(memory, "usable_on", lambda _: 0 if recompute else 2**40)

    def recorded(*args, **kwargs):
        asked.append((kwargs["remat"], kwargs["layout"]))
        return attribute_prefixes(*args, **kwargs)

    monkeypatch.setattr(score, "attribute_prefixes", recorded)
    placed = Checkpoint(
        config=model.config, params=place_parameters(model.params, model.config, mesh)
    )
    score_texts(placed, texts[:1], numerics="float32", batch_tokens=100, mesh=mesh)
    ((remat, found),) = asked
    assert remat is recompute
    assert (found is None) == (mesh.size == 1)
    if found is not None:
        assert found.writes.mesh == mesh
