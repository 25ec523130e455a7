"""The attribution pass cut at its layers. A scan over layers in memory (attribution.py) and a loop
over layers read from disk (streaming.py) are made of the same steps:

    start -> forward_step for each layer -> head_step -> backward_step for each layer, last first
    -> finish
"""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from eap_jax.backward import at_positions, block_gradients, head_gradients
from eap_jax.block import Activations, Block, Layer
from eap_jax.config import ModelConfig
from eap_jax.graph import Granularity, edge_mask
from eap_jax.objective import Batch, Objective
from eap_jax.places import Places
from eap_jax.sharding import Layout
from eap_jax.transformer import embed
from eap_jax.writes import apart, contract, stream_before, whole


@flax.struct.dataclass(kw_only=True)
class Work:
    """One batch and its losses; see `attribution.attribute_prefixes`.

    Attributes:
      batch: the texts.
      weights_ABJ: weights of the targets in each loss, [B, J] each.
      lengths: places that each loss depends on.
    """

    batch: Batch
    weights_ABJ: tuple[jax.Array, ...]
    lengths: tuple[int, ...] = flax.struct.field(pytree_node=False)


@flax.struct.dataclass(kw_only=True)
class State:
    """Where a forward pass stands between two layers.

    Attributes:
      stream_BTD: the residual stream.
      writes_BWTD: all writes, see `start`; those of layers to come are 0.
    """

    stream_BTD: jax.Array
    writes_BWTD: jax.Array


@flax.struct.dataclass(kw_only=True)
class Passed:
    """What the forward pass leaves for the way back through one layer.

    Attributes:
      writes_BWTD: all writes.
      kept: the layer's activations, or None to compute them again from the writes before it.
    """

    writes_BWTD: jax.Array
    kept: Activations | None


@flax.struct.dataclass
class Attribution:
    """Edge scores and losses, one a sample.

    Attributes:
      scores_BWR: [B, W, R] float32; an entry without an edge is 0. A positive score predicts that
        removing the edge raises the loss.
      loss_B: [B] float32, nats.
      target_losses_BJ: [B, J] float32, nats: the loss at each target, whatever its weight.
      gradient_norm_B: [B] float32: norm of the loss's gradient at the last stream, over all its
        places and numbers.
    """

    scores_BWR: jax.Array
    loss_B: jax.Array
    target_losses_BJ: jax.Array
    gradient_norm_B: jax.Array


@flax.struct.dataclass
class Head:
    """What the output head sends back, one entry a loss.

    Attributes:
      grads: gradients with respect to the last stream, [B, length of the loss, D] each.
      scores_BWA: edges into `logits`.
      losses: [B] float32 each.
      target_losses_BJ: before they are weighted.
      gradient_norms: [B] float32 each, of `grads`.
    """

    grads: tuple[jax.Array, ...]
    scores_BWA: jax.Array
    losses: tuple[jax.Array, ...]
    target_losses_BJ: jax.Array
    gradient_norms: tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadProgram:
    """What the compiled output head is made for.

    Attributes:
      config: the model.
      objective: per-position loss to differentiate.
      most_logits: logits held at once, about.
      layout: where the arrays lie on a mesh, or None.
    """

    config: ModelConfig
    objective: Objective
    most_logits: int
    layout: Layout | None = None


def start(config: ModelConfig, layout: Layout | None, ends: dict, tokens_BT: jax.Array) -> State:
    """The state before the first layer: the embedded input, and a buffer that holds it as a write.

    The buffer has its batch axis first, as the contraction needs it. If a scan gathered the writes,
    layers would come first, and moving them would cost a second copy of this largest buffer.

    A GPU multiplies numbers of 16 bits in eights; the compiler would copy the buffer in each layer to
    fill up the writers. So then there are some more of them, which stay 0; `finish` drops them.
    """
    input_BTD = embed(config, ends, tokens_BT)
    rows, length, width = input_BTD.shape
    writers = buffered_writers(config.num_layers, input_BTD.dtype.itemsize)
    writes_BWTD = jnp.zeros((rows, writers, length, width), input_BTD.dtype)
    return State(
        stream_BTD=whole(layout, input_BTD),
        writes_BWTD=apart(layout, writes_BWTD.at[:, 0].set(input_BTD)),
    )


