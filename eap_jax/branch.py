"""The branch-exact estimator: what an edge does to its reader's own write, times what that write does.

    score(writer O, reader H) = sum over positions and D of
        (write of H's branch with H reading (stream - O)  -  its write)  *  dLoss/d(its write)

for the reads of the layers, and for `logits` the exact effect, the loss with the head reading
(stream - O) minus the loss. Only the way from the branch's write to the loss is linear here; the
branch, with its norm that divides a write's size out of the gradient, is computed. A positive score
predicts that removing the edge raises the loss, as in `attribution`; with attribution's own, linear
branch the two are the same number.

It is attribution's pass with another step for each layer (`branch_step` for `steps.backward_step`)
and another head. A layer's branches run forward once for each of the writers before it, so beside
the pass it costs about W/2 forward passes (W = 1 + 2L) without output head, and W heads on the loss
positions. Where writes are not normalised they are linear in v, and that column needs no attention of
its own.

A column's scores do not add up to zero: that sum says nothing about them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from eap_jax.block import Block, Layer
from eap_jax.config import ModelConfig
from eap_jax.head import target_losses
from eap_jax.places import Places
from eap_jax.sharding import Layout
from eap_jax.steps import (
    Head,
    HeadProgram,
    Passed,
    State,
    Work,
    head_step,
    layer_gradients,
)
from eap_jax.writes import stream_before, whole


def branch_step(
    config: ModelConfig,
    layout: Layout | None,
    layer: Layer,
    passed: Passed,
    grads: Sequence[jax.Array],
    *,
    together: int = 1,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """From the end of a layer back to its start, and the scores of the edges into its reads.

    Args:
      config, layout, layer, passed, grads: see `steps.backward_step`.
      together: writers whose branches run at once, so many copies of the batch. More of them make
        larger products and need more memory.

    Returns:
      see `steps.backward_step`.
    """
    before, reads = layer_gradients(config, layout, layer, passed, grads)
    writes_BWTD, kept = passed.writes_BWTD, passed.kept
    rows, writers, length, _ = writes_BWTD.shape
    together = min(together, writers)
    places, kind = Places.of_texts(config, length), layer.kind
    block = Block(config).bind({"params": layer.params})

    def write_of(place):
        return whole(layout, jax.lax.dynamic_index_in_dim(writes_BWTD, place, 1, False))

    attention_BTD, mlp_BTD = (write_of(1 + 2 * layer.number + place) for place in range(2))
    if kept is None:
        stream_BTD = whole(layout, stream_before(writes_BWTD, layer.number))
        heads = block.attention_in(stream_BTD, stream_BTD, stream_BTD, places, kind)
    else:
        stream_BTD, heads = kept.stream_BTD, (kept.q_BNTH, kept.k_BKTH, kept.v_BKTH)
    middle_BTD = stream_BTD + attention_BTD
    # A norm of the write makes it depend on its own size.
    linear_in_v = config.norm_position == "pre"

    def at_writes(grad_BTD, reads_B4TD):
        """Gradients with respect to the values, the attention's write and the MLP's, all T."""
        beyond = ((0, 0), (0, length - grad_BTD.shape[1]), (0, 0))
        attention = jnp.pad(grad_BTD + reads_B4TD[:, 3], beyond)
        _, pull = jax.vjp(
            lambda v: block.attention_out(heads[0], heads[1], v, places, kind), heads[2]
        )
        return pull(attention)[0], attention, jnp.pad(grad_BTD, beyond)

    gradients = [at_writes(*of_loss) for of_loss in zip(grads, reads, strict=True)]

    def copies(x):
        return jnp.repeat(x, together, axis=0)

    def some(number, scores_BWX):
        """The scores of `together` writers; where fewer are left, of some once more."""
        first = number * together
        taken_BTD = jax.lax.dynamic_slice_in_dim(writes_BWTD, first, together, 1)
        taken_BTD = whole(layout, taken_BTD.reshape(-1, *taken_BTD.shape[2:]))
        read_BTD = copies(stream_BTD) - taken_BTD
        q, k, v = block.attention_in(read_BTD, read_BTD, read_BTD, places, kind)
        q_whole, k_whole, v_whole = map(copies, heads)
        outcomes = (
            (block.attention_out(q, k_whole, v_whole, places, kind), attention_BTD, 1),
            (block.attention_out(q_whole, k, v_whole, places, kind), attention_BTD, 1),
            (v, heads[2], 0)
            if linear_in_v
            else (block.attention_out(q_whole, k_whole, v, places, kind), attention_BTD, 1),
            (block.mlp_out(*block.mlp_in(copies(middle_BTD) - taken_BTD)), mlp_BTD, 2),
        )
        found = [
            [_along(after, before, of_loss[place]) for after, before, place in outcomes]
            for of_loss in gradients
        ]
        found_BWX = jnp.stack([score for of_loss in found for score in of_loss], axis=-1)
        return jax.lax.dynamic_update_slice_in_dim(scores_BWX, found_BWX, first, 1)

    # The layer's last reader is its MLP, which the attention of the same layer writes for.
    seen = 2 + 2 * layer.number
    zeros_BWX = jnp.zeros((rows, writers, 4 * len(grads)), jnp.float32)
    return before, jax.lax.fori_loop(0, -(-seen // together), some, zeros_BWX)


def branch_head(program: HeadProgram, ends: dict, state: State, work: Work) -> Head:
    """What `steps.head_step` gives, with the exact effects of the edges into `logits`."""
    head = head_step(program, ends, state, work)
    batch = work.batch
    places_BJ1 = batch.positions_BJ[:, :, None]

    def losses(read_BJD):
        return target_losses(
            program.config, program.objective, ends, read_BJD, batch.targets_BJ,
            most_logits=program.most_logits,
        )  # fmt: skip

    last_BJD = jnp.take_along_axis(state.stream_BTD, places_BJ1, axis=1)

    def change(writer):
        write_BTD = jax.lax.dynamic_index_in_dim(state.writes_BWTD, writer, 1, False)
        write_BJD = jnp.take_along_axis(write_BTD, places_BJ1, axis=1)
        return losses(last_BJD - write_BJD) - head.target_losses_BJ

    changes_WBJ = jax.lax.map(change, jnp.arange(state.writes_BWTD.shape[1]))
    scores = [
        jnp.einsum("WBJ,BJ->BW", changes_WBJ, weights_BJ, precision=jax.lax.Precision.HIGHEST)
        for weights_BJ in work.weights_ABJ
    ]
    return head.replace(scores_BWA=jnp.stack(scores, axis=-1))


def _along(after, before, grad) -> jax.Array:
    """[B, W] float32: the changes of something [BW, ...] from [B, ...], along its gradient."""
    rows = len(before)
    change = after.reshape(rows, -1, *before.shape[1:]).astype(jnp.float32) - before[:, None]
    return jnp.einsum(
        "BWI,BI->BW",
        change.reshape(rows, change.shape[1], -1),
        grad.reshape(rows, -1).astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
