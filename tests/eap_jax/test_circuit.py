"""A pass over kept edges: the model with all of them, a literal torch program with any of them."""

import numpy as np
import pytest
import toys

from eap_jax.ablation import cut_losses
from eap_jax.circuit import circuit_losses, mean_writes
from eap_jax.graph import edge_mask, reader_names, writer_names

TOYS = ("window 5 above the first layer", "multi-query, head_dim 10, all biases")


def torch_losses(toy, params, texts, kept_BWR, mean=False):
    """The loss of each text by torch, reading the kept writes, and `mean` ones of the others."""
    import torch
    import torch_eap

    model = toys.torch_model(toy, params)
    writers, readers = writer_names(toy.config.num_layers), reader_names(toy.config.num_layers)
    means = torch_eap.mean_writes(model, texts) if mean else None
    losses = []
    for text, kept_WR in zip(texts, kept_BWR, strict=True):
        kept = {(writers[w], readers[r]) for w, r in np.argwhere(kept_WR)}
        with torch.no_grad():
            losses.append(float(torch_eap.loss_of(model, text, kept=kept, means=means)[0]))
    return np.array(losses)


def losses(config, params, texts, kept_BWR, means_WD=None):
    """The loss of each text by our program."""
    batch = toys.batch_of(texts)
    losses_BJ = circuit_losses(params, batch, np.asarray(kept_BWR), means_WD, config=config)
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


@pytest.mark.parametrize("name", TOYS)
def test_mean_writes_are_the_torch_programs_whatever_the_padding(name, torch):
    import torch_eap

    toy = toys.ZOO[name]
    params, texts = toys.random_params(toy.config), toys.random_texts(toy.config)
    assert len({len(text.prompt) + len(text.answer) for text in texts}) > 1, (
        "texts differ in length"
    )
    means_BWD = mean_writes(params, toys.batch_of(texts), config=toy.config)
    expected = torch_eap.mean_writes(toys.torch_model(toy, params), texts)
    assert tuple(expected) == writer_names(toy.config.num_layers)
    np.testing.assert_allclose(
        means_BWD.mean(axis=0), torch.stack(tuple(expected.values())).numpy(), atol=1e-6
    )
    filled = toys.batch_of(texts, garbage=np.random.default_rng(0))
    filled.weights_BJ[1] = 0
    found_BWD = mean_writes(params, filled, config=toy.config)
    np.testing.assert_allclose(found_BWD[::2], means_BWD[::2], atol=1e-6)
    assert not found_BWD[1].any(), "a row of padding"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_any_circuit_with_means_equals_the_torch_programs(share, torch):
    """In place of zero a reader gets the mean of each writer that is cut off from it."""
    toy = toys.ZOO[TOYS[0]]
    params, texts = toys.random_params(toy.config), toys.random_texts(toy.config)
    mask_WR = edge_mask(toy.config.num_layers)
    draw_BWR = np.random.default_rng(4).random((len(texts), *mask_WR.shape))
    kept_BWR = (draw_BWR < share) & mask_WR
    means_WD = mean_writes(params, toys.batch_of(texts), config=toy.config).mean(axis=0)
    found_B = losses(toy.config, params, texts, kept_BWR, means_WD)
    expected_B = torch_losses(toy, params, texts, kept_BWR, mean=True)
    np.testing.assert_allclose(found_B, expected_B, atol=1e-5)
    by_zero_B = losses(toy.config, params, texts, kept_BWR)
    assert (abs(found_B - by_zero_B).max() > 1e-2) == (share < 1), "a mean is not zero"


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
    with pytest.raises(ValueError, match=r"means: expected \[7, 24\]"):
        circuit_losses(params, batch, np.ones((3, 7, 13)), np.ones((6, 24)), config=config)
