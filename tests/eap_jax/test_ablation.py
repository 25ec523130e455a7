"""The loss with an edge cut is that of a literal torch program that takes the write out of the read."""

import dataclasses

import jax
import numpy as np
import pytest
import toys
from failed_array import FailedArray

from eap_jax import ablation
from eap_jax.ablation import cut_losses
from eap_jax.graph import edge_mask, reader_names, writer_names
from eap_jax.sharding import make_mesh, place_batch, place_parameters
from eap_jax.transformer import Taps, Transformer

TOYS = ("window 5 above the first layer", "multi-query, head_dim 10, all biases")


def edges_of(config) -> list[tuple[int, int]]:
    """Every edge, (writer, reader)."""
    return [(int(w), int(r)) for w, r in np.argwhere(edge_mask(config.num_layers))]


def ablated(config, params, texts, **options):
    batch = toys.batch_of(texts)
    found = cut_losses(params, batch, edges_of(config), config=config, **options)
    return found, found.effects(batch.weights_BJ)


@pytest.mark.parametrize("name", TOYS)
def test_every_effect_equals_the_torch_programs(name, torch):
    import torch_eap

    toy = toys.ZOO[name]
    params, texts = toys.random_params(toy.config), toys.random_texts(toy.config)
    found, effects_BE = ablated(toy.config, params, texts)
    model = toys.torch_model(toy, params)
    writers, readers = writer_names(toy.config.num_layers), reader_names(toy.config.num_layers)
    with torch.no_grad():
        for row, text in enumerate(texts):
            whole = float(torch_eap.loss_of(model, text)[0])
            count = len(text.answer)
            assert found.whole_BJ[row, :count].mean() == pytest.approx(whole, abs=1e-5)
            for place, (w, r) in enumerate(edges_of(toy.config)):
                cut = float(torch_eap.loss_of(model, text, (writers[w], readers[r]))[0])
                assert effects_BE[row, place] == pytest.approx(cut - whole, abs=1e-4)


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_a_cut_is_a_forward_pass_with_a_tap(share):
    """The same through the whole model's own taps, from the first layer on."""
    config, texts = toys.MAIN, toys.random_texts(toys.MAIN)
    params, batch = toys.random_params(config), toys.batch_of(texts)
    found, _ = ablated(config, params, texts, share=share)
    forward = jax.jit(
        lambda taps: Transformer(config).apply({"params": params}, batch.tokens_BT, taps)
    )
    clean = forward(Taps.zeros(config, *batch.tokens_BT.shape))
    writes_WBTD = clean.writes.stacked()
    for place, (writer, reader) in enumerate(edges_of(config)):
        taps = Taps.zeros(config, *batch.tokens_BT.shape)
        tap_BTD = -share * writes_WBTD[writer]
        if reader == 4 * config.num_layers:
            taps = taps.replace(logits_BTD=tap_BTD)
        else:
            blocks = taps.blocks_L4BTD.at[reader // 4, reader % 4].set(tap_BTD)
            taps = taps.replace(blocks_L4BTD=blocks)
        logits_BTV = forward(taps).logits
        for row, text in enumerate(texts):
            first, count = len(text.prompt) - 1, len(text.answer)
            logits_JV = np.asarray(logits_BTV[row, first : first + count], np.float64)
            chosen_J = logits_JV[np.arange(count), list(text.answer)]
            expected_J = np.log(np.exp(logits_JV).sum(axis=1)) - chosen_J
            np.testing.assert_allclose(found.cut_EBJ[place, row, :count], expected_J, atol=2e-5)


def test_effects_do_not_depend_on_what_runs_together():
    """Not on the rows at once, on the other texts, on the order of edges or on a repeated one."""
    config, texts = toys.MAIN, toys.random_texts(toys.MAIN)
    params = toys.random_params(config)
    _, together_BE = ablated(config, params, texts, rows=1000)
    _, apart_BE = ablated(config, params, texts, rows=1)
    np.testing.assert_allclose(apart_BE, together_BE, atol=1e-5)
    _, alone_BE = ablated(config, params, texts[1:2], rows=5)
    np.testing.assert_allclose(alone_BE[0], together_BE[1], atol=1e-5)
    batch = toys.batch_of(texts)
    order = [30, 2, 30, 11]
    edges = edges_of(config)
    some = cut_losses(params, batch, [edges[i] for i in order], config=config)
    np.testing.assert_allclose(some.effects(batch.weights_BJ), together_BE[:, order], atol=1e-5)


def test_a_small_share_has_the_slope_that_the_score_is():
    """Finite differences: the effect of taking 1e-3 of a write is 1e-3 of the edge's score."""
    from eap_jax.attribution import attribute

    config, texts = toys.MAIN, toys.random_texts(toys.MAIN)
    params, batch = toys.random_params(config), toys.batch_of(texts)
    scores_BWR = np.asarray(attribute(params, batch, config=config).scores_BWR)
    plus, minus = (ablated(config, params, texts, share=sign * 1e-2)[1] for sign in (1, -1))
    slopes_BE = (plus - minus) / 2e-2
    expected_BE = np.stack([scores_BWR[:, w, r] for w, r in edges_of(config)], axis=1)
    assert toys.relative(slopes_BE, expected_BE) <= 2e-3


@pytest.mark.parametrize("text", ["data:2", "model:2"])
def test_several_devices_give_the_effects_of_one_and_divide_the_texts(text, monkeypatch):
    config = toys.MAIN
    params = toys.random_params(config)
    batch = toys.batch_of(toys.random_texts(config, ((3, 5), (7, 2), (1, 9), (4, 4))))
    edges = edges_of(config)
    expected = cut_losses(params, batch, edges, config=config)
    mesh, original, rows = make_mesh(text), ablation.losses_at_head, set()
    assert mesh.size == 2

    def head(params, batch, last_EBTD, **settings):
        rows.add(last_EBTD.sharding.shard_shape(last_EBTD.shape)[1])
        return original(params, batch, last_EBTD, **settings)

    monkeypatch.setattr(ablation, "losses_at_head", head)
    found = cut_losses(
        place_parameters(params, config, mesh), place_batch(batch, mesh), edges, config=config
    )
    np.testing.assert_allclose(found.whole_BJ, expected.whole_BJ, atol=1e-5)
    np.testing.assert_allclose(found.cut_EBJ, expected.cut_EBJ, atol=1e-5)
    assert rows == {4 // mesh.shape["data"]}


def test_progress_counts_every_edge():
    config, counted = toys.MAIN, []
    params, texts = toys.random_params(config), toys.random_texts(config)
    ablated(config, params, texts, rows=9, progress=counted.append)
    assert sum(counted) == len(edges_of(config))


@pytest.mark.parametrize("edge", [(3, 0), (0, 13), (-1, 4), (7, 12)])
def test_an_edge_that_does_not_exist_is_refused(edge):
    config = dataclasses.replace(toys.MAIN, num_layers=3)
    params, batch = toys.random_params(config), toys.batch_of(toys.random_texts(config))
    with pytest.raises(ValueError, match="no edge leads"):
        cut_losses(params, batch, [edge], config=config)


def test_no_edges_are_no_effects():
    params, texts = toys.random_params(toys.MAIN), toys.random_texts(toys.MAIN)
    batch = toys.batch_of(texts)
    found = cut_losses(params, batch, [], config=toys.MAIN)
    assert found.effects(batch.weights_BJ).shape == (len(texts), 0)


def test_a_cut_whose_allocation_failed_ends_in_its_error(monkeypatch):
    config = toys.ZOO[TOYS[0]].config
    texts = toys.random_texts(config)
    failed = FailedArray(1, len(texts), max(len(text.answer) for text in texts))
    monkeypatch.setattr(ablation, "losses_at_head", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="^RESOURCE_EXHAUSTED"):
        ablated(config, toys.random_params(config), texts)
