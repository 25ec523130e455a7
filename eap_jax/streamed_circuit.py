"""Circuits of a model larger than memory: `circuit`, one layer in memory at a time.

Each circuit needs all of its own writes, since any later reader may read any of them. So one reading
of the weights serves as many circuits as there is room for their writes.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from eap_jax.block import Block, Layer
from eap_jax.circuit import (
    circuit_head,
    circuit_layer,
    circuit_reads,
    first_writes,
    mean_of,
    token_shares,
)
from eap_jax.config import ModelConfig
from eap_jax.objective import Batch, Objective, self_entropy
from eap_jax.parameters import head_name
from eap_jax.places import Kind, Places
from eap_jax.sharding import gathered
from eap_jax.streaming import Weights
from eap_jax.transformer import embed


def circuit_losses_streamed(
    weights: Weights,
    batch: Batch,
    circuits: Sequence[np.ndarray],
    means_WD: np.ndarray | None = None,
    *,
    config: ModelConfig,
    objective: Objective = self_entropy,
    most_kept: int = 2**30,
    progress: Callable[[int], object] = lambda circuits: None,
) -> Iterator[np.ndarray]:
    """The same as `circuit_losses` for several circuits, the weights read a layer at a time.

    Args:
      weights: gives the parameters.
      batch, means_WD, config, objective: see `circuit_losses`.
      circuits: what each keeps, [1+2L, 4L+1], in every text.
      most_kept: bytes of the writes of all circuits of one reading, about; one runs at least.
      progress: called with the number of circuits done since its last call.

    Yields:
      [B, J] float32 of each circuit, in their order.
    """
    rows, length = batch.tokens_BT.shape
    itemsize = 4  # float32 activations at most
    bytes_each = itemsize * rows * (1 + 2 * config.num_layers) * length * config.d_model
    together = max(1, most_kept // bytes_each)
    for first in range(0, len(circuits), together):
        part = circuits[first : first + together]
        ends = weights.ends(("embed",))
        input_BTD = _embed(config, ends, batch.tokens_BT)
        del ends
        reads = [
            circuit_reads(
                input_BTD,
                np.broadcast_to(kept_WR, (rows, *kept_WR.shape)),
                means_WD,
                config=config,
            )
            for kept_WR in part
        ]
        writes = [first_writes(input_BTD, config.num_layers) for _ in part]
        for layer in _layers(weights, config):
            for place, (reads_L, _) in enumerate(reads):
                here = jax.tree.map(lambda leaf, n=layer.number: leaf[n], reads_L)
                writes[place] = _circuit_layer(config, layer, writes[place], here)
            jax.block_until_ready(writes)  # before the next layer is in memory too
        del layer
        ends = weights.ends(("final_norm", head_name(config)))
        for writes_BWTD, (_, last) in zip(writes, reads, strict=True):
            yield gathered(
                _circuit_head(ends, batch, writes_BWTD, last, config=config, objective=objective)
            )
        del ends
        progress(len(part))


def mean_writes_streamed(
    weights: Weights, batches: Sequence[Batch], *, config: ModelConfig
) -> list[np.ndarray]:
    """`mean_writes` of several batches, [B, 1+2L, D] each, from one reading of the weights."""
    ends = weights.ends(("embed",))
    streams = [_embed(config, ends, batch.tokens_BT) for batch in batches]
    del ends
    shares = [token_shares(batch) for batch in batches]
    means = [
        [mean_of(stream_BTD[None], share_BT)]
        for stream_BTD, share_BT in zip(streams, shares, strict=True)
    ]
    for layer in _layers(weights, config):
        for place, share_BT in enumerate(shares):
            streams[place], means_2BD = _whole_layer(config, layer, streams[place], share_BT)
            means[place].append(means_2BD)
        jax.block_until_ready(streams)
    return [np.moveaxis(np.concatenate([*map(gathered, found)]), 0, 1) for found in means]


def _layers(weights: Weights, config: ModelConfig) -> Iterator[Layer]:
    kinds, numbers = Kind.stacked(config), range(config.num_layers)
    for number, params in zip(numbers, weights.blocks(numbers), strict=True):
        yield Layer(params=params, number=number, kind=kinds.of(number))


_embed = jax.jit(embed, static_argnames="config")
_circuit_layer = jax.jit(circuit_layer, static_argnames=("config",), donate_argnames="writes_BWTD")
_circuit_head = jax.jit(circuit_head, static_argnames=("config", "objective"))


@functools.partial(jax.jit, static_argnames=("config",))
def _whole_layer(config: ModelConfig, layer: Layer, stream_BTD, share_BT):
    """The stream after a layer of the whole model, and the means [2, B, D] of its writes."""
    length = stream_BTD.shape[1]
    places = Places.of_texts(config.for_length(length), length)
    after_BTD, (writes_2BTD, _) = Block(config).apply(
        {"params": layer.params}, stream_BTD, places, layer.kind
    )
    return after_BTD, mean_of(writes_2BTD, share_BT)
