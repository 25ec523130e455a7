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
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.backward import at_positions, block_gradients, head_gradients
from eap_jax.config import ModelConfig
from eap_jax.graph import Granularity, edge_mask
from eap_jax.objective import Batch, Objective, self_entropy
from eap_jax.transformer import Block, Places, Transformer, windows

# Logits held at once by the output head, without and with remat: 64 and 16 MiB of float32.
_HEAD_LOGITS = {False: 2**24, True: 2**22}


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
      remat: keep only the writes and recompute the rest in the backward sweep: less memory, half
        as much again compute.

    Returns:
      `Attribution`.
    """
    (found,) = attribute_prefixes(
        params,
        batch,
        (batch.weights_BJ,),
        lengths=(batch.tokens_BT.shape[1],),
        config=config,
        objective=objective,
        granularity=granularity,
        remat=remat,
    )
    return found


@functools.partial(
    jax.jit, static_argnames=("lengths", "config", "objective", "granularity", "remat")
)
def attribute_prefixes(
    params: dict,
    batch: Batch,
    weights_ABJ: Sequence[jax.Array],
    *,
    lengths: tuple[int, ...],
    config: ModelConfig,
    objective: Objective = self_entropy,
    granularity: Granularity = "qkv",
    remat: bool = False,
) -> tuple[Attribution, ...]:
    """Scores of all edges for several losses on prefixes of the same texts, one forward for all.

    The model is causal: what it computes at a place does not depend on later ones. So the forward
    pass and the output head run once on the whole texts, and each loss has its own backward sweep,
    over the places before its end only.

    Args:
      params, config, objective, granularity, remat: see `attribute`.
      batch: the whole texts; its own weights are not used.
      weights_ABJ: weights of the targets in each of the A losses, [B, J] each.
      lengths: the places, from the first, that each loss depends on: every target of weight above 0
        is predicted before its loss's length. Each is at most T.

    Returns:
      one `Attribution` a loss, as `attribute` gives it for the shortened texts.
    """
    places = Places.of_texts(config, batch.tokens_BT.shape[1])
    input_BTD = Transformer(config).apply(
        {"params": params}, batch.tokens_BT, method=Transformer.embed
    )
    stream_BTD, writes_BWTD, kept = _forward(config, params, input_BTD, places, keep=not remat)

    losses_BJ, grads_BJD = head_gradients(
        config, objective, params, stream_BTD, batch, most_logits=_HEAD_LOGITS[remat]
    )
    # One copy of the last stream's gradient a loss, cut to what the loss depends on.
    grads = [
        at_positions(
            grads_BJD * weights_BJ[..., None], batch.positions_BJ, length, stream_BTD.dtype
        )
        for weights_BJ, length in zip(weights_ABJ, lengths, strict=True)
    ]
    ends = [Places.of_texts(config, length) for length in lengths]
    logits_scores_BWA = _contract(writes_BWTD, [grad_BTD[:, None] for grad_BTD in grads])

    def sweep(grads, layer):
        block_params, kept, window, number = layer
        if kept is None:
            kept = _stream_before(writes_BWTD, number)
        attention_BTD = jax.lax.dynamic_index_in_dim(writes_BWTD, 1 + 2 * number, 1, False)
        reads, before = [], []
        for grad_BTD, places in zip(grads, ends, strict=True):
            length = grad_BTD.shape[1]
            kept_a, attention_a = jax.tree.map(lambda x: x[:, :length], (kept, attention_BTD))  # noqa: B023
            reads_B4TD, grad_BTD = block_gradients(
                config, block_params, kept_a, attention_a, grad_BTD, places, window
            )
            reads.append(reads_B4TD)
            before.append(grad_BTD)
        return before, _contract(writes_BWTD, reads)

    layers = (params["blocks"], kept, windows(config), jnp.arange(config.num_layers))
    _, scores_LBWX = jax.lax.scan(sweep, grads, layers, reverse=True)
    return tuple(
        Attribution(
            scores_BWR=_assemble(
                scores_LBWX[..., 4 * a : 4 * a + 4], logits_scores_BWA[..., a : a + 1], granularity
            ),
            loss_B=jnp.sum(losses_BJ * weights_BJ, axis=1),
        )
        for a, weights_BJ in enumerate(weights_ABJ)
    )


def _forward(config: ModelConfig, params, input_BTD: jax.Array, places: Places, keep: bool):
    """Last stream [B, T, D], all writes [B, W, T, D] and, if kept, all activations (L first).

    The writes are gathered with the batch first, as the contraction needs them: the layer scan's
    own stacking would put layers first and cost a second copy of this largest buffer.
    """
    shape = (1 + 2 * config.num_layers, *input_BTD.shape[1:])
    writes_BWTD = jnp.zeros((len(input_BTD), *shape), input_BTD.dtype).at[:, 0].set(input_BTD)

    def layer(carry, layer):
        stream_BTD, writes_BWTD = carry
        block_params, window, number = layer
        stream_BTD, (writes_2BTD, activations) = Block(config).apply(
            {"params": block_params}, stream_BTD, places, window
        )
        writes_BWTD = jax.lax.dynamic_update_slice_in_dim(
            writes_BWTD, jnp.moveaxis(writes_2BTD, 0, 1), 1 + 2 * number, axis=1
        )
        return (stream_BTD, writes_BWTD), activations if keep else None

    layers = (params["blocks"], windows(config), jnp.arange(config.num_layers))
    (stream_BTD, writes_BWTD), kept = jax.lax.scan(layer, (input_BTD, writes_BWTD), layers)
    return stream_BTD, writes_BWTD, kept


def _assemble(scores_LBW4, logits_scores_BW1, granularity: Granularity) -> jax.Array:
    """Scores [B, W, R] in the order of `graph.reader_names`, zero where there is no edge."""
    if granularity == "block":
        attention_LBW = scores_LBW4[..., :3].sum(axis=-1)
        scores_LBW4 = jnp.stack([attention_LBW, scores_LBW4[..., 3]], axis=-1)
    num_layers, num_rows, num_writers = scores_LBW4.shape[:3]
    scores_BWR = jnp.moveaxis(scores_LBW4, 0, 2).reshape(num_rows, num_writers, -1)
    scores_BWR = jnp.concatenate([scores_BWR, logits_scores_BW1], axis=-1)
    return jnp.where(edge_mask(num_layers, granularity), scores_BWR, 0.0)


def _stream_before(writes_BWTD: jax.Array, number: jax.Array) -> jax.Array:
    """The stream that layer `number` reads: earlier writes added in the forward order, so the sum
    has the same bits as in the forward pass."""

    def add(writer, stream_BTD):
        return stream_BTD + jax.lax.dynamic_index_in_dim(writes_BWTD, writer, 1, False)

    return jax.lax.fori_loop(1, 1 + 2 * number, add, writes_BWTD[:, 0])


def _contract(writes_BWTD: jax.Array, grads: Sequence[jax.Array]) -> jax.Array:
    """- sum over T and D of writes times gradients, no edge mask.

    Args:
      writes_BWTD: all writes.
      grads: groups of gradients [B, R, T', D]; beyond T' they are zero.

    Returns:
      [B, W, all R of all groups] float32.
    """
    length = writes_BWTD.shape[2]
    grads_BRTD = jnp.concatenate(
        [jnp.pad(g, ((0, 0), (0, 0), (0, length - g.shape[2]), (0, 0))) for g in grads], axis=1
    )
    # T and D as one axis E: contracted as two, XLA would first transpose a copy of the writes.
    writes_BWE, grads_BRE = (x.reshape(*x.shape[:2], -1) for x in (writes_BWTD, grads_BRTD))
    return -jnp.einsum(
        "BWE,BRE->BWR",
        writes_BWE,
        grads_BRE,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
