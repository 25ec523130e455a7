"""The attribution pass cut at its layers: what a scan over layers in memory and a loop over layers
read from disk have in common.

    start -> forward_step for each layer -> head_step -> backward_step for each layer, last first
    -> finish
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.backward import at_positions, block_gradients, head_gradients
from eap_jax.block import Activations, Block, Places
from eap_jax.config import ModelConfig
from eap_jax.graph import Granularity, edge_mask
from eap_jax.objective import Batch, Objective
from eap_jax.sharding import Layout
from eap_jax.transformer import embed


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


@flax.struct.dataclass
class Head:
    """What the output head sends back, one entry a loss.

    Attributes:
      grads: gradients with respect to the last stream, [B, length of the loss, D] each.
      scores_BWA: edges into `logits`.
      losses: [B] float32 each.
    """

    grads: tuple[jax.Array, ...]
    scores_BWA: jax.Array
    losses: tuple[jax.Array, ...]


def start(
    config: ModelConfig, ends: dict, tokens_BT: jax.Array, layout: Layout | None = None
) -> tuple[jax.Array, jax.Array]:
    """The embedded input, and the buffer of all writes [B, W, T, D] with the input in its place.

    The batch comes first in the buffer, as the contraction needs it: gathered by a scan, layers
    would come first and cost a second copy of this largest buffer.
    """
    input_BTD = embed(ends, tokens_BT)
    rows, length, width = input_BTD.shape
    writes_BWTD = jnp.zeros((rows, 1 + 2 * config.num_layers, length, width), input_BTD.dtype)
    return _whole(layout, input_BTD), _apart(layout, writes_BWTD.at[:, 0].set(input_BTD))


def forward_step(
    config: ModelConfig,
    block_params: dict,
    stream_BTD: jax.Array,
    writes_BWTD: jax.Array,
    number,
    window=None,
    layout: Layout | None = None,
) -> tuple[jax.Array, jax.Array, Activations]:
    """Layer `number`: the stream after it, the writes with its own, and its activations."""
    places = Places.of_texts(config, stream_BTD.shape[1])
    stream_BTD, (writes_2BTD, activations) = Block(config).apply(
        {"params": block_params}, stream_BTD, places, window
    )
    writes_B2TD = _whole(layout, jnp.moveaxis(writes_2BTD, 0, 1))
    writes_BWTD = jax.lax.dynamic_update_slice_in_dim(
        writes_BWTD, writes_B2TD, 1 + 2 * number, axis=1
    )
    return _whole(layout, stream_BTD), _apart(layout, writes_BWTD), activations


def head_step(
    config: ModelConfig,
    objective: Objective,
    ends: dict,
    stream_BTD: jax.Array,
    writes_BWTD: jax.Array,
    batch: Batch,
    weights_ABJ: Sequence[jax.Array],
    lengths: Sequence[int],
    most_logits: int,
    layout: Layout | None = None,
) -> Head:
    """Losses, their gradients at the last stream, and the scores of the edges into `logits`."""
    losses_BJ, grads_BJD = head_gradients(
        config, objective, ends, stream_BTD, batch, most_logits=most_logits
    )
    grads = tuple(
        _whole(
            layout,
            at_positions(
                grads_BJD * weights_BJ[..., None], batch.positions_BJ, length, stream_BTD.dtype
            ),
        )
        for weights_BJ, length in zip(weights_ABJ, lengths, strict=True)
    )
    return Head(
        grads=grads,
        scores_BWA=_contract(writes_BWTD, [grad_BTD[:, None] for grad_BTD in grads]),
        losses=tuple(jnp.sum(losses_BJ * weights_BJ, axis=1) for weights_BJ in weights_ABJ),
    )


def backward_step(
    config: ModelConfig,
    block_params: dict,
    kept: Activations | None,
    writes_BWTD: jax.Array,
    grads: Sequence[jax.Array],
    number,
    window=None,
    layout: Layout | None = None,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Layer `number`, from its end to its reads.

    Args:
      config, block_params, window, layout: the layer and where its arrays lie.
      kept: its activations, or None to compute them again from the writes before it.
      writes_BWTD: all writes.
      grads: gradient of each loss with respect to the stream after the layer.
      number: of the layer.

    Returns:
      gradients with respect to the stream before the layer, and the scores of the edges into its
      four reads, [B, W, 4A], the reads of one loss together.
    """
    again = kept is None
    stream_BTD = _whole(layout, _stream_before(writes_BWTD, number)) if again else None
    attention_BTD = jax.lax.dynamic_index_in_dim(writes_BWTD, 1 + 2 * number, 1, False)
    attention_BTD = _whole(layout, attention_BTD)
    reads, before = [], []
    for grad_BTD in grads:
        length = grad_BTD.shape[1]
        prefix = stream_BTD[:, :length] if again else kept.prefix(length)
        reads_B4TD, grad_BTD = block_gradients(
            config, block_params, prefix, attention_BTD[:, :length], grad_BTD,
            Places.of_texts(config, length), window,
        )  # fmt: skip
        reads.append(_whole(layout, reads_B4TD))
        before.append(_whole(layout, grad_BTD))
    return tuple(before), _contract(writes_BWTD, reads)


def finish(scores_LBWX: jax.Array, head: Head, granularity: Granularity) -> tuple[Attribution, ...]:
    """One result a loss from the layers' scores [L, B, W, 4A], first layer first, and the head's."""
    return tuple(
        Attribution(
            scores_BWR=_assemble(
                scores_LBWX[..., 4 * a : 4 * a + 4], head.scores_BWA[..., a : a + 1], granularity
            ),
            loss_B=loss_B,
        )
        for a, loss_B in enumerate(head.losses)
    )


def _assemble(scores_LBW4, logits_scores_BW1, granularity: Granularity) -> jax.Array:
    """Scores [B, W, R] in the order of `graph.reader_names`, zero where there is no edge."""
    if granularity == "block":
        attention_LBW = scores_LBW4[..., :3].sum(axis=-1)
        scores_LBW4 = jnp.stack([attention_LBW, scores_LBW4[..., 3]], axis=-1)
    num_layers, num_rows, num_writers = scores_LBW4.shape[:3]
    scores_BWR = jnp.moveaxis(scores_LBW4, 0, 2).reshape(num_rows, num_writers, -1)
    scores_BWR = jnp.concatenate([scores_BWR, logits_scores_BW1], axis=-1)
    return jnp.where(edge_mask(num_layers, granularity), scores_BWR, 0.0)


def _whole(layout: Layout | None, stream_BTD: jax.Array) -> jax.Array:
    return stream_BTD if layout is None else layout.whole(stream_BTD)


def _apart(layout: Layout | None, writes_BWTD: jax.Array) -> jax.Array:
    return writes_BWTD if layout is None else layout.apart(writes_BWTD)


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
    # T and D as one axis Y: contracted as two, XLA would first transpose a copy of the writes.
    writes_BWY = writes_BWTD.reshape(*writes_BWTD.shape[:2], -1)

    def contract(grads_BRTD):
        beyond = length - grads_BRTD.shape[2]
        padded_BRTD = jnp.pad(grads_BRTD, ((0, 0), (0, 0), (0, beyond), (0, 0)))
        return -jnp.einsum(
            "BWY,BRY->BWR",
            writes_BWY,
            padded_BRTD.reshape(*padded_BRTD.shape[:2], -1),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )

    # A group at a time: on a CPU one product with all of four groups takes twice the time.
    return jnp.concatenate([contract(grads_BRTD) for grads_BRTD in grads], axis=-1)
