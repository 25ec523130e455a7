"""Gradients of one block and of the head against torch, autodiff of the whole block and formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax.backward import at_positions, block_gradients, head_gradients
from eap_jax.block import Block, Layer
from eap_jax.objective import self_entropy
from eap_jax.places import Kind, Places

TOY = toys.ZOO["window 5 above the first layer"]
CONFIG = TOY.config
NUMBER, LENGTH = 1, 11


@pytest.fixture(scope="module")
def case():
    """A layer with a window, its stream, activations and writes, and a gradient after it."""
    rng = np.random.default_rng(4)
    stream, grad = rng.normal(size=(2, 2, LENGTH, CONFIG.d_model)).astype(np.float32)
    blocks = toys.random_params(CONFIG)["blocks"]
    layer = Layer(
        params={name: leaf[NUMBER] for name, leaf in blocks.items()},
        number=NUMBER,
        kind=Kind.each(CONFIG)[NUMBER],
    )
    places = Places.of_texts(CONFIG, LENGTH)
    _, (writes, kept) = Block(CONFIG).apply({"params": layer.params}, stream, places, layer.kind)
    return layer, stream, grad, writes[0], kept


def test_stage_by_stage_equals_autodiff_of_the_whole_tapped_block(case):
    layer, stream, grad, attention, kept = case

    def total(stream, taps):
        places = Places.of_texts(CONFIG, LENGTH)
        after, _ = Block(CONFIG).apply({"params": layer.params}, stream, places, layer.kind, taps)
        return jnp.sum(after * grad)

    taps = np.zeros((4, *stream.shape), np.float32)
    expected_before, expected_reads = jax.grad(total, argnums=(0, 1))(stream, taps)
    for given in (kept, stream):
        reads, before = block_gradients(CONFIG, layer, given, attention, grad)
        assert toys.relative(before, expected_before) <= 1e-5
        assert toys.relative(np.moveaxis(np.asarray(reads), 1, 0), expected_reads) <= 1e-5


def test_the_gradient_before_the_layer_equals_torch_autograd(torch, case):
    layer, stream, grad, attention, kept = case
    model = toys.torch_model(TOY, toys.random_params(CONFIG))
    x = torch.tensor(stream, requires_grad=True)
    places = torch.arange(LENGTH)[None]
    distance = places.T - places
    seen = (distance >= 0) & (distance < CONFIG.layer_windows[NUMBER])
    mask = torch.zeros(1, 1, LENGTH, LENGTH).masked_fill(~seen, float("-inf"))
    after = model.model.layers[NUMBER](
        x, attention_mask=mask, position_ids=places,
        position_embeddings=model.model.rotary_emb(x, places),
    )  # fmt: skip
    after = after[0] if isinstance(after, tuple) else after
    (after * torch.tensor(grad)).sum().backward()
    _, before = block_gradients(CONFIG, layer, kept, attention, grad)
    assert toys.relative(before, x.grad.numpy()) <= 1e-5


@pytest.mark.parametrize("most_logits", [1, 4 * 2 * CONFIG.vocab_size, 10**9])
def test_losses_and_gradients_of_targets_equal_the_closed_formula(most_logits):
    """-log softmax after RMSNorm in float64; one, four and all nine positions at a time."""
    rng = np.random.default_rng(2)
    params = toys.random_params(CONFIG)
    batch = toys.batch_of(toys.random_texts(CONFIG, ((3, 9), (2, 9))))
    stream = rng.normal(size=(2, batch.tokens_BT.shape[1], CONFIG.d_model)).astype(np.float32)
    losses, grads = head_gradients(
        CONFIG, self_entropy, params, stream, batch, most_logits=most_logits
    )
    assert losses.dtype == grads.dtype == jnp.float32
    head, gain = params["head"].astype(np.float64), params["final_norm"].astype(np.float64)
    expected_losses, expected = np.zeros(losses.shape), np.zeros(grads.shape)
    for place in np.ndindex(losses.shape):
        x = stream[place[0], batch.positions_BJ[place]].astype(np.float64)
        root = np.sqrt((x**2).mean() + CONFIG.norm_eps)
        logits = head @ (gain * x / root)
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        expected_losses[place] = -np.log(chances[batch.targets_BJ[place]])
        chances[batch.targets_BJ[place]] -= 1
        back = gain * (head.T @ chances)
        expected[place] = back / root - x * (x @ back) / (len(x) * root**3)
    assert toys.relative(losses, expected_losses) <= 1e-5
    assert toys.relative(grads, expected) <= 1e-5


def test_gradients_at_one_place_add_up_and_those_beyond_the_length_are_dropped():
    grads_BJD = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    positions_BJ = np.asarray([[0, 2, 2, 4], [1, 1, 1, 9]])
    expected = np.zeros((2, 4, 3))
    for row, column in np.ndindex(2, 4):
        if positions_BJ[row, column] < 4:
            expected[row, positions_BJ[row, column]] += grads_BJD[row, column]
    found = at_positions(grads_BJD, positions_BJ, 4, jnp.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert at_positions(grads_BJD, positions_BJ, 4, jnp.bfloat16).dtype == jnp.bfloat16
