"""The transformer against transformers + torch, its taps and writes, and its equivalent forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax.parameters import parameter_axes, parameter_shapes
from eap_jax.transformer import Taps, Transformer, init_parameters

every_toy = pytest.mark.parametrize("toy", toys.ZOO.values(), ids=toys.ZOO.keys())


@functools.partial(jax.jit, static_argnames=("config", "scan", "remat"))
def forward(params, tokens_BT, taps=None, positions_BJ=None, *, config, scan=True, remat=False):
    model = Transformer(config, scan=scan, remat=remat)
    return model.apply({"params": params}, tokens_BT, taps, positions_BJ)


@pytest.fixture(scope="module")
def main():
    """Parameters, tokens and taps of the main toy."""
    config = toys.MAIN
    tokens_BT = toys.random_tokens(config, 3, 12)
    rng = np.random.default_rng(5)
    taps = jax.tree.map(
        lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), Taps.zeros(config, 3, 12)
    )
    return toys.random_params(config), tokens_BT, taps


def torch_logits(torch, toy, params, tokens_BT):
    with torch.no_grad():
        return toys.torch_model(toy, params)(
            torch.tensor(tokens_BT, dtype=torch.long)
        ).logits.numpy()


@every_toy
def test_logits_equal_transformers_on_long_texts(torch, toy):
    """512 and 2,048 tokens: short texts hide faults of rotary angles and windows."""
    params = toys.random_params(toy.config)
    for length, rows in ((512, 2), (2048, 1)):
        tokens_BT = toys.random_tokens(toy.config, rows, length)
        found = np.asarray(forward(params, tokens_BT, config=toy.config).logits)
        expected = torch_logits(torch, toy, params, tokens_BT)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("series", toys.SERIES)
def test_logits_of_golden_checkpoints_equal_transformers_loading_them_itself(torch, series):
    import transformers

    config, params = toys.golden_checkpoint(series, "rl")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        toys.GOLDEN / "checkpoints" / f"toy_{series}_rl", dtype=torch.float32
    )
    tokens_BT = toys.random_tokens(config, 2, 50)
    with torch.no_grad():
        expected = model(torch.tensor(tokens_BT, dtype=torch.long)).logits.numpy()
    found = np.asarray(forward(params, tokens_BT, config=config).logits)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_bfloat16_logits_equal_transformers_in_bfloat16(torch):
    """Same cast order: the difference stays at bfloat16 rounding, far below a misplaced cast."""
    toy = toys.ZOO["grouped, q/k/v biases, theta 1e6"]
    params = toys.random_params(toy.config)
    tokens_BT = toys.random_tokens(toy.config, 2, 64)
    with torch.no_grad():
        model = toys.torch_model(toy, params).to(torch.bfloat16)
        expected = model(torch.tensor(tokens_BT, dtype=torch.long)).logits.float().numpy()
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    logits = forward(low, tokens_BT, config=toy.config).logits
    assert logits.dtype == jnp.bfloat16
    exact = torch_logits(torch, toy, params, tokens_BT)
    noise = toys.relative(expected, exact)
    assert toys.relative(np.asarray(logits, np.float32), exact) <= 1.2 * noise


@every_toy
def test_writes_sum_to_what_the_final_norm_reads(toy):
    """Nothing else enters the stream: logits follow from the sum of the writes alone."""
    params = toys.random_params(toy.config)
    output = forward(params, toys.random_tokens(toy.config, 2, 9), config=toy.config)
    stream = np.asarray(output.writes.stacked(), np.float64).sum(axis=0)
    assert output.writes.stacked().shape == (
        1 + 2 * toy.config.num_layers,
        2,
        9,
        toy.config.d_model,
    )
    root = np.sqrt((stream**2).mean(axis=-1, keepdims=True) + toy.config.norm_eps)
    head = params["embed"] if toy.config.tied_embeddings else params["head"]
    expected = (stream / root * params["final_norm"]) @ head.T
    assert toys.relative(output.logits, expected) <= 1e-5


def test_writes_and_reads_equal_those_seen_by_hooks(torch):
    import torch_eap

    toy = toys.ZOO["window 5 above the first layer"]
    params = toys.random_params(toy.config)
    tokens = toys.random_tokens(toy.config, 1, 11)
    state = torch_eap.run(toys.torch_model(toy, params), tokens[0].tolist())
    writes = forward(params, tokens, config=toy.config).writes.stacked()[:, 0]
    assert len(state.writes) == len(writes)
    for found, (name, expected) in zip(writes, state.writes.items(), strict=True):
        assert toys.relative(found, expected.detach()) <= 1e-5, name


def test_zero_taps_change_nothing(main):
    params, tokens_BT, _ = main
    plain = forward(params, tokens_BT, config=toys.MAIN)
    zero = forward(params, tokens_BT, Taps.zeros(toys.MAIN, *tokens_BT.shape), config=toys.MAIN)
    np.testing.assert_array_equal(plain.logits, zero.logits)


@pytest.mark.parametrize("read", [*range(4), "logits"])
def test_a_tap_perturbs_its_own_branch_and_not_the_skip_path(main, read):
    """A tap of layer 1 leaves every earlier write alone; one on the logits leaves all alone."""
    params, tokens_BT, taps = main
    zeros = Taps.zeros(toys.MAIN, *tokens_BT.shape)
    if read == "logits":
        one, untouched = zeros.replace(logits_BTD=taps.logits_BTD), 7
    else:
        blocks = zeros.blocks_L4BTD.at[1, read].set(taps.blocks_L4BTD[1, read])
        one, untouched = zeros.replace(blocks_L4BTD=blocks), 4 if read == 3 else 3
    plain = forward(params, tokens_BT, config=toys.MAIN)
    tapped = forward(params, tokens_BT, one, config=toys.MAIN)
    before, after = plain.writes.stacked(), tapped.writes.stacked()
    np.testing.assert_array_equal(before[:untouched], after[:untouched])
    assert toys.relative(tapped.logits, plain.logits) > 1e-3
    for write in range(untouched, 7):
        assert toys.relative(after[write], before[write]) > 1e-5
    # The stream is still the sum of the writes: the tap itself never enters it.
    stream = np.asarray(after.sum(axis=0), np.float64)
    stream += 0 if read != "logits" else taps.logits_BTD
    root = np.sqrt((stream**2).mean(axis=-1, keepdims=True) + toys.MAIN.norm_eps)
    expected = (stream / root * params["final_norm"]) @ params["head"].T
    assert toys.relative(tapped.logits, expected) <= 1e-5


def outputs_and_gradients(params, tokens_BT, taps, **form):
    """Writes, logits, and the gradient at the taps of a loss over all logits."""

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(taps):
        output = forward(params, tokens_BT, taps, config=toys.MAIN, **form)
        return jnp.sum(jax.nn.log_softmax(output.logits)[..., 3]), output

    gradient, output = run(taps)
    return output.writes.stacked(), output.logits, gradient.blocks_L4BTD, gradient.logits_BTD


@pytest.fixture(scope="module")
def scanned(main):
    return outputs_and_gradients(*main)


@pytest.mark.parametrize(
    "form", [{"scan": False}, {"remat": True}, {"scan": False, "remat": True}], ids=str
)
def test_unrolled_and_rematerialised_forms_equal_the_scan(main, scanned, form):
    for found, expected in zip(outputs_and_gradients(*main, **form), scanned, strict=True):
        assert toys.relative(found, expected) <= 1e-5


def test_remat_recomputes_the_blocks_instead_of_keeping_their_activations():
    """With remat the compiled gradient needs less memory: the flag is not a no-op."""
    config = toys.MAIN
    params = toys.random_params(config)
    tokens_BT = toys.random_tokens(config, 4, 96)
    taps = Taps.zeros(config, 4, 96)

    def memory(remat):
        def loss(taps):
            return forward(params, tokens_BT, taps, config=config, remat=remat).logits.sum()

        return jax.jit(jax.grad(loss)).lower(taps).compile().memory_analysis().temp_size_in_bytes

    assert memory(remat=True) < 0.8 * memory(remat=False)


def test_forward_without_jit_equals_jitted(main):
    params, tokens_BT, taps = main
    expected = forward(params, tokens_BT, taps, config=toys.MAIN)
    with jax.disable_jit():
        found = forward(params, tokens_BT, taps, config=toys.MAIN)
    assert toys.relative(found.logits, expected.logits) <= 1e-5
    assert toys.relative(found.writes.stacked(), expected.writes.stacked()) <= 1e-5


def test_padding_and_the_rows_beside_it_do_not_reach_a_text(main):
    """Right padding of any content, in a batch of any size, leaves a text's logits alone."""
    params, tokens_BT, _ = main
    alone = forward(params, tokens_BT[1:2, :7], config=toys.MAIN).logits
    beside = tokens_BT.copy()
    beside[1, 7:] = 60
    together = forward(params, beside, config=toys.MAIN).logits
    assert toys.relative(together[1:2, :7], alone) <= 1e-6


