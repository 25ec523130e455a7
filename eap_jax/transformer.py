"""Decoder-only transformer in Flax Linen that shows every residual read and write.

    stream = embed[tokens]
    for each layer:  a = attention(norm(stream));  stream = stream + a
                     m = mlp(norm(stream));        stream = stream + m
    logits = head(norm(stream))

That is Llama; where other families put norms, multipliers and caps, `ModelConfig` says.

`taps` in, `writes` out: a tap is added to what one branch reads, never to the skip path, so the
gradient at taps = 0 is the branch-read gradient of edge attribution and tap = -write removes one
edge exactly.

Axis letters are explained in axes.py, the parameter tree in parameters.py.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.block import Block, matrix_init, norm_init
from eap_jax.checks import check_array
from eap_jax.config import ModelConfig
from eap_jax.layers import linear, rms_norm, softcap
from eap_jax.parameters import axis_sizes, end_axes, head_name
from eap_jax.places import Kind, Places


@flax.struct.dataclass
class Taps:
    """Additive perturbations of what each branch reads; zero leaves the model unchanged.

    Attributes:
      blocks_L4BTD: [L, 4, B, T, D], reads in the order of `block.READS`.
      logits_BTD: [B, T, D], what the final norm reads.
    """

    blocks_L4BTD: jax.Array
    logits_BTD: jax.Array

    @classmethod
    def zeros(cls, config: ModelConfig, batch: int, length: int, dtype=jnp.float32) -> "Taps":
        """All-zero taps for a batch of `batch` texts of `length` tokens."""
        shape = (batch, length, config.d_model)
        return cls(jnp.zeros((config.num_layers, 4, *shape), dtype), jnp.zeros(shape, dtype))


@flax.struct.dataclass
class Writes:
    """Everything that was added to the residual stream.

    Attributes:
      input_BTD: [B, T, D], the token embeddings.
      blocks_L2BTD: [L, 2, B, T, D], each layer's attention and MLP write.
    """

    input_BTD: jax.Array
    blocks_L2BTD: jax.Array

    def stacked(self) -> jax.Array:
        """[W, B, T, D] in the order of `graph.writer_names`."""
        shape = self.input_BTD.shape
        return jnp.concatenate([self.input_BTD[None], self.blocks_L2BTD.reshape(-1, *shape)])


@flax.struct.dataclass
class Output:
    """What a forward pass returns.

    Attributes:
      logits: [B, T, V] in the activations' dtype, or [B, J, V] at the positions asked for.
      writes: the residual writes.
    """

    logits: jax.Array
    writes: Writes


class Transformer(nn.Module):
    """The whole model. The activations' dtype is the parameters'.

    Attributes:
      config: its shape.
      scan: run the layers as one compiled loop (compile time does not grow with depth) or unrolled.
      remat: recompute each block in the backward pass instead of keeping its activations.
    """

    config: ModelConfig
    scan: bool = True
    remat: bool = False

    def setup(self):
        sizes = axis_sizes(self.config)
        for name, letters in end_axes(self.config).items():
            init = norm_init(self.config) if name.endswith("norm") else matrix_init
            shape = tuple(sizes[letter] for letter in letters)
            setattr(self, "p_" + name, self.param(name, init, shape, jnp.float32))
        block = nn.remat(Block, prevent_cse=not self.scan) if self.remat else Block
        self.blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, 0, 0),
            length=self.config.num_layers,
            unroll=1 if self.scan else self.config.num_layers,
        )(self.config)

    def embed(self, tokens_BT: jax.Array) -> jax.Array:
        """Token embeddings [B, T, D], the first write."""
        return embed(self.config, {"embed": self.p_embed}, tokens_BT)

    def run_blocks(self, stream_BTD: jax.Array, places: Places, taps_L4BTD=None):
        """All layers: (last stream [B, T, D], (writes [L, 2, B, T, D], `Activations` with L first))."""
        return self.blocks(stream_BTD, places, Kind.stacked(self.config), taps_L4BTD)

    def unembed(self, stream: jax.Array) -> jax.Array:
        """Final norm and output head: [..., D] -> logits [..., V] in the stream's dtype."""
        name = head_name(self.config)
        ends = {"final_norm": self.p_final_norm, name: getattr(self, "p_" + name)}
        return unembed(self.config, ends, stream)

    def __call__(self, tokens_BT: jax.Array, taps: Taps | None = None, positions_BJ=None) -> Output:
        """Forward pass over texts that start at position 0, padded on the right.

        Args:
          tokens_BT: token ids, whole numbers in [0, V).
          taps: perturbations of the branch reads, or None.
          positions_BJ: positions whose logits are wanted, or None for all.

        Returns:
          `Output`; a padded place holds finite, meaningless values that no earlier place sees.

        Raises:
          ValueError: an argument has another shape or kind of dtype.
        """
        check_array("tokens_BT", tokens_BT, "BT", jnp.integer)
        rows, length = tokens_BT.shape
        if taps is not None:
            sizes = {"L": self.config.num_layers, "B": rows, "T": length, "D": self.config.d_model}
            check_array("taps.blocks_L4BTD", taps.blocks_L4BTD, "L4BTD", jnp.floating, **sizes)
            check_array("taps.logits_BTD", taps.logits_BTD, "BTD", jnp.floating, **sizes)
        if positions_BJ is not None:
            check_array("positions_BJ", positions_BJ, "BJ", jnp.integer, B=rows)
        places = Places.of_texts(self.config.for_length(length), length)
        input_BTD = self.embed(tokens_BT)
        block_taps = None if taps is None else taps.blocks_L4BTD
        stream_BTD, (writes_L2BTD, _) = self.run_blocks(input_BTD, places, block_taps)
        if taps is not None:
            stream_BTD = stream_BTD + taps.logits_BTD.astype(stream_BTD.dtype)
        if positions_BJ is not None:
            stream_BTD = jnp.take_along_axis(stream_BTD, positions_BJ[:, :, None], axis=1)
        return Output(self.unembed(stream_BTD), Writes(input_BTD, writes_L2BTD))


def embed(config: ModelConfig, ends: dict, tokens_BT: jax.Array) -> jax.Array:
    """Token embeddings [B, T, D] as they are written, from the parameter `embed`."""
    input_BTD = ends["embed"][tokens_BT]
    if config.embedding_multiplier == 1:
        return input_BTD
    # The multiplier is rounded first, as in transformers' Gemma.
    return input_BTD * jnp.asarray(config.embedding_multiplier, input_BTD.dtype)


def unembed(config: ModelConfig, ends: dict, stream: jax.Array) -> jax.Array:
    """Final norm and output head from the parameters `final_norm` and `head_name(config)`:
    [..., D] -> logits [..., V] in the stream's dtype."""
    x = rms_norm(stream, ends["final_norm"], config.norm_eps, config.norm_gain_offset)
    logits = linear(x, ends[head_name(config)])
    if config.logits_divisor != 1:
        logits = logits / config.logits_divisor
    return softcap(logits, config.logits_softcap)


def init_parameters(config: ModelConfig, key: jax.Array, dtype=jnp.float32) -> dict:
    """Random parameters (normal with deviation 0.02, norms' gains 1, biases 0) in the model's tree."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = jax.jit(Transformer(config).init)(key, tokens)["params"]
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)
