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
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from eap_jax.block import Layer
from eap_jax.branch import branch_head, branch_step
from eap_jax.checks import check_array, check_losses, check_parameters, config_of_losses
from eap_jax.config import ModelConfig
from eap_jax.graph import Granularity, single_writer_edges
from eap_jax.head import HEAD_LOGITS
from eap_jax.objective import Batch, Objective, self_entropy
from eap_jax.places import Kind
from eap_jax.sharding import Layout
from eap_jax.steps import (
    Attribution,
    HeadProgram,
    Passed,
    Work,
    backward_step,
    finish,
    forward_step,
    head_step,
    start,
)

Estimator = Literal["eap", "branch"]
ESTIMATORS: tuple[str, ...] = ("eap", "branch")


def not_measurable(estimator: Estimator, num_layers: int) -> tuple[tuple[int, int], ...]:
    """Edges (writer, reader) to which an estimator gives 0 whatever cutting them does.

    Only a derivative along the write is lost in the norm (`graph.single_writer_edges`); the branch
    estimator computes the reader without it.
    """
    return single_writer_edges(num_layers) if estimator == "eap" else ()


def method(
    estimator: Estimator, granularity: Granularity = "qkv", together: int = 1
) -> tuple[Callable, Callable]:
    """The output head and the step through a layer of an estimator, see `attribute_prefixes`.

    Raises:
      ValueError: there is no such estimator, or it has no scores of this granularity.
    """
    if estimator == "eap":
        return head_step, backward_step
    if estimator != "branch":
        raise ValueError(f"estimator: expected eap or branch, found {estimator!r}")
    if granularity != "qkv":
        raise ValueError("estimator branch: expected granularity qkv, whose reads it scores apart")
    return branch_head, functools.partial(branch_step, together=together)


@functools.partial(
    jax.jit,
    static_argnames=("config", "objective", "granularity", "remat", "layout", "most_logits"),
)
def attribute(
    params: dict,
    batch: Batch,
    *,
    config: ModelConfig,
    objective: Objective = self_entropy,
    granularity: Granularity = "qkv",
    remat: bool = False,
    layout: Layout | None = None,
    most_logits: int | None = None,
) -> Attribution:
    """Scores of all edges for a batch of responses.

    Args:
      params: parameters in the structure of `parameters.parameter_axes`, any float dtype; the
        activations take the same dtype. Sharded parameters and batches give the same scores.
      batch: texts and targets. Rows do not influence each other, nor does padding.
      config: the model.
      objective: per-position loss to differentiate.
      granularity: `qkv` scores the q, k and v reads apart (R = 4L+1), `block` their sum (R = 2L+1).
      remat: keep only the writes and recompute the rest in the backward sweep: less memory, 1.5
        times the operations.
      layout: where streams and writes lie on a mesh (`sharding.layout`); None: the compiler decides.
      most_logits: logits that the output head holds at once, about; None: `HEAD_LOGITS[remat]`. A
        GPU needs more of them than a CPU to be busy.

    Returns:
      `Attribution`.

    Raises:
      ValueError: a parameter or an array of the batch has another shape or kind of dtype.
    """
    check_array("batch.tokens_BT", batch.tokens_BT, "BT", jnp.integer)
    (found,) = attribute_prefixes(
        params,
        batch,
        (batch.weights_BJ,),
        lengths=(batch.tokens_BT.shape[1],),
        config=config,
        objective=objective,
        granularity=granularity,
        remat=remat,
        layout=layout,
        most_logits=most_logits,
    )
    return found


@functools.partial(
    jax.jit,
    static_argnames=(
        "lengths", "config", "objective", "granularity", "remat", "layout", "most_logits",
        "estimator", "together",
    ),
)  # fmt: skip
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
    layout: Layout | None = None,
    most_logits: int | None = None,
    estimator: Estimator = "eap",
    together: int = 1,
) -> tuple[Attribution, ...]:
    """Scores of all edges for several losses on prefixes of the same texts, one forward for all.

    The model is causal: what it computes at a place does not depend on later ones. So the forward
    pass and the output head run once on the whole texts, and each loss has its own backward sweep,
    over the places before its end only.

    Args:
      params, config, objective, granularity, remat, layout, most_logits: see `attribute`.
      batch: the whole texts; its own weights are not used.
      weights_ABJ: weights of the targets in each of the A losses, [B, J] each.
      lengths: the places, from the first, that each loss depends on: every target of weight above 0
        is predicted before its loss's length. Each is at most T.
      estimator: `eap`, or `branch`, which computes the reader's branch without the write (`branch`).
      together: writers whose branches run at once, for `branch`.

    Returns:
      one `Attribution` a loss, as `attribute` gives it for the shortened texts.

    Raises:
      ValueError: see `attribute`; or weights and lengths do not fit the batch or each other; or the
        branch estimator is asked for granularity `block`, whose scores are not sums of its own.
    """
    check_parameters(params, config)
    check_losses(batch, weights_ABJ, lengths)
    config = config_of_losses(config, batch.tokens_BT.shape[1], lengths)

    work = Work(batch=batch, weights_ABJ=tuple(weights_ABJ), lengths=lengths)
    program = HeadProgram(
        config=config,
        objective=objective,
        most_logits=most_logits or HEAD_LOGITS[remat],
        layout=layout,
    )
    layers = Layer(
        params=params["blocks"], number=jnp.arange(config.num_layers), kind=Kind.stacked(config)
    )

    def forward(state, layer):
        state, activations = forward_step(config, layout, layer, state)
        return state, None if remat else activations

    state, kept = jax.lax.scan(forward, start(config, layout, params, batch.tokens_BT), layers)
    head_of, step = method(estimator, granularity, together)
    head = head_of(program, params, state, work)

    def backward(grads, of_layer):
        layer, kept = of_layer
        passed = Passed(writes_BWTD=state.writes_BWTD, kept=kept)
        return step(config, layout, layer, passed, grads)

    _, scores_LBWX = jax.lax.scan(backward, head.grads, (layers, kept), reverse=True)
    return finish(scores_LBWX, head, granularity)
