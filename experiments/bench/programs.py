"""What the bench runs: presets of random models, and the programs that are timed on them."""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from eap_jax.attribution import attribute, attribute_prefixes
from eap_jax.batching import Text, pad_into_batches
from eap_jax.block import Block
from eap_jax.config import ModelConfig
from eap_jax.objective import Batch, self_entropy
from eap_jax.parameters import parameter_shapes
from eap_jax.places import Places
from eap_jax.transformer import Transformer
from experiments import child_python

ALPHAS = (0.03, 0.1, 0.3, 0.5)
NEW_TOKENS = 32
_TIMES = 8


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
    # The shape of the embedded family.
    "embedded": Preset(config=_llama(4, 64, 160, 4, 76), rows=32, length=64, targets=32),
    "small": Preset(config=_llama(6, 384, 1024, 6, 12000), rows=4, length=224, targets=64),
    "mid": Preset(config=_llama(12, 768, 2048, 12, 32000), rows=4, length=224, targets=64),
    # deepseek-math-7b's shape: `7b` from disk, `gpu` in the memory of a card of 40 GB or more.
    "7b": Preset(
        config=_llama(30, 4096, 11008, 32, 102400), rows=4, length=128, targets=64, dtype="bfloat16"
    ),
    "gpu": Preset(
        config=_llama(30, 4096, 11008, 32, 102400), rows=8, length=512, targets=256,
        dtype="bfloat16",
    ),
}  # fmt: skip


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


def random_parameters(preset: Preset) -> dict:
    """Random weights of deviation 0.02, made in the preset's dtype a layer at a time.

    `init_parameters` draws all layers at once in float32: 41 GB for a 7B model of 13.8.
    """

    @functools.partial(jax.jit, static_argnames="shape")
    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return 0.02 * jax.random.normal(key, shape, preset.dtype)

    @functools.partial(jax.jit, static_argnames="shape")
    def stack(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        keys = jax.random.split(key, shape[0])
        return jax.lax.map(lambda layer_key: draw(layer_key, shape[1:]), keys)

    def leaf(key: jax.Array, name: str, shape: tuple[int, ...], make: Callable) -> jax.Array:
        if name.endswith("norm"):
            return jnp.ones(shape, preset.dtype)
        return make(key, shape)

    shapes = parameter_shapes(preset.config)
    blocks = shapes.pop("blocks")
    keys = iter(jax.random.split(jax.random.key(0), len(shapes) + len(blocks)))
    ends = {name: leaf(next(keys), name, shape, draw) for name, shape in shapes.items()}
    return ends | {
        "blocks": {name: leaf(next(keys), name, shape, stack) for name, shape in blocks.items()}
    }


def attribute_once(preset: Preset) -> None:
    """Attribute a preset's batch, in a process whose peak memory is to be measured."""
    params = random_parameters(preset)
    jax.block_until_ready(attribute(params, random_batch(preset), config=preset.config))


def attribute_once_command(preset: Preset) -> list[str]:
    """The program that does it."""
    names = "from eap_jax.config import ModelConfig, RopeScaling\n"
    names += "from experiments.bench.programs import Preset, attribute_once\n"
    return child_python.command("-c", f"{names}attribute_once({preset!r})")


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


def block_activation_bytes(preset: Preset) -> int:
    """Bytes that plain autodiff keeps of one block for its backward pass, weights not counted."""
    config = preset.config
    block = {
        name: jax.ShapeDtypeStruct(stacked[1:], preset.dtype)
        for name, stacked in parameter_shapes(config)["blocks"].items()
    }

    def kept(params, stream_BTD):
        places = Places.of_texts(config, preset.length)
        return jax.vjp(lambda x: Block(config).apply({"params": params}, x, places)[0], stream_BTD)

    def kept_bytes(rows: int) -> int:
        stream_BTD = jax.ShapeDtypeStruct((rows, preset.length, config.d_model), preset.dtype)
        leaves = jax.tree.leaves(jax.eval_shape(kept, block, stream_BTD)[1])
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    # Weights, masks and tables do not grow with the rows.
    return kept_bytes(2 * preset.rows) - kept_bytes(preset.rows)


def matmul_program(preset: Preset) -> tuple[Callable, float]:
    """One block's matrix products at the batch's shape, several times, and their operations.

    Once alone they measure caches that other programs have emptied: half the rate.
    """
    config, tokens = preset.config, preset.rows * preset.length
    key = jax.random.key(1)
    shapes = [(config.d_model, config.d_model)] * 4
    shapes += [(config.d_ff, config.d_model)] * 2 + [(config.d_model, config.d_ff)]
    weights = [jax.random.normal(key, shape, preset.dtype) for shape in shapes]
    inputs = {n: jax.random.normal(key, (tokens, n), preset.dtype) for n in {s[1] for s in shapes}}
    multiply = jax.jit(lambda x, weight: x @ weight.T)
    operations = float(sum(2 * tokens * rows * columns for rows, columns in shapes))

    def products():
        for _ in range(_TIMES):
            jax.block_until_ready([multiply(inputs[w.shape[1]], w) for w in weights])

    return products, _TIMES * operations


def alpha_programs(preset: Preset, params: dict) -> dict[str, Callable]:
    """Four alphas that share the forward pass, and the same four in separate passes.

    The mean answer is twice the preset's targets long, so alpha 0.5 counts all of them.
    """
    config, draw = preset.config, np.random.default_rng(0)
    cuts = tuple(max(1, int(alpha * 2 * preset.targets)) for alpha in ALPHAS)
    prompt = preset.length - preset.targets + 1
    ids = draw.integers(0, config.vocab_size, (preset.rows, prompt + cuts[-1])).tolist()

    def padded(cut: int, cuts: tuple[int, ...]):
        texts = [
            Text(tokens=tuple(row[: prompt + cut - 1]), targets=tuple(row[prompt : prompt + cut]))
            for row in ids
        ]
        (found,) = pad_into_batches(texts, batch_tokens=2**30, cuts=cuts)
        return found

    shared, apart = padded(cuts[-1], cuts), [padded(cut, ()) for cut in cuts]
    return {
        "alphas_shared": lambda: attribute_prefixes(
            params, shared.batch, shared.weights_ABJ, lengths=shared.lengths, config=config
        ),
        "alphas_apart": lambda: [attribute(params, p.batch, config=config) for p in apart],
    }


def has_torch() -> bool:
    """Whether PyTorch is there to be compared with."""
    return importlib.util.find_spec("torch") is not None


def torch_programs(preset: Preset, params: dict, batch: Batch) -> dict[str, Callable]:
    """The lean PyTorch pass at batch 1 and at the preset's, and decoding; empty without torch."""
    if preset.dtype != "float32" or not has_torch():
        return {}
    from experiments.bench import torch_peer

    model = torch_peer.torch_model(preset.config, params)
    program = torch_peer.EdgeScores(model)
    first = jax.tree.map(lambda leaf: leaf[:1], batch)
    # A second model without hooks decodes.
    plain = torch_peer.torch_model(preset.config, params)
    prompts = prompts_of(preset)
    return {
        "torch_one": lambda: program(first),
        "torch_batch": lambda: program(batch),
        "torch_decode": lambda: torch_peer.generate(plain, prompts, NEW_TOKENS),
    }


def prompts_of(preset: Preset) -> np.ndarray:
    """Prompts of 32 tokens for a batch of 32."""
    return np.random.default_rng(2).integers(0, preset.config.vocab_size, (32, 32))
