"""Edge attribution patching in one jitted pass: every edge of every sample from one forward and vjp.

    score(writer O, reader H) = - sum over positions and D of (dLoss/dH) * O

(zero ablation, arXiv 2509.21044; Syed et al. 2023). dLoss/dH is the gradient with respect to what
the reader's branch reads, before its norm; the skip path is not part of it.

The forward pass keeps the residual writes. The backward sweep walks the layers in reverse; at each
one, `jax.vjp` of the block's four stages gives the gradients of its four branch reads, which are
contracted with all writes at once. So neither parameter gradients nor the [R, B, T, D] buffer of
read gradients ever exist. A stage's primal output is never used, so the compiler drops its matrix
product: the pass costs 4 * parameters * tokens operations (forward 2, backward 2), plus a second
forward under `remat`.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.config import ModelConfig
from eap_jax.graph import Granularity, edge_mask
from eap_jax.objective import Batch, Objective, self_entropy
from eap_jax.transformer import Activations, Block, Places, Transformer, windows

# Logits held at once by the output head: 2^24 float32 numbers are 64 MiB.
_HEAD_LOGITS = 2**24


@flax.struct.dataclass
class Attribution:
    """Edge scores and losses, one a sample.

    Attributes:
      scores_BWR: [B, W, R] float32; an entry without an edge is 0. A positive score predicts that
        removing the edge raises the loss.
      loss_B: [B] float32, nats.
    """

    scores_BWR: jax.Array
    loss_B: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "objective", "granularity", "remat"))
def attribute(
    params: dict,
    batch: Batch,
    *,
    config: ModelConfig,
    objective: Objective = self_entropy,
    granularity: Granularity = "qkv",
    remat: bool = False,
) -> Attribution:
    """Scores of all edges for a batch of responses.

    Args:
      params: parameters in the structure of `transformer.parameter_axes`, any float dtype; the
        activations take the same dtype. Sharded parameters and batches give the same scores.
      batch: texts and targets. Rows do not influence each other, nor does padding.
      config: the model.
      objective: per-position loss to differentiate.
      granularity: `qkv` scores the q, k and v reads apart (R = 4L+1), `block` their sum (R = 2L+1).
      remat: keep only each layer's stream and recompute the rest in the backward sweep: less
        memory, half as much again compute.

    Returns:
      `Attribution`.
    """
    model = Transformer(config)
    variables = {"params": params}
    places = Places.of_texts(config, batch.tokens_BT.shape[1])
    input_BTD = model.apply(variables, batch.tokens_BT, method=Transformer.embed)
    stream_BTD, (writes_L2BTD, activations) = model.apply(
        variables, input_BTD, places, method=Transformer.run_blocks
    )
    writes_WBTD = jnp.concatenate([input_BTD[None], writes_L2BTD.reshape(-1, *input_BTD.shape)])

    loss_B, grad_BTD = _head_gradient(config, objective, params, stream_BTD, batch)
    logits_scores_BW1 = _contract(writes_WBTD, grad_BTD[None])

    # Under remat the activations beside the stream are dead here, so the compiler never keeps them.
    kept = activations.stream_BTD if remat else activations
    layers = (params["blocks"], writes_L2BTD[:, 0], kept, windows(config))

    def sweep(grad_BTD, layer):
        block_params, attention_BTD, kept, window = layer
        reads, grad_BTD = block_gradients(
            config, block_params, kept, attention_BTD, grad_BTD, places, window
        )
        return grad_BTD, _contract(writes_WBTD, reads)

    _, scores_LBW4 = jax.lax.scan(sweep, grad_BTD, layers, reverse=True)
    if granularity == "block":
        attention_LBW = scores_LBW4[..., :3].sum(axis=-1)
        scores_LBW4 = jnp.stack([attention_LBW, scores_LBW4[..., 3]], axis=-1)
    num_rows, num_writers = scores_LBW4.shape[1:3]
    scores_BWR = jnp.moveaxis(scores_LBW4, 0, 2).reshape(num_rows, num_writers, -1)
    scores_BWR = jnp.concatenate([scores_BWR, logits_scores_BW1], axis=-1)
    mask_WR = edge_mask(config.num_layers, granularity)
    return Attribution(scores_BWR=jnp.where(mask_WR, scores_BWR, 0.0), loss_B=loss_B)


def block_gradients(
    config: ModelConfig,
    block_params: dict,
    kept: Activations | jax.Array,
    attention_BTD: jax.Array,
    grad_BTD: jax.Array,
    places: Places,
    window=None,
) -> tuple[jax.Array, jax.Array]:
    """One step of the backward sweep.

    Args:
      config: the model.
      block_params: parameters of this layer.
      kept: the layer's activations, or its stream [B, T, D] alone (then the rest is recomputed).
      attention_BTD: the attention's write.
      grad_BTD: gradient of the loss with respect to the stream after the layer.
      places: where the tokens sit.
      window: keys a query sees, or None.

    Returns:
      gradients of the four branch reads [4, B, T, D] in the order of `transformer.READS`, and the
      gradient with respect to the stream before the layer.
    """
    stage = functools.partial(Block(config).apply, {"params": block_params})
    attention_in = functools.partial(stage, places=places, method=Block.attention_in)
    mlp_in = functools.partial(stage, method=Block.mlp_in)

    def attention_out(q, k, v):
        return stage(q, k, v, places, window, method=Block.attention_out)

    stream_BTD = kept.stream_BTD if isinstance(kept, Activations) else kept
    middle_BTD = stream_BTD + attention_BTD
    if isinstance(kept, Activations):
        heads = kept.q_BTNH, kept.k_BTKH, kept.v_BTKH
        hidden = kept.gate_BTF, kept.up_BTF
    else:
        heads = attention_in(stream_BTD, stream_BTD, stream_BTD)
        hidden = mlp_in(middle_BTD)

    mlp_out = functools.partial(stage, method=Block.mlp_out)
    (read_mlp,) = _pull(mlp_in, (middle_BTD,), _pull(mlp_out, hidden, grad_BTD))
    grad_BTD = grad_BTD + read_mlp
    read_qkv = _pull(attention_in, (stream_BTD,) * 3, _pull(attention_out, heads, grad_BTD))
    return jnp.stack([*read_qkv, read_mlp]), grad_BTD + sum(read_qkv)


def _pull(stage, primals, cotangents):
    """Cotangents of a stage's inputs from those of its outputs."""
    return jax.vjp(stage, *primals)[1](cotangents)


