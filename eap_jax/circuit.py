"""A forward pass over chosen edges only: each reader reads the sum of the writes that still reach it.

    read(reader H) = sum over writers O before H of kept[O, H] * write(O)

Writes are those of this pass, not of the whole model: a cut changes what later parts write. With all
edges kept it is the model itself, with none every branch reads zeros, and with one edge missing it is
the exact ablation of that edge (`ablation`).
"""

import functools

import jax
import jax.numpy as jnp

from eap_jax.block import READS, Block
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_mask
from eap_jax.objective import Batch, Objective, self_entropy
from eap_jax.places import Kind, Places
from eap_jax.transformer import embed, unembed


@functools.partial(jax.jit, static_argnames=("config", "objective"))
def circuit_losses(
    params: dict,
    batch: Batch,
    kept_BWR: jax.Array,
    *,
    config: ModelConfig,
    objective: Objective = self_entropy,
) -> jax.Array:
    """The loss at every target when only some edges are left.

    Args:
      params: parameters in the structure of `parameters.parameter_axes`, any float dtype.
      batch: texts and targets; its weights are not used.
      kept_BWR: [B, 1+2L, 4L+1] bool or float, share of each write that each reader of each text
        gets: 1 keeps an edge, 0 cuts it. Entries without an edge are ignored.
      config: the model.
      objective: the loss at one position.

    Returns:
      [B, J] float32.
    """
    rows, length = batch.tokens_BT.shape
    writers, readers = edge_mask(config.num_layers).shape
    if kept_BWR.shape != (rows, writers, readers):
        raise ValueError(
            f"kept: expected [{rows}, {writers}, {readers}], one matrix a text, found "
            f"{list(kept_BWR.shape)}"
        )
    places = Places.of_texts(config.for_length(length), length)
    input_BTD = embed(config, params, batch.tokens_BT)
    kept_BWR = jnp.where(edge_mask(config.num_layers), kept_BWR, 0).astype(input_BTD.dtype)
    layers_LBW4 = jnp.moveaxis(
        kept_BWR[..., :-1].reshape(rows, writers, config.num_layers, len(READS)), 2, 0
    )
    writes_BWTD = jnp.zeros((rows, writers, *input_BTD.shape[1:]), input_BTD.dtype)
    writes_BWTD = writes_BWTD.at[:, 0].set(input_BTD)

    def layer(writes_BWTD, layer):
        block_params, kind, number, kept_BW4 = layer

        def stage(method, *args):
            return Block(config).apply({"params": block_params}, *args, method=method)

        def put(writes_BWTD, write_BTD, place):
            return jax.lax.dynamic_update_slice_in_dim(
                writes_BWTD, write_BTD[:, None], place, axis=1
            )

        reads = [_read(writes_BWTD, kept_BW4[..., number_]) for number_ in range(3)]
        heads = stage(Block.attention_in, *reads, places, kind)
        attention_BTD = stage(Block.attention_out, *heads, places, kind)
        writes_BWTD = put(writes_BWTD, attention_BTD, 1 + 2 * number)
        mlp_BTD = stage(Block.mlp_out, *stage(Block.mlp_in, _read(writes_BWTD, kept_BW4[..., 3])))
        return put(writes_BWTD, mlp_BTD, 2 + 2 * number), None

    numbers_L = jnp.arange(config.num_layers)
    writes_BWTD, _ = jax.lax.scan(
        layer, writes_BWTD, (params["blocks"], Kind.stacked(config), numbers_L, layers_LBW4)
    )
    last_BTD = _read(writes_BWTD, kept_BWR[..., -1])
    read_BJD = jnp.take_along_axis(last_BTD, batch.positions_BJ[:, :, None], axis=1)
    return objective(unembed(config, params, read_BJD), batch.targets_BJ)


def _read(writes_BWTD: jax.Array, kept_BW: jax.Array) -> jax.Array:
    """Sum of the kept writes [B, T, D]; a writer that has not written yet is zero."""
    return jnp.einsum("BWTD,BW->BTD", writes_BWTD, kept_BW, precision=jax.lax.Precision.HIGHEST)
