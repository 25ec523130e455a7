"""Edge attribution of a model that does not fit in memory, one layer at a time.

The same steps as attribution.py, in a loop over layers, each read when it is needed: once on the way
forward and once on the way back. All batches pass through a layer while it is in memory, so it is
read once for all of them. The writes of all batches stay in memory, and the activations of
`keep_layers` layers.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp

from eap_jax.attribution import Estimator, method
from eap_jax.block import Layer
from eap_jax.checks import check_losses, check_named, config_of_losses
from eap_jax.config import ModelConfig
from eap_jax.graph import Granularity
from eap_jax.head import HEAD_LOGITS
from eap_jax.objective import Objective, self_entropy
from eap_jax.parameters import block_axes, end_axes, head_name
from eap_jax.places import Kind
from eap_jax.steps import (
    Attribution,
    HeadProgram,
    Passed,
    Work,
    finish,
    forward_step,
    start,
)


class Weights(Protocol):
    """Where a model's parameters come from, a part at a time."""

    def blocks(self, layers: Sequence[int]) -> Iterator[dict]:
        """The parameters of each layer in this order, as `parameters.block_axes` names them."""

    def ends(self, names: Sequence[str]) -> dict:
        """The named parameters outside the blocks."""


def attribute_streamed(
    weights: Weights,
    work: Sequence[Work],
    *,
    config: ModelConfig,
    objective: Objective = self_entropy,
    granularity: Granularity = "qkv",
    keep_layers: int | None = None,
    estimator: Estimator = "eap",
    progress: Callable[[], object] = lambda: None,
) -> list[tuple[Attribution, ...]]:
    """Scores of all edges for several batches.

    Args:
      weights: gives the parameters; every layer is asked for twice, in the forward order and back.
      work: the batches.
      config, objective, granularity: see `attribution.attribute`.
      keep_layers: keep the activations of so many layers, the last ones, and compute those of the
        others again on the way back; None: keep all.
      estimator: see `attribution.attribute_prefixes`; the branches of one writer run at once.
      progress: called after each of the 2 L steps through a layer.

    Returns:
      for each batch what `attribution.attribute_prefixes` returns.

    Raises:
      ValueError: see `attribution.attribute_prefixes`; parameters are looked at as they are read.
    """
    configs = []
    for item in work:
        check_losses(item.batch, item.weights_ABJ, item.lengths)
        configs.append(config_of_losses(config, item.batch.tokens_BT.shape[1], item.lengths))
    declared = end_axes(config)
    ends = weights.ends(("embed",))
    check_named("embedding", ends, {"embed": declared["embed"]}, config)
    states = [_start(config, None, ends, item.batch.tokens_BT) for item in work]
    del ends
    kept = [[None] * config.num_layers for _ in work]
    kinds = Kind.stacked(config)
    numbers = range(config.num_layers)
    first_kept = 0 if keep_layers is None else config.num_layers - keep_layers

    def read(order: Sequence[int]) -> Iterator[Layer]:
        for number, params in zip(order, weights.blocks(order), strict=True):
            check_named(f"layer {number}", params, block_axes(config), config)
            yield Layer(params=params, number=number, kind=kinds.of(number))

    for layer in read(numbers):
        for index, state in enumerate(states):
            states[index], activations = _forward(configs[index], None, layer, state)
            if layer.number >= first_kept:
                kept[index][layer.number] = activations
            del activations
        jax.block_until_ready(states)  # else the next layer would be read into memory as well
        progress()

    del layer  # the head is the largest part, and the way back reads this layer again
    ends = weights.ends(("final_norm", head_name(config)))
    check_named("output head", ends, {name: declared[name] for name in ends}, config)
    program = HeadProgram(
        config=config, objective=objective, most_logits=HEAD_LOGITS[first_kept > 0]
    )
    head_of, backward = _compiled(estimator, granularity)
    heads = [head_of(program, ends, state, item) for state, item in zip(states, work, strict=True)]
    jax.block_until_ready(heads)
    del ends
    writes = [state.writes_BWTD for state in states]
    del states, state
    grads = [head.grads for head in heads]
    scores = [[None] * config.num_layers for _ in work]
    for layer in read(numbers[::-1]):
        for index in range(len(work)):
            passed = Passed(writes_BWTD=writes[index], kept=kept[index][layer.number])
            grads[index], scores[index][layer.number] = backward(
                configs[index], None, layer, passed, grads[index]
            )
            del passed
            kept[index][layer.number] = None
        jax.block_until_ready(grads)
        progress()
    return [
        finish(jnp.stack(scores_LBWX), head, granularity)
        for scores_LBWX, head in zip(scores, heads, strict=True)
    ]


# One compiled program a shape serves all layers. The stream and the writes are updated in place.
_PLACE = ("config", "layout")
_start = jax.jit(start, static_argnames=_PLACE)
_forward = jax.jit(forward_step, static_argnames=_PLACE, donate_argnames="state")


@functools.cache
def _compiled(estimator: Estimator, granularity: Granularity) -> tuple[Callable, Callable]:
    """The output head and the step back through a layer."""
    head, step = method(estimator, granularity)
    return (
        jax.jit(head, static_argnames="program"),
        jax.jit(step, static_argnames=_PLACE, donate_argnames="grads"),
    )
