"""The steps of a pass one by one: writes by the whole model, contraction and order by hand."""

import jax
import numpy as np
import pytest
import toys

from eap_jax import steps
from eap_jax.block import Layer
from eap_jax.graph import edge_mask, reader_names
from eap_jax.places import Kind
from eap_jax.transformer import Transformer

CONFIG = toys.MAIN
PARAMS = toys.random_params(CONFIG)
TOKENS_BT = toys.random_tokens(CONFIG, 2, 9)


def layer_of(number: int) -> Layer:
    return Layer(
        params={name: leaf[number] for name, leaf in PARAMS["blocks"].items()},
        number=number,
        kind=Kind.each(CONFIG)[number],
    )


@pytest.fixture(scope="module")
def forward():
    """The last state and the activations of each layer, step by step."""
    state, kept = steps.start(CONFIG, None, PARAMS, TOKENS_BT), []
    for number in range(CONFIG.num_layers):
        state, activations = steps.forward_step(CONFIG, None, layer_of(number), state)
        kept.append(activations)
    return state, kept


def test_steps_collect_the_writes_of_the_whole_model_and_their_sum_is_the_stream(forward):
    state, _ = forward
    output = jax.jit(Transformer(CONFIG).apply)({"params": PARAMS}, TOKENS_BT)
    expected_WBTD = np.asarray(output.writes.stacked())
    assert toys.relative(np.moveaxis(state.writes_BWTD, 1, 0), expected_WBTD) <= 1e-5
    assert toys.relative(state.stream_BTD, expected_WBTD.sum(axis=0)) <= 1e-5


@pytest.mark.parametrize("number", [0, 2])
def test_activations_computed_again_from_the_writes_give_the_same_step_back(forward, number):
    """For two losses, the first on a prefix."""
    state, kept = forward
    rng = np.random.default_rng(0)
    grads = tuple(
        rng.normal(size=(2, length, CONFIG.d_model)).astype(np.float32) for length in (5, 9)
    )
    found = [
        steps.backward_step(
            CONFIG, None, layer_of(number),
            steps.Passed(writes_BWTD=state.writes_BWTD, kept=given), grads,
        )
        for given in (kept[number], None)
    ]  # fmt: skip
    assert found[0][1].shape == (2, 7, 8)
    assert [grad.shape[1] for grad in found[0][0]] == [5, 9]
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        assert toys.relative(one, other) <= 1e-5


def test_scores_of_layers_and_head_are_put_under_their_readers_names():
    """Each score is a number that tells its loss, layer and read."""
    rows, writers, losses, layers = 2, 5, 2, 2
    scores = np.zeros((layers, rows, writers, 4 * losses), np.float32)
    for layer, loss, read in np.ndindex(layers, losses, 4):
        scores[layer, :, :, 4 * loss + read] = 100 * (loss + 1) + 10 * layer + read
    head = steps.Head(
        grads=(),
        scores_BWA=np.broadcast_to(np.asarray([7, 8], np.float32), (rows, writers, losses)),
        losses=(np.zeros(rows), np.ones(rows)),
        target_losses_BJ=np.full((rows, 3), 5.0),
        gradient_norms=(np.full(rows, 2.0), np.full(rows, 3.0)),
    )
    found = steps.finish(scores, head, "qkv")
    assert len(found) == losses
    for loss, result in enumerate(found):
        by_name = dict(zip(reader_names(layers), np.asarray(result.scores_BWR[0, 0]), strict=True))
        for layer in range(layers):
            names = (f"a{layer}<q>", f"a{layer}<k>", f"a{layer}<v>", f"m{layer}")
            for read, name in enumerate(names):
                assert by_name[name] == 100 * (loss + 1) + 10 * layer + read
        assert by_name["logits"] == 7 + loss
        assert not np.asarray(result.scores_BWR)[:, ~edge_mask(layers)].any()
        assert result.loss_B.tolist() == [loss] * rows
        assert result.gradient_norm_B.tolist() == [2 + loss] * rows
        np.testing.assert_array_equal(result.target_losses_BJ, head.target_losses_BJ)
