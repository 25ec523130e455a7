r"""How fast attribution is on this machine, against the bound of its matrix products.

    python -m experiments.bench --preset=mid

Random weights and texts. All programs run in one process, in turn, and medians are reported, so the
ratios hold on a noisy machine. Last line: one JSON object of figures. The bound is 4 * parameters *
tokens operations (forward 2, backward to activations 2) at the rate that this machine's matrix
products reach at the model's own shapes.
"""

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from eap_jax.attribution import attribute
from eap_jax.config import ModelConfig
from eap_jax.objective import Batch, self_entropy
from eap_jax.transformer import Places, Transformer, init_parameters
from experiments.errors import run_main


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A model shape and a batch: rows of `length` tokens, the last `targets` of them predicted."""

    config: ModelConfig
    rows: int
    length: int
    targets: int
    dtype: str = "float32"


def _llama(layers: int, d_model: int, d_ff: int, heads: int, vocab: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab, num_layers=layers, d_model=d_model, d_ff=d_ff, num_heads=heads,
        num_kv_heads=heads, head_dim=d_model // heads, norm_eps=1e-6, rope_theta=10000.0,
    )  # fmt: skip


PRESETS = {
    "small": Preset(config=_llama(6, 384, 1024, 6, 12000), rows=4, length=224, targets=64),
    "mid": Preset(config=_llama(12, 768, 2048, 12, 32000), rows=4, length=224, targets=64),
}


def random_batch(preset: Preset, seed: int = 0) -> Batch:
    """Random texts of a preset, the loss on their last `targets` places."""
    rng = np.random.default_rng(seed)
    shape, vocab = (preset.rows, preset.targets), preset.config.vocab_size
    places = np.arange(preset.length - preset.targets, preset.length, dtype=np.int32)
    return Batch(
        tokens_BT=jnp.asarray(rng.integers(0, vocab, (preset.rows, preset.length)), jnp.int32),
        positions_BJ=jnp.asarray(np.broadcast_to(places, shape)),
        targets_BJ=jnp.asarray(rng.integers(0, vocab, shape), jnp.int32),
        weights_BJ=jnp.full(shape, 1 / preset.targets, jnp.float32),
    )


def loss_and_input(config: ModelConfig, params: dict, batch: Batch):
    """(loss of the embedded input, that input): the same pass without attribution."""
    model = Transformer(config)
    places = Places.of_texts(config, batch.tokens_BT.shape[1])

    def loss(input_BTD):
        stream_BTD, _ = model.apply(
            {"params": params}, input_BTD, places, method=Transformer.run_blocks
        )
        stream_BJD = jnp.take_along_axis(stream_BTD, batch.positions_BJ[:, :, None], axis=1)
        logits = model.apply({"params": params}, stream_BJD, method=Transformer.unembed)
        return jnp.sum(self_entropy(logits, batch.targets_BJ) * batch.weights_BJ)

    return loss, model.apply({"params": params}, batch.tokens_BT, method=Transformer.embed)


@functools.partial(jax.jit, static_argnames="config")
def forward(params: dict, batch: Batch, config: ModelConfig):
    """Loss of a batch."""
    loss, input_BTD = loss_and_input(config, params, batch)
    return loss(input_BTD)


@functools.partial(jax.jit, static_argnames="config")
def forward_and_input_gradient(params: dict, batch: Batch, config: ModelConfig):
    """Loss of a batch and its gradient with respect to the embedded input, by plain autodiff."""
    loss, input_BTD = loss_and_input(config, params, batch)
    return jax.value_and_grad(loss)(input_BTD)


def in_turn(programs: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Median seconds of each program, run in turn after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(repeats + 1):
        for name, program in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program())
            if number:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def matmul_program(preset: Preset) -> tuple[Callable, float]:
    """A chain of one block's matrix products at the batch's shape, and its operations."""
    config, tokens = preset.config, preset.rows * preset.length
    key = jax.random.key(1)
    shapes = [(config.d_model, config.d_model)] * 4
    shapes += [(config.d_ff, config.d_model)] * 2 + [(config.d_model, config.d_ff)]
    weights = [jax.random.normal(key, shape, preset.dtype) for shape in shapes]
    inputs = {n: jax.random.normal(key, (tokens, n), preset.dtype) for n in {s[1] for s in shapes}}
    multiply = jax.jit(lambda x, weight: x @ weight.T)
    operations = float(sum(2 * tokens * rows * columns for rows, columns in shapes))
    return lambda: [multiply(inputs[weight.shape[1]], weight) for weight in weights], operations


def compile_seconds(preset: Preset, layers: int) -> float:
    """Seconds to trace, lower and compile attribution for the preset at another depth."""
    config = dataclasses.replace(preset.config, num_layers=layers)
    shapes = jax.eval_shape(lambda: init_parameters(config, jax.random.key(0)))
    jax.clear_caches()
    begin = time.perf_counter()
    attribute.lower(shapes, random_batch(preset), config=config).compile()
    return time.perf_counter() - begin


def bench(preset: Preset, repeats: int) -> dict[str, float]:
    """All figures of a preset; times in seconds a batch, rates in operations a second."""
    config, batch = preset.config, random_batch(preset)
    params = jax.block_until_ready(init_parameters(config, jax.random.key(0), preset.dtype))
    tokens = preset.rows * preset.length
    multiply, operations = matmul_program(preset)
    times = in_turn(
        {
            "attribution": lambda: attribute(params, batch, config=config),
            "attribution_remat": lambda: attribute(params, batch, config=config, remat=True),
            "forward": lambda: forward(params, batch, config=config),
            "forward_input_gradient": lambda: forward_and_input_gradient(
                params, batch, config=config
            ),
            "matmuls": multiply,
        },
        repeats,
    )
    rate = operations / times.pop("matmuls")
    bound = 4 * config.num_parameters * tokens / rate
    memory = {
        name: attribute.lower(params, batch, config=config, remat=remat)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for name, remat in (("keep", False), ("remat", True))
    }
    writes = (1 + 2 * config.num_layers) * tokens * config.d_model * jnp.dtype(preset.dtype).itemsize
    compiled = {n: statistics.median(compile_seconds(preset, n) for _ in range(3)) for n in (4, 32)}
    return {
        "parameters": config.num_parameters,
        "tokens": tokens,
        **{f"{name}_seconds": value for name, value in times.items()},
        "attribution_ms_per_token": times["attribution"] / tokens * 1e3,
        "attribution_tokens_per_second": tokens / times["attribution"],
        "attribution_over_forward_input_gradient": times["attribution"]
        / times["forward_input_gradient"],
        "matmul_gflops": rate / 1e9,
        "fraction_of_matmul_bound": bound / times["attribution"],
        "temporary_bytes": memory["keep"],
        "temporary_bytes_remat": memory["remat"],
        "stacked_writes_bytes": writes,
        "compile_seconds_4_layers": compiled[4],
        "compile_seconds_32_layers": compiled[32],
        "compile_32_over_4": compiled[32] / compiled[4],
    }


def main(_) -> None:
    figures = bench(PRESETS[flags.FLAGS.preset], flags.FLAGS.repeats)
    device = jax.devices()[0].device_kind
    print(f"device: {device}; preset: {flags.FLAGS.preset}")
    print(json.dumps({name: float(f"{value:.4g}") for name, value in figures.items()}))


if __name__ == "__main__":
    flags.DEFINE_enum("preset", "small", list(PRESETS), "Model shape and batch.")
    flags.DEFINE_integer("repeats", 5, "Measured runs of each program.", lower_bound=1)
    run_main(main)
