"""Branch-exact scores are those of a literal torch program that runs the reader without the write."""

import functools

import jax
import numpy as np
import pytest
import toys
from hf_folder import write_toy

from converters.stored import StoredWeights
from eap_jax.ablation import cut_losses
from eap_jax.attribution import attribute_prefixes
from eap_jax.graph import edge_mask, reader_names, writer_names
from eap_jax.sharding import layout, make_mesh, place_batch, place_parameters
from eap_jax.steps import Work
from eap_jax.streaming import attribute_streamed

TOYS = ("window 5 above the first layer", "multi-query, head_dim 10, all biases")


@functools.cache
def scored(name: str, **options):
    """Scores [B, W, R] of both a whole loss and one on the first two answer tokens."""
    config, params, batch = made(name)
    short_BJ = np.where(np.arange(batch.weights_BJ.shape[1]) < 2, batch.weights_BJ, 0)
    length = batch.tokens_BT.shape[1]
    found = attribute_prefixes(
        params, batch, (batch.weights_BJ, short_BJ), lengths=(length, length - 1), config=config,
        estimator="branch", **options,
    )  # fmt: skip
    return [np.asarray(one.scores_BWR) for one in found]


def made(name: str):
    config = toys.ZOO[name].config
    return config, toys.random_params(config), toys.batch_of(toys.random_texts(config))


@pytest.mark.parametrize("name", TOYS)
def test_every_score_equals_the_torch_programs(name, torch):
    import torch_eap

    toy = toys.ZOO[name]
    model = toys.torch_model(toy, toys.random_params(toy.config))
    layers = toy.config.num_layers
    writers, readers = writer_names(layers), reader_names(layers)
    found_BWR = scored(name)[0]
    for row, text in enumerate(toys.random_texts(toy.config)):
        expected_WR = np.zeros(found_BWR.shape[1:])
        for (writer, reader), score in torch_eap.branch_scores(model, text).items():
            expected_WR[writers.index(writer), readers.index(reader)] = score
        assert (expected_WR != 0)[edge_mask(layers)].all()
        for kind in ("<q>", "<k>", "<v>", "m", "logits"):
            columns = [
                r for r, name in enumerate(readers) if name.endswith(kind) or name[0] == kind
            ]
            # A column of its own, or the largest would hide the others.
            error = toys.relative(found_BWR[row][:, columns], expected_WR[:, columns])
            assert error <= 1e-5, kind
        assert toys.relative(found_BWR[row], expected_WR) <= 1e-5


@pytest.mark.parametrize("name", TOYS)
def test_the_logits_column_is_the_exact_effect_for_every_loss(name):
    config, params, batch = made(name)
    edges = [(writer, 4 * config.num_layers) for writer in range(1 + 2 * config.num_layers)]
    cut = cut_losses(params, batch, edges, config=config)
    whole_BWR, short_BWR = scored(name)
    np.testing.assert_allclose(whole_BWR[:, :, -1], cut.effects(batch.weights_BJ), atol=1e-5)
    short_BJ = np.where(np.arange(batch.weights_BJ.shape[1]) < 2, batch.weights_BJ, 0)
    np.testing.assert_allclose(short_BWR[:, :, -1], cut.effects(short_BJ), atol=1e-5)


@pytest.mark.parametrize("options", [{"together": 3}, {"remat": True, "most_logits": 200}])
def test_scores_do_not_depend_on_writers_together_nor_on_what_is_kept(options):
    for one, other in zip(scored(TOYS[0]), scored(TOYS[0], **options), strict=True):
        assert toys.relative(other, one) <= 1e-5


def test_a_streamed_model_has_the_same_scores(tmp_path):
    toy = toys.ZOO[TOYS[0]]
    config, params, batch = made(TOYS[0])
    write_toy(tmp_path, toy, params)
    work = Work(batch=batch, weights_ABJ=(batch.weights_BJ,), lengths=(batch.tokens_BT.shape[1],))
    with StoredWeights(tmp_path) as stored:
        ((found,),) = attribute_streamed(
            stored, [work], config=config, estimator="branch", keep_layers=1
        )
    assert toys.relative(found.scores_BWR, scored(TOYS[0])[0]) <= 1e-5


def test_two_devices_have_the_same_scores():
    config, params, batch = made(TOYS[0])
    mesh = make_mesh("model:2")
    placed = place_batch(batch, mesh)
    (found,) = attribute_prefixes(
        place_parameters(params, config, mesh), placed, (placed.weights_BJ,),
        lengths=(batch.tokens_BT.shape[1],), config=config, estimator="branch",
        layout=layout(mesh, batch.tokens_BT.shape[1]),
    )  # fmt: skip
    assert toys.relative(jax.device_get(found.scores_BWR), scored(TOYS[0])[0]) <= 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "relp"}, "estimator: expected eap or branch, found 'relp'"),
        ({"estimator": "branch", "granularity": "block"}, "expected granularity qkv"),
    ],
)
def test_what_there_is_not_is_refused(options, message):
    config, params, batch = made(TOYS[0])
    with pytest.raises(ValueError, match=message):
        attribute_prefixes(
            params, batch, (batch.weights_BJ,), lengths=(batch.tokens_BT.shape[1],),
            config=config, **options,
        )  # fmt: skip
