"""A forward pass over chosen edges only: each reader reads the sum of the writes that still reach it.

    read(reader H) = sum over writers O before H of kept[O, H] * write(O)

Writes are those of this pass, not of the whole model: a cut changes what later parts write. With all
edges kept it is the model itself, with none every branch reads zeros, and with one edge missing it is
the exact ablation of that edge (`ablation`).

This is ablation by zero. By the mean, a reader gets in place of a cut write what its writer writes on
average, one vector a writer for every place of every text:

    read(reader H) = sum over writers O before H of kept[O, H] * write(O) + (1 - kept[O, H]) * mean(O)
    mean(O)        = mean over texts of (mean over the text's tokens of write(O) in the whole model)

Texts differ in length and their places do not correspond, so the mean knows no place, and every text
counts as much as another.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.block import READS, Block, Layer
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_mask
from eap_jax.head import HEAD_LOGITS, target_losses
from eap_jax.objective import Batch, Objective, self_entropy
from eap_jax.places import Kind, Places
from eap_jax.steps import buffered_writers
from eap_jax.transformer import embed

_EXACT = jax.lax.Precision.HIGHEST


@flax.struct.dataclass
class Reads:
    """What some of a circuit's readers read.

    Attributes:
      kept_BWR: share of each write that each of them gets.
      instead_BDR: what each gets in place of all that is cut, the same at every place.
    """

    kept_BWR: jax.Array
    instead_BDR: jax.Array

    def of(self, writes_BWTD: jax.Array) -> list[jax.Array]:
        """[B, T, D] of each; a writer that has not written yet is zero."""
        rows, buffered, *places = writes_BWTD.shape
        more = buffered - self.kept_BWR.shape[1]
        kept_BWR = jnp.pad(self.kept_BWR, ((0, 0), (0, more), (0, 0)))
        # T and D as one axis Y behind the writers, so that a CPU does not transpose all writes.
        writes_BWY = writes_BWTD.reshape(rows, buffered, -1)
        read_BRY = jnp.einsum("BWR,BWY->BRY", kept_BWR, writes_BWY, precision=_EXACT)
        read_BRTD = read_BRY.reshape(rows, -1, *places)
        return [
            read_BRTD[:, reader] + self.instead_BDR[:, None, :, reader]
            for reader in range(self.kept_BWR.shape[-1])
        ]


@functools.partial(jax.jit, static_argnames=("config", "objective", "most_logits"))
def circuit_losses(
    params: dict,
    batch: Batch,
    kept_BWR: jax.Array,
    means_WD: jax.Array | None = None,
    *,
    config: ModelConfig,
    objective: Objective = self_entropy,
    most_logits: int = HEAD_LOGITS[False],
) -> jax.Array:
    """The loss at every target when only some edges are left.

    Args:
      params: parameters in the structure of `parameters.parameter_axes`, any float dtype.
      batch: texts and targets; its weights are not used.
      kept_BWR: [B, 1+2L, 4L+1] bool or float, share of each write that each reader of each text
        gets: 1 keeps an edge, 0 cuts it. Entries without an edge are ignored.
      means_WD: [1+2L, D] float, what a reader gets of a writer that is cut off: the mean over texts
        of `mean_writes`; None: zero.
      config: the model.
      objective: the loss at one position.
      most_logits: that the output head holds at once, about.

    Returns:
      [B, J] float32.

    Raises:
      ValueError: an array has another shape.
    """
    input_BTD = embed(config, params, batch.tokens_BT)
    reads_L, last = circuit_reads(input_BTD, kept_BWR, means_WD, config=config)

    def layer(writes_BWTD, layer):
        block_params, kind, number, reads = layer
        here = Layer(params=block_params, number=number, kind=kind)
        return circuit_layer(config, here, writes_BWTD, reads), None

    numbers_L = jnp.arange(config.num_layers)
    writes_BWTD, _ = jax.lax.scan(
        layer,
        first_writes(input_BTD, config.num_layers),
        (params["blocks"], Kind.stacked(config), numbers_L, reads_L),
    )
    return circuit_head(
        params, batch, writes_BWTD, last,
        config=config, objective=objective, most_logits=most_logits,
    )  # fmt: skip


def circuit_reads(
    input_BTD: jax.Array, kept_BWR: jax.Array, means_WD: jax.Array | None, *, config: ModelConfig
) -> tuple[Reads, Reads]:
    """What the four readers of each layer read (a leading axis L), and what `logits` reads.

    Args:
      input_BTD: the embedded texts; reads have their dtype.
      kept_BWR, means_WD: see `circuit_losses`.
      config: the model.

    Raises:
      ValueError: an array has another shape.
    """
    rows, layers = len(input_BTD), config.num_layers
    exists_WR = edge_mask(layers)
    writers, readers = exists_WR.shape
    if kept_BWR.shape != (rows, writers, readers):
        raise ValueError(
            f"kept: expected [{rows}, {writers}, {readers}], one matrix a text, found "
            f"{list(kept_BWR.shape)}"
        )
    if means_WD is None:
        means_WD = jnp.zeros((writers, config.d_model))
    if means_WD.shape != (writers, config.d_model):
        raise ValueError(
            f"means: expected [{writers}, {config.d_model}], one vector a writer, found "
            f"{list(means_WD.shape)}"
        )
    kept_BWR = jnp.where(exists_WR, kept_BWR, 0).astype(input_BTD.dtype)
    instead_BDR = jnp.einsum(
        "BWR,WD->BDR", exists_WR - kept_BWR, means_WD.astype(input_BTD.dtype), precision=_EXACT
    )

    def by_layer(values):
        parts = values[..., :-1].reshape(*values.shape[:2], layers, len(READS))
        return jnp.moveaxis(parts, 2, 0)

    return (
        Reads(by_layer(kept_BWR), by_layer(instead_BDR)),
        Reads(kept_BWR[..., -1:], instead_BDR[..., -1:]),
    )


def first_writes(input_BTD: jax.Array, num_layers: int) -> jax.Array:
    """[B, at least 1+2L, T, D]: the input's write, and room for the others; see
    `steps.buffered_writers`."""
    rows, *shape = input_BTD.shape
    writers = buffered_writers(num_layers, input_BTD.dtype.itemsize)
    return jnp.zeros((rows, writers, *shape), input_BTD.dtype).at[:, 0].set(input_BTD)


def circuit_layer(
    config: ModelConfig, layer: Layer, writes_BWTD: jax.Array, reads: Reads
) -> jax.Array:
    """The writes with those of one layer, whose four readers read as `reads` says.

    All four read the buffer before the layer's writes are in it, and the MLP the attention's write
    beside it: the buffer is read once and changed in place. Read between two changes, it was copied.
    """
    length = writes_BWTD.shape[2]
    places = Places.of_texts(config.for_length(length), length)

    def stage(method, *args):
        return Block(config).apply({"params": layer.params}, *args, method=method)

    *of_attention, of_mlp_BTD = reads.of(writes_BWTD)
    heads = stage(Block.attention_in, *of_attention, places, layer.kind)
    attention_BTD = stage(Block.attention_out, *heads, places, layer.kind)
    first = 1 + 2 * layer.number
    kept_BR = jax.lax.dynamic_index_in_dim(reads.kept_BWR, first, 1, keepdims=False)
    of_mlp_BTD += kept_BR[:, None, None, -1] * attention_BTD
    mlp_BTD = stage(Block.mlp_out, *stage(Block.mlp_in, of_mlp_BTD))
    writes_B2TD = jnp.stack([attention_BTD, mlp_BTD], axis=1)
    return jax.lax.dynamic_update_slice_in_dim(writes_BWTD, writes_B2TD, first, axis=1)


def circuit_head(
    params: dict,
    batch: Batch,
    writes_BWTD: jax.Array,
    last: Reads,
    *,
    config: ModelConfig,
    objective: Objective,
    most_logits: int = HEAD_LOGITS[False],
) -> jax.Array:
    """The loss at every target [B, J] float32, from all writes and what `logits` reads of them."""
    (read_BTD,) = last.of(writes_BWTD)
    read_BJD = jnp.take_along_axis(read_BTD, batch.positions_BJ[:, :, None], axis=1)
    return target_losses(
        config, objective, params, read_BJD, batch.targets_BJ, most_logits=most_logits
    )


@functools.partial(jax.jit, static_argnames=("config",))
def mean_writes(params: dict, batch: Batch, *, config: ModelConfig) -> jax.Array:
    """What every writer of the whole model writes on average over the tokens of each text.

    Args:
      params: parameters in the structure of `parameters.parameter_axes`, any float dtype.
      batch: texts; a text ends at the last position that has a weight.
      config: the model.

    Returns:
      [B, 1+2L, D] float32, 0 for a row of padding. What a circuit takes is its mean over texts.
    """
    length = batch.tokens_BT.shape[1]
    places = Places.of_texts(config.for_length(length), length)
    share_BT = token_shares(batch)
    input_BTD = embed(config, params, batch.tokens_BT)

    def layer(stream_BTD, layer):
        block_params, kind = layer
        after_BTD, (writes_2BTD, _) = Block(config).apply(
            {"params": block_params}, stream_BTD, places, kind
        )
        return after_BTD, mean_of(writes_2BTD, share_BT)

    _, means_L2BD = jax.lax.scan(layer, input_BTD, (params["blocks"], Kind.stacked(config)))
    means_WBD = jnp.concatenate(
        [mean_of(input_BTD[None], share_BT), means_L2BD.reshape(-1, *means_L2BD.shape[2:])]
    )
    return jnp.moveaxis(means_WBD, 0, 1)


def token_shares(batch: Batch) -> jax.Array:
    """[B, T] float32: 1 / its number of tokens at every token of a text, 0 at padding and in a row of
    padding."""
    last_B = jnp.max(jnp.where(batch.weights_BJ > 0, batch.positions_BJ, -1), axis=1)
    inside_BT = jnp.arange(batch.tokens_BT.shape[1]) <= last_B[:, None]
    tokens_B1 = jnp.sum(inside_BT, axis=1, keepdims=True, dtype=jnp.float32)
    return inside_BT / jnp.maximum(tokens_B1, 1)


def mean_of(writes_WBTD: jax.Array, share_BT: jax.Array) -> jax.Array:
    """Means [W, B, D] float32 over the tokens of each text."""
    return jnp.einsum("WBTD,BT->WBD", writes_WBTD.astype(jnp.float32), share_BT, precision=_EXACT)
