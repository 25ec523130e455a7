"""A pass over kept edges: the model with all of them, a literal torch program with any of them."""

import numpy as np
import pytest
import toys

from eap_jax.ablation import cut_losses
from eap_jax.circuit import circuit_losses
from eap_jax.graph import edge_mask, reader_names, writer_names

TOYS = ("window 5 above the first layer", "multi-query, head_dim 10, all biases")


def torch_losses(toy, params, texts, kept_BWR):
    """The loss of each text by torch, reading the kept writes only."""
    import torch
    import torch_eap

    model = toys.torch_model(toy, params)
    writers, readers = writer_names(toy.config.num_layers), reader_names(toy.config.num_layers)
    losses = []
    for text, kept_WR in zip(texts, kept_BWR, strict=True):
        kept = {(writers[w], readers[r]) for w, r in np.argwhere(kept_WR)}
        with torch.no_grad():
            losses.append(float(torch_eap.loss_of(model, text, kept=kept)[0]))
    return np.array(losses)


def losses(config, params, texts, kept_BWR):
    """The loss of each text by our program."""
    batch = toys.batch_of(texts)
    losses_BJ = circuit_losses(params, batch, np.asarray(kept_BWR), config=config)
    return np.sum(np.asarray(losses_BJ) * batch.weights_BJ, axis=1)


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_any_circuit_equals_the_torch_programs(name, share, torch):
    toy = toys.ZOO[name]
    params, texts = toys.random_params(toy.config), toys.random_texts(toy.config)
    mask_WR = edge_mask(toy.config.num_layers)
    draw_BWR = np.random.default_rng(3).random((len(texts), *mask_WR.shape))
    kept_BWR = (draw_BWR < share) & mask_WR
    found_B = losses(toy.config, params, texts, kept_BWR)
    np.testing.assert_allclose(found_B, torch_losses(toy, params, texts, kept_BWR), atol=1e-5)


def test_all_edges_are_the_model_and_entries_without_an_edge_do_not_matter(torch):
    import torch_eap

    toy = toys.ZOO["window 5 above the first layer"]
    params, texts = toys.random_params(toy.config), toys.random_texts(toy.config)
    every_BWR = np.ones((len(texts), *edge_mask(toy.config.num_layers).shape))
    found_B = losses(toy.config, params, texts, every_BWR)
    model = toys.torch_model(toy, params)
    with torch.no_grad():
        whole = [float(torch_eap.loss_of(model, text)[0]) for text in texts]
    np.testing.assert_allclose(found_B, whole, atol=1e-5)


def test_one_edge_missing_is_its_exact_ablation():
    config, texts = toys.MAIN, toys.random_texts(toys.MAIN)
    params, batch = toys.random_params(config), toys.batch_of(texts)
    mask_WR = edge_mask(config.num_layers)
    edges = [(int(w), int(r)) for w, r in np.argwhere(mask_WR)]
    effects_BE = cut_losses(params, batch, edges, config=config).effects(batch.weights_BJ)
    whole_B = losses(config, params, texts, [mask_WR] * len(texts))
    for place, edge in enumerate(edges):
        kept_WR = mask_WR.copy()
        kept_WR[edge] = False
        cut_B = losses(config, params, texts, [kept_WR] * len(texts))
        np.testing.assert_allclose(cut_B - whole_B, effects_BE[:, place], atol=2e-5)


def test_texts_do_not_share_their_circuits():
    config, texts = toys.MAIN, toys.random_texts(toys.MAIN)
    params, mask_WR = toys.random_params(config), edge_mask(config.num_layers)
    kept_BWR = np.stack([mask_WR, mask_WR & False, mask_WR & (np.arange(13) % 2 == 0)])
    together_B = losses(config, params, texts, kept_BWR)
    for row, text in enumerate(texts):
        alone_B = losses(config, params, [text], kept_BWR[row : row + 1])
        assert alone_B[0] == pytest.approx(together_B[row], abs=1e-5)


def test_a_matrix_of_another_shape_is_refused():
    config, texts = toys.MAIN, toys.random_texts(toys.MAIN)
    params, batch = toys.random_params(config), toys.batch_of(texts)
    with pytest.raises(ValueError, match=r"kept: expected \[3, 7, 13\]"):
        circuit_losses(params, batch, np.ones((3, 7, 12)), config=config)