def _contract(writes_WBTD: jax.Array, grads_RBTD: jax.Array) -> jax.Array:
    """- sum over T and D of writes times gradients, [B, W, R] float32, no edge mask."""
    return -jnp.einsum(
        "WBTD,RBTD->BWR",
        writes_WBTD,
        grads_RBTD,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _head_gradient(config: ModelConfig, objective: Objective, params, stream_BTD, batch: Batch):
    """Loss [B] and its gradient with respect to the last stream [B, T, D].

    Only the positions that carry loss go through the output head, a chunk of positions at a time:
    the loss is a weighted sum over positions, so each chunk's gradient is final.
    """
    stream_BJD = jnp.take_along_axis(stream_BTD, batch.positions_BJ[:, :, None], axis=1)
    num_rows, num_targets = batch.targets_BJ.shape
    chunk = max(1, min(num_targets, _HEAD_LOGITS // (num_rows * config.vocab_size)))
    num_chunks = -(-num_targets // chunk)

    def in_chunks(x_BJ):
        padding = [(0, 0), (0, num_chunks * chunk - num_targets)] + [(0, 0)] * (x_BJ.ndim - 2)
        padded = jnp.pad(x_BJ, padding)
        return jnp.moveaxis(padded.reshape(num_rows, num_chunks, chunk, *x_BJ.shape[2:]), 1, 0)

    head = {name: leaf for name, leaf in params.items() if name != "blocks"}
    unembed = functools.partial(
        Transformer(config).apply, {"params": head}, method=Transformer.unembed
    )

    def chunk_gradient(xs):
        stream, targets, weights = xs

        def weighted_loss(stream):
            loss_B = jnp.sum(objective(unembed(stream), targets) * weights, axis=1)
            return loss_B.sum(), loss_B

        grad, loss_B = jax.grad(weighted_loss, has_aux=True)(stream)
        return loss_B, grad

    chunks = tuple(map(in_chunks, (stream_BJD, batch.targets_BJ, batch.weights_BJ)))
    loss_CB, grad_CBjD = jax.lax.map(chunk_gradient, chunks)
    grad_BJD = jnp.moveaxis(grad_CBjD, 0, 1).reshape(num_rows, -1, stream_BTD.shape[-1])
    rows_B1 = jnp.arange(num_rows)[:, None]
    grad_BTD = jnp.zeros_like(stream_BTD)
    grad_BTD = grad_BTD.at[rows_B1, batch.positions_BJ].add(grad_BJD[:, :num_targets])
    return loss_CB.sum(axis=0), grad_BTD