def buffered_writers(num_layers: int, itemsize: int) -> int:
    """Writers in the buffer of `start`, for activations of so many bytes a number."""
    writers = 1 + 2 * num_layers
    return -(-writers // 8) * 8 if itemsize == 2 else writers


def forward_step(
    config: ModelConfig, layout: Layout | None, layer: Layer, state: State
) -> tuple[State, Activations]:
    """The state after a layer, and the layer's activations."""
    places = Places.of_texts(config, state.stream_BTD.shape[1])
    stream_BTD, (writes_2BTD, activations) = Block(config).apply(
        {"params": layer.params}, state.stream_BTD, places, layer.kind
    )
    writes_BWTD = state.writes_BWTD
    # One by one: as a pair, whose axis comes first, they would make a GPU's buffer have writers first.
    for place in range(2):
        write_B1TD = whole(layout, writes_2BTD[place])[:, None]
        writes_BWTD = jax.lax.dynamic_update_slice_in_dim(
            writes_BWTD, write_B1TD, 1 + 2 * layer.number + place, axis=1
        )
    after = State(stream_BTD=whole(layout, stream_BTD), writes_BWTD=apart(layout, writes_BWTD))
    return after, activations


def head_step(program: HeadProgram, ends: dict, state: State, work: Work) -> Head:
    """Losses, their gradients at the last stream, and the scores of the edges into `logits`."""
    batch, dtype = work.batch, state.stream_BTD.dtype
    losses_BJ, grads_BJD = head_gradients(
        program.config, program.objective, ends, state.stream_BTD, batch,
        most_logits=program.most_logits,
    )  # fmt: skip
    grads = tuple(
        whole(
            program.layout,
            at_positions(grads_BJD * weights_BJ[..., None], batch.positions_BJ, length, dtype),
        )
        for weights_BJ, length in zip(work.weights_ABJ, work.lengths, strict=True)
    )
    return Head(
        grads=grads,
        scores_BWA=contract(state.writes_BWTD, [grad_BTD[:, None] for grad_BTD in grads]),
        losses=tuple(jnp.sum(losses_BJ * weights_BJ, axis=1) for weights_BJ in work.weights_ABJ),
        target_losses_BJ=losses_BJ,
        gradient_norms=tuple(
            jnp.sqrt(jnp.sum(grad_BTD.astype(jnp.float32) ** 2, axis=(1, 2))) for grad_BTD in grads
        ),
    )


def backward_step(
    config: ModelConfig,
    layout: Layout | None,
    layer: Layer,
    passed: Passed,
    grads: Sequence[jax.Array],
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """From the end of a layer back to its reads.

    Args:
      config: the model.
      layout: where the arrays lie on a mesh, or None.
      layer: the layer.
      passed: what the forward pass left.
      grads: gradient of each loss with respect to the stream after the layer.

    Returns:
      gradients with respect to the stream before the layer, and the scores of the edges into its
      four reads, [B, W, X], the reads of one loss together.
    """
    before, reads = layer_gradients(config, layout, layer, passed, grads)
    return before, contract(passed.writes_BWTD, reads)


def layer_gradients(
    config: ModelConfig,
    layout: Layout | None,
    layer: Layer,
    passed: Passed,
    grads: Sequence[jax.Array],
) -> tuple[tuple[jax.Array, ...], list[jax.Array]]:
    """The gradients of each loss before a layer [B, T', D] and at its reads [B, 4, T', D].

    Args:
      config, layout, layer, passed, grads: see `backward_step`.
    """
    writes_BWTD, kept = passed.writes_BWTD, passed.kept
    again = kept is None
    stream_BTD = whole(layout, stream_before(writes_BWTD, layer.number)) if again else None
    attention_BTD = jax.lax.dynamic_index_in_dim(writes_BWTD, 1 + 2 * layer.number, 1, False)
    attention_BTD = whole(layout, attention_BTD)
    reads, before = [], []
    for grad_BTD in grads:
        length = grad_BTD.shape[1]
        prefix = stream_BTD[:, :length] if again else kept.prefix(length)
        reads_B4TD, grad_BTD = block_gradients(
            config, layer, prefix, attention_BTD[:, :length], grad_BTD
        )
        reads.append(whole(layout, reads_B4TD))
        before.append(whole(layout, grad_BTD))
    return tuple(before), reads


def finish(scores_LBWX: jax.Array, head: Head, granularity: Granularity) -> tuple[Attribution, ...]:
    """One result a loss from the layers' scores [L, B, W, X], first layer first, and the head's."""
    return tuple(
        Attribution(
            scores_BWR=_assemble(
                scores_LBWX[..., 4 * a : 4 * a + 4], head.scores_BWA[..., a : a + 1], granularity
            ),
            loss_B=loss_B,
            target_losses_BJ=head.target_losses_BJ,
            gradient_norm_B=head.gradient_norms[a],
        )
        for a, loss_B in enumerate(head.losses)
    )


def _assemble(
    scores_LBW4: jax.Array, logits_scores_BW1: jax.Array, granularity: Granularity
) -> jax.Array:
    """Scores [B, W, R] in the order of `graph.reader_names`, zero where there is no edge."""
    if granularity == "block":
        attention_LBW = scores_LBW4[..., :3].sum(axis=-1)
        scores_LBW4 = jnp.stack([attention_LBW, scores_LBW4[..., 3]], axis=-1)
    num_layers, num_rows, num_writers = scores_LBW4.shape[:3]
    scores_BWR = jnp.moveaxis(scores_LBW4, 0, 2).reshape(num_rows, num_writers, -1)
    scores_BWR = jnp.concatenate([scores_BWR, logits_scores_BW1], axis=-1)[:, : 1 + 2 * num_layers]
    return jnp.where(edge_mask(num_layers, granularity), scores_BWR, 0.0)
