"""Gradients through a part of the model: the output head, and one block from its end to its reads.

Each is `jax.vjp` of pure functions at kept values; nothing is differentiated by hand, and nothing
with respect to parameters.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from eap_jax.block import Activations, Block, Layer
from eap_jax.config import ModelConfig
from eap_jax.head import map_targets
from eap_jax.objective import Batch, Objective
from eap_jax.places import Places
from eap_jax.transformer import unembed


def block_gradients(
    config: ModelConfig,
    layer: Layer,
    kept: Activations | jax.Array,
    attention_BTD: jax.Array,
    grad_BTD: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """One step of the backward sweep, over whole texts.

    Args:
      config: the model.
      layer: the layer to go back through.
      kept: the layer's activations, or its stream [B, T, D] alone (then the rest is recomputed).
      attention_BTD: the attention's write.
      grad_BTD: gradient of the loss with respect to the stream after the layer.

    Returns:
      gradients of the four branch reads [B, 4, T, D] in the order of `block.READS`, and the
      gradient with respect to the stream before the layer.
    """
    places = Places.of_texts(config, grad_BTD.shape[1])
    stage = functools.partial(Block(config).apply, {"params": layer.params})
    attention_in = functools.partial(
        stage, places=places, kind=layer.kind, method=Block.attention_in
    )
    mlp_in = functools.partial(stage, method=Block.mlp_in)

    def attention_out(q, k, v):
        return stage(q, k, v, places, layer.kind, method=Block.attention_out)

    stream_BTD = kept.stream_BTD if isinstance(kept, Activations) else kept
    middle_BTD = stream_BTD + attention_BTD
    if isinstance(kept, Activations):
        heads = kept.q_BNTH, kept.k_BKTH, kept.v_BKTH
        hidden = kept.gate_BTF, kept.up_BTF
    else:
        heads = attention_in(stream_BTD, stream_BTD, stream_BTD)
        hidden = mlp_in(middle_BTD)

    mlp_out = functools.partial(stage, method=Block.mlp_out)
    (read_mlp,) = _pull(mlp_in, (middle_BTD,), _pull(mlp_out, hidden, grad_BTD))
    grad_BTD = grad_BTD + read_mlp
    read_qkv = _pull(attention_in, (stream_BTD,) * 3, _pull(attention_out, heads, grad_BTD))
    return jnp.stack([*read_qkv, read_mlp], axis=1), grad_BTD + sum(read_qkv)


def _pull(stage: Callable, primals: tuple, cotangents) -> tuple:
    """Cotangents of a stage's inputs from those of its outputs."""
    return jax.vjp(stage, *primals)[1](cotangents)


def head_gradients(
    config: ModelConfig,
    objective: Objective,
    ends: dict,
    stream_BTD: jax.Array,
    batch: Batch,
    *,
    most_logits: int,
) -> tuple[jax.Array, jax.Array]:
    """Losses of the targets and their gradients, through the output head.

    Only the positions that carry loss go through the head, a chunk of positions at a time.

    Args:
      config, objective: see `attribution.attribute`.
      ends: parameters, of which `final_norm` and the output head are read.
      stream_BTD: the last stream.
      batch: positions and targets; its weights are not used.
      most_logits: logits held at once, about.

    Returns:
      loss of each target [B, J] float32, and its gradient with respect to the last stream at the
      target's own place [B, J, D] float32.
    """
    stream_BJD = jnp.take_along_axis(stream_BTD, batch.positions_BJ[:, :, None], axis=1)

    def chunk_gradient(xs):
        stream, targets = xs

        def total(stream):
            losses = objective(unembed(config, ends, stream), targets)
            return losses.sum(), losses

        grads, losses = jax.grad(total, has_aux=True)(stream)
        return losses, grads.astype(jnp.float32)

    most = most_logits // (len(stream_BJD) * config.vocab_size)
    return map_targets(chunk_gradient, (stream_BJD, batch.targets_BJ), most)


def at_positions(grads_BJD: jax.Array, positions_BJ: jax.Array, length: int, dtype) -> jax.Array:
    """Gradients of targets, added up at their places: [B, length, D]."""
    num_rows, _, d_model = grads_BJD.shape
    rows_B1 = jnp.arange(num_rows)[:, None]
    zeros = jnp.zeros((num_rows, length, d_model), dtype)
    # A target of weight 0 may lie beyond the length; its gradient is 0 and is dropped.
    return zeros.at[rows_B1, positions_BJ].add(grads_BJD.astype(dtype), mode="drop")
