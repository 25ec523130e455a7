"""Edge scores against the published program, a torch program, literal taps and real ablation."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from converters.load import load_checkpoint
from eap_jax.attribution import attribute
from eap_jax.block import Places
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_mask, num_edges, reader_names, to_block, writer_names
from eap_jax.metrics import column_sum_residual
from eap_jax.objective import Batch, self_entropy
from eap_jax.parameters import parameter_shapes
from eap_jax.transformer import Taps, Transformer
from experiments.responses.published_format import read_rows
from experiments.scoring.selection import select, truncate
from experiments.study.rule import Rule

# What the golden checkpoints do not have: all biases, odd head sizes, a tied head, mixed windows.
every_toy = pytest.mark.parametrize(
    "name",
    [
        "multi-query, head_dim 10, all biases",
        "window 7, tied head",
        "window 5 above the first layer",
        "llama3 scaling",
    ],
)


@functools.partial(jax.jit, static_argnames="config")
def weighted_loss(taps, params, batch, *, config):
    """Summed loss of a tapped model, its layers unrolled, with (loss [B], writes [W, B, T, D])."""
    model = Transformer(config, scan=False)
    output = model.apply({"params": params}, batch.tokens_BT, taps, batch.positions_BJ)
    loss_B = jnp.sum(self_entropy(output.logits, batch.targets_BJ) * batch.weights_BJ, axis=1)
    return loss_B.sum(), (loss_B, output.writes.stacked())


tap_gradients = jax.jit(jax.grad(weighted_loss, has_aux=True), static_argnames="config")


def reads_of(taps: Taps) -> np.ndarray:
    """[R, B, T, D] float64 in the order of the matrix columns."""
    blocks = np.asarray(taps.blocks_L4BTD, np.float64)
    blocks = blocks.reshape(-1, *blocks.shape[2:])
    return np.concatenate([blocks, np.asarray(taps.logits_BTD, np.float64)[None]])


def literal_scores(params, batch, config):
    """The definition: gradient at zero taps times writes, summed in float64; edges only."""
    zeros = Taps.zeros(config, *batch.tokens_BT.shape)
    gradient, (loss_B, writes) = tap_gradients(zeros, params, batch, config=config)
    writes_WBTD = np.asarray(writes, np.float64)
    scores_BWR = -np.einsum("WBTD,RBTD->BWR", writes_WBTD, reads_of(gradient))
    return scores_BWR * edge_mask(config.num_layers), np.asarray(loss_B)


@functools.cache
def case(name):
    """Parameters, texts, batch and engine result of a toy."""
    config = toys.ZOO[name].config
    params, texts = toys.random_params(config), toys.random_texts(config)
    batch = toys.batch_of(texts)
    return params, texts, batch, attribute(params, batch, config=config)


@pytest.fixture(scope="module")
def main():
    return case("window 5 above the first layer")


# Against the published program and other oracles.


@pytest.mark.parametrize("series", toys.SERIES)
@pytest.mark.parametrize("side", toys.SIDES)
def test_scores_equal_the_published_programs_golden_files(series, side):
    config, params = toys.golden_checkpoint(series, side)
    longest = toys.batch_of(toys.golden_texts(series, side, toys.ALPHAS[-1]))
    (_, length), (_, targets) = longest.tokens_BT.shape, longest.targets_BJ.shape
    for alpha in toys.ALPHAS:
        texts = toys.golden_texts(series, side, alpha)
        batch = toys.batch_of(texts, length=length, targets=targets)
        scores_BWR = attribute(params, batch, config=config).scores_BWR
        assert toys.relative(scores_BWR, toys.golden_scores(series, side, alpha)) <= 1e-5
        assert column_sum_residual(scores_BWR) <= 1e-4


@pytest.mark.parametrize("series", toys.SERIES)
@pytest.mark.parametrize("side", toys.SIDES)
def test_golden_weights_and_texts_are_those_that_the_program_itself_loads_and_selects(series, side):
    """So the golden test above speaks for loading and for selecting too."""
    checkpoint = load_checkpoint(toys.GOLDEN / "checkpoints" / f"toy_{series}_{side}")
    config, params = toys.golden_checkpoint(series, side)
    assert checkpoint.config == config
    jax.tree.map(np.testing.assert_array_equal, checkpoint.params, params)
    rows = read_rows(toys.GOLDEN / "responses" / series / "math" / "all_correct.jsonl")
    for alpha in toys.ALPHAS:
        selection = select(rows, Rule(alpha=alpha))
        found = [truncate(row, side, selection.cut) for row in selection.rows]
        expected = toys.golden_texts(series, side, alpha)
        assert [text.tokens for text in found] == [t.prompt + t.answer[:-1] for t in expected]
        assert [text.targets for text in found] == [t.answer for t in expected]


@every_toy
def test_scores_equal_the_literal_definition(name):
    params, _, batch, found = case(name)
    expected, loss_B = literal_scores(params, batch, toys.ZOO[name].config)
    for row in range(len(loss_B)):
        assert toys.relative(found.scores_BWR[row], expected[row]) <= 1e-5
    assert toys.relative(found.loss_B, loss_B) <= 1e-6
    assert found.scores_BWR.dtype == found.loss_B.dtype == jnp.float32


@every_toy
def test_read_gradients_scores_and_losses_equal_an_independent_torch_program(torch, name):
    """Each row alone and unpadded in torch; gradients reader by reader."""
    import torch_eap

    config = toys.ZOO[name].config
    params, texts, batch, found = case(name)
    model = toys.torch_model(toys.ZOO[name], params)
    writers, readers = writer_names(config.num_layers), reader_names(config.num_layers)
    zeros = Taps.zeros(config, *batch.tokens_BT.shape)
    gradient, _ = tap_gradients(zeros, params, batch, config=config)
    gradient_RBTD = reads_of(gradient)
    for row, text in enumerate(texts):
        expected, _, _ = torch_eap.tap_gradients(model, text)
        assert set(expected) == set(readers)
        length = len(text.prompt) + len(text.answer) - 1
        largest = max(float(g.norm()) for g in expected.values())
        for column, reader in enumerate(readers):
            difference = gradient_RBTD[column, row, :length] - expected[reader].double().numpy()
            # Relative to the reader's own gradient, but not below rounding of the largest one.
            scale = max(float(expected[reader].norm()), 1e-2 * largest)
            assert np.linalg.norm(difference) <= 1e-5 * scale, reader
        assert not gradient_RBTD[:, row, length:].any()
        scores, loss = torch_eap.edge_scores(model, text)
        matrix = np.zeros((len(writers), len(readers)))
        for (writer, reader), score in scores.items():
            matrix[writers.index(writer), readers.index(reader)] = score
        assert toys.relative(found.scores_BWR[row], matrix) <= 1e-5
        assert float(found.loss_B[row]) == pytest.approx(loss, rel=1e-5)
        # What `logits` reads is the last stream.
        norm = float(expected["logits"].norm())
        assert float(found.gradient_norm_B[row]) == pytest.approx(norm, rel=1e-5)
        mean = float(found.target_losses_BJ[row, : len(text.answer)].mean())
        assert mean == pytest.approx(loss, rel=1e-5)


@every_toy
def test_every_column_sums_to_zero_and_every_non_edge_is_exactly_zero(name):
    scores_BWR = np.asarray(case(name)[3].scores_BWR)
    assert column_sum_residual(scores_BWR) <= 1e-4
    assert not scores_BWR[:, ~edge_mask(toys.ZOO[name].config.num_layers)].any()
    # The input's edges to the queries and keys of layer 0 do not change with scale: all else lives.
    assert (np.abs(scores_BWR[:, :, 4:]).sum(axis=(0, 1)) > 0).all()


def test_logits_column_equals_the_closed_formula(main):
    """d loss / d stream of softmax after RMSNorm, written out in numpy float64."""
    params, _, batch, found = main
    _, (_, writes) = tap_gradients(
        Taps.zeros(toys.MAIN, *batch.tokens_BT.shape), params, batch, config=toys.MAIN
    )
    writes = np.asarray(writes, np.float64)
    head, gain = params["head"].astype(np.float64), params["final_norm"].astype(np.float64)
    stream = writes.sum(axis=0)
    expected = np.zeros(found.scores_BWR.shape[:2])
    for row, column in np.ndindex(batch.targets_BJ.shape):
        weight = batch.weights_BJ[row, column]
        place = batch.positions_BJ[row, column]
        x = stream[row, place]
        root = np.sqrt((x**2).mean() + toys.MAIN.norm_eps)
        logits = head @ (gain * x / root)
        error = np.exp(logits - logits.max())
        error /= error.sum()
        error[batch.targets_BJ[row, column]] -= 1
        back = gain * (head.T @ error)
        gradient = back / root - x * (x @ back) / (len(x) * root**3)
        expected[row] -= weight * writes[:, row, place] @ gradient
    assert toys.relative(found.scores_BWR[:, :, -1], expected) <= 1e-5


# Against what the scores stand for: the effect of edges on the loss.


def edge_taps(params, text, scale):
    """One row an edge: the text again, tapped with `scale` times the edge's write.

    Returns (edges, batch of E rows, taps).
    """
    edges = np.argwhere(edge_mask(toys.MAIN.num_layers))
    batch = toys.batch_of([text] * len(edges))
    zeros = Taps.zeros(toys.MAIN, *batch.tokens_BT.shape)
    _, (_, writes) = weighted_loss(zeros, params, batch, config=toys.MAIN)
    blocks, logits = np.zeros(zeros.blocks_L4BTD.shape, np.float32), np.zeros_like(zeros.logits_BTD)
    for row, (writer, reader) in enumerate(edges):
        tap = scale * np.asarray(writes[writer, row])
        if reader == 4 * toys.MAIN.num_layers:
            logits[row] = tap
        else:
            blocks[reader // 4, reader % 4, row] = tap
    return edges, batch, Taps(blocks, logits)


def test_score_is_the_first_order_effect_of_shrinking_each_edge(main):
    """Central differences of the loss along -write, every edge of a 3-layer model."""
    params, texts, _, found = main
    step = 0.02
    losses = []
    for sign in (1, -1):
        edges, batch, taps = edge_taps(params, texts[0], -sign * step)
        _, (loss_B, _) = weighted_loss(taps, params, batch, config=toys.MAIN)
        losses.append(np.asarray(loss_B, np.float64))
    slope = (losses[0] - losses[1]) / (2 * step)
    scores = np.asarray(found.scores_BWR[0])[tuple(edges.T)]
    np.testing.assert_allclose(slope, scores, rtol=0, atol=5e-3 * np.abs(scores).max())


def test_a_tap_of_minus_the_write_equals_a_torch_run_without_that_edge(torch, main):
    import torch_eap

    params, texts, _, found = main
    model = toys.torch_model(toys.ZOO["window 5 above the first layer"], params)
    edges, batch, taps = edge_taps(params, texts[2], -1.0)
    _, (loss_B, _) = weighted_loss(taps, params, batch, config=toys.MAIN)
    writers, readers = writer_names(3), reader_names(3)
    effects = []
    with torch.no_grad():
        intact, _ = torch_eap.loss_of(model, texts[2])
        for (writer, reader), loss in zip(edges, loss_B, strict=True):
            cut, _ = torch_eap.loss_of(model, texts[2], (writers[writer], readers[reader]))
            assert float(loss) == pytest.approx(float(cut), rel=1e-5)
            effects.append(float(cut - intact))
    assert len(effects) == num_edges(3)
    assert np.abs(effects).max() > 0.1
    # First-order scores are no exact ablation, but they must point the same way.
    scores = np.asarray(found.scores_BWR[2])[tuple(edges.T)]
    assert np.corrcoef(scores, effects)[0, 1] > 0.3


# Equal by every way of running.


def test_remat_and_unjitted_forms_give_the_same_scores(main):
    """The unrolled form is the literal definition above."""
    params, _, batch, found = main
    remat = attribute(params, batch, config=toys.MAIN, remat=True)
    with jax.disable_jit():
        eager = attribute(params, batch, config=toys.MAIN)
    for other in (remat, eager):
        assert toys.relative(other.scores_BWR, found.scores_BWR) <= 1e-5
        assert toys.relative(other.loss_B, found.loss_B) <= 1e-6


def test_block_granularity_is_the_sum_of_the_query_key_and_value_columns(main):
    params, _, batch, found = main
    block = attribute(params, batch, config=toys.MAIN, granularity="block").scores_BWR
    qkv = np.asarray(found.scores_BWR, np.float64)
    expected = np.stack(
        [qkv[..., 0:3].sum(-1), qkv[..., 3], qkv[..., 4:7].sum(-1), qkv[..., 7],
         qkv[..., 8:11].sum(-1), qkv[..., 11], qkv[..., 12]], axis=-1
    )  # fmt: skip
    assert toys.relative(block, expected) <= 1e-6
    assert toys.relative(to_block(np.asarray(found.scores_BWR)), expected) <= 1e-6
    assert not np.asarray(block)[:, ~edge_mask(3, "block")].any()


def test_a_texts_scores_do_not_depend_on_padding_batch_or_neighbours(main):
    """Alone and unpadded, or in a wider batch, reordered, with garbage in all padding."""
    params, texts, _, found = main
    alone = attribute(params, toys.batch_of(texts[1:2]), config=toys.MAIN)
    assert toys.relative(alone.scores_BWR[0], found.scores_BWR[1]) <= 1e-5
    order = [2, 0, 1]
    wide = toys.batch_of(
        [texts[row] for row in order], length=21, targets=13, garbage=np.random.default_rng(3)
    )
    wide = attribute(params, wide, config=toys.MAIN)
    assert toys.relative(wide.scores_BWR, found.scores_BWR[np.asarray(order)]) <= 1e-5
    assert toys.relative(wide.loss_B, found.loss_B[np.asarray(order)]) <= 1e-6


def test_a_row_of_padding_scores_exactly_zero_and_changes_no_other(main):
    params, _, batch, found = main
    batch = jax.tree.map(np.copy, batch)
    batch.weights_BJ[1] = 0
    masked = attribute(params, batch, config=toys.MAIN)
    assert not np.asarray(masked.scores_BWR[1]).any()
    assert float(masked.loss_B[1]) == 0
    np.testing.assert_array_equal(masked.scores_BWR[::2], found.scores_BWR[::2])


def test_targets_at_one_position_add_up(main):
    """A position may be listed twice: its gradients are summed, not overwritten."""
    params, texts, _, found = main
    once = toys.batch_of(texts)
    twice = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf], axis=1), once)
    twice = twice.replace(tokens_BT=once.tokens_BT, weights_BJ=twice.weights_BJ / 2)
    result = attribute(params, twice, config=toys.MAIN)
    assert toys.relative(result.scores_BWR, found.scores_BWR) <= 1e-5


def test_an_output_head_in_chunks_gives_the_same_scores(main):
    """9 targets where 8 fit: chunks of 5, and the last one is padded."""
    params, _, batch, found = main

    def objective(logits, targets):
        assert targets.shape == (3, 5)
        return self_entropy(logits, targets)

    chunked = attribute(
        params,
        batch,
        config=toys.MAIN,
        objective=objective,
        most_logits=8 * 3 * toys.MAIN.vocab_size,
    )
    assert toys.relative(chunked.scores_BWR, found.scores_BWR) <= 1e-5
    assert toys.relative(chunked.loss_B, found.loss_B) <= 1e-6


def test_any_objective_is_differentiated(main):
    """The difference of two logits: linear, so the loss of a negated pair has negated scores."""
    params, _, batch, _ = main

    def margin(logits, targets):
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return logits[..., 7] - chosen

    found = attribute(params, batch, config=toys.MAIN, objective=margin)
    zeros = Taps.zeros(toys.MAIN, *batch.tokens_BT.shape)

    def literal(taps):
        output = Transformer(toys.MAIN).apply(
            {"params": params}, batch.tokens_BT, taps, batch.positions_BJ
        )
        return jnp.sum(margin(output.logits, batch.targets_BJ) * batch.weights_BJ)

    gradient = jax.jit(jax.grad(literal))(zeros)
    _, (_, writes) = weighted_loss(zeros, params, batch, config=toys.MAIN)
    expected = -np.einsum("WBTD,RBTD->BWR", np.asarray(writes, np.float64), reads_of(gradient))
    assert toys.relative(found.scores_BWR, expected * edge_mask(3)) <= 1e-5
    assert column_sum_residual(found.scores_BWR) <= 1e-4


def test_bfloat16_parameters_give_float32_scores_within_bfloat16_rounding(main):
    params, _, batch, found = main
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    scores_BWR = attribute(low, batch, config=toys.MAIN).scores_BWR
    assert scores_BWR.dtype == jnp.float32
    assert 1e-4 < toys.relative(scores_BWR, found.scores_BWR) <= 0.1
    assert column_sum_residual(scores_BWR) <= 2e-2


# Cost.


def test_one_trace_a_shape(main):
    """New values, numpy or device arrays, trace nothing; a new shape traces once."""
    params, texts, batch, _ = main
    traced = []

    def objective(logits, targets):
        traced.append(targets.shape)
        return self_entropy(logits, targets)

    run = functools.partial(attribute, config=toys.MAIN, objective=objective)
    run(params, batch)
    first = len(traced)
    run(toys.random_params(toys.MAIN, seed=1), toys.batch_of(texts[::-1]))
    run(jax.device_put(params), jax.device_put(batch))
    assert len(traced) == first
    run(params, toys.batch_of(texts, length=14))
    assert len(traced) == 2 * first


def stand_ins(config: ModelConfig, rows: int, length: int, targets: int, dtype=jnp.float32):
    """Parameters and a batch without values."""
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype),
        parameter_shapes(config),
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    ids = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    weights = jax.ShapeDtypeStruct((rows, targets), jnp.float32)
    return params, Batch(ids((rows, length)), ids((rows, targets)), ids((rows, targets)), weights)


def config_of(num_layers: int, vocab_size: int = 61) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size, num_layers=num_layers, d_model=32, d_ff=64, num_heads=4,
        num_kv_heads=2, head_dim=8, norm_eps=1e-6, rope_theta=1e4,
    )  # fmt: skip


def test_compile_time_does_not_grow_with_depth():
    """Trace, lower and compile of 32 layers within 1.5 times those of 4 layers."""

    def seconds(num_layers, vocab_size):
        config = config_of(num_layers, vocab_size)
        arguments = stand_ins(config, 2, 16, 4)
        start = time.process_time()
        attribute.lower(*arguments, config=config).compile()
        return time.process_time() - start

    # Processor time, and the lesser of two, so that other programs and a cold start do not count.
    shallow, deep = (min(seconds(layers, v) for v in (61, 62)) for layers in (4, 32))
    assert deep <= 1.5 * shallow


def test_operations_stay_within_those_of_a_forward_and_input_gradient_pass():
    """No parameter gradients and no second forward, counted by the compiler in a 1-layer model."""
    config = ModelConfig(
        vocab_size=512, num_layers=1, d_model=256, d_ff=1024, num_heads=4, num_kv_heads=4,
        head_dim=64, norm_eps=1e-6, rope_theta=1e4,
    )  # fmt: skip
    rows, length, targets = 2, 32, 8
    params, batch = stand_ins(config, rows, length, targets)

    @jax.jit
    def plain(params, batch):
        model = functools.partial(Transformer(config).apply, {"params": params})

        def loss(stream):
            places = Places.of_texts(config, length)
            stream, _ = model(stream, places, method=Transformer.run_blocks)
            stream = jnp.take_along_axis(stream, batch.positions_BJ[:, :, None], axis=1)
            logits = model(stream, method=Transformer.unembed)
            return jnp.sum(self_entropy(logits, batch.targets_BJ) * batch.weights_BJ)

        return jax.value_and_grad(loss)(model(batch.tokens_BT, method=Transformer.embed))

    def operations(lowered):
        return lowered.compile().cost_analysis()["flops"]

    needed = operations(plain.lower(params, batch))
    assert needed >= 4 * rows * length * (4 * 256 * 256 + 3 * 256 * 1024)
    assert operations(attribute.lower(params, batch, config=config)) <= 1.15 * needed


def test_remat_needs_less_memory():
    config = config_of(12)
    arguments = stand_ins(config, 4, 96, 8)

    def memory(remat):
        lowered = attribute.lower(*arguments, config=config, remat=remat)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert memory(remat=True) < 0.75 * memory(remat=False)


def test_memory_holds_no_buffer_of_all_read_gradients():
    """Each further layer costs its activations and writes, but not four read gradients."""
    rows, length = 4, 96

    def memory(num_layers):
        arguments = stand_ins(config_of(num_layers), rows, length, 8)
        lowered = attribute.lower(*arguments, config=config_of(num_layers), remat=True)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    stream = rows * length * 32 * 4
    layer = (memory(24) - memory(8)) / 16
    # Two writes and their copy among all writes, the attention's write once more, the kept stream.
    assert layer <= 6.5 * stream


FULL_SIZE = {
    "deepseek_math": (30, 32, 32, 4096, 11008, 102400, False, 3691, 6_910_365_696),
    "mistral": (32, 32, 8, 4096, 14336, 32000, False, 4193, 7_241_732_096),
    "distilled_qwen": (28, 28, 4, 3584, 18944, 152064, True, 3221, 7_615_616_512),
    "qwen25": (28, 28, 4, 3584, 18944, 152064, True, 3221, 7_615_616_512),
}


@pytest.mark.parametrize("pair", FULL_SIZE)
def test_shapes_of_the_studied_7b_models_without_weights(pair):
    layers, heads, kv_heads, d_model, d_ff, vocab, bias, edges, parameters = FULL_SIZE[pair]
    config = ModelConfig(
        vocab_size=vocab, num_layers=layers, d_model=d_model, d_ff=d_ff, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=d_model // heads, norm_eps=1e-6, rope_theta=1e4,
        qkv_bias=bias,
    )  # fmt: skip
    params, batch = stand_ins(config, 2, 300, 100, jnp.bfloat16)
    shapes = jax.eval_shape(functools.partial(attribute, config=config), params, batch)
    assert shapes.scores_BWR.shape == (2, 1 + 2 * layers, 4 * layers + 1)
    assert shapes.scores_BWR.dtype == jnp.float32
    assert shapes.loss_B.shape == (2,)
    assert num_edges(layers) == edges
    assert config.num_parameters == parameters