def test_logits_at_chosen_positions_are_rows_of_all_logits(main):
    params, tokens_BT, _ = main
    positions_BJ = np.asarray([[0, 11, 3], [5, 5, 1], [10, 0, 2]], np.int32)
    chosen = forward(params, tokens_BT, None, positions_BJ, config=toys.MAIN).logits
    every = forward(params, tokens_BT, config=toys.MAIN).logits
    assert chosen.shape == (3, 3, toys.MAIN.vocab_size)
    assert toys.relative(chosen, every[np.arange(3)[:, None], positions_BJ]) <= 1e-6


@every_toy
def test_parameter_tree_and_shapes_are_the_declared_ones(toy):
    params = jax.eval_shape(lambda: init_parameters(toy.config, jax.random.key(0), jnp.bfloat16))
    assert jax.tree.map(lambda leaf: leaf.shape, params) == parameter_shapes(toy.config)
    assert jax.tree.structure(params) == jax.tree.structure(parameter_axes(toy.config))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert toy.config.num_parameters == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_initial_parameters_differ_between_layers_and_follow_the_key():
    first, other = (init_parameters(toys.MAIN, jax.random.key(n)) for n in (0, 1))
    for name in ("q", "down"):
        layers = np.asarray(first["blocks"][name])
        assert toys.relative(layers[1:], layers[:-1]) > 0.5
        assert toys.relative(other["blocks"][name], layers) > 0.5
        assert layers.std() == pytest.approx(0.02, rel=0.1)
    assert not np.asarray(first["blocks"]["q_bias"]).any()
    assert (np.asarray(first["blocks"]["mlp_norm"]) == 1).all()
