"""Exact effects of edges in a model larger than memory: `ablation`, one layer in memory at a time.

Every cut starts when its reader's layer is read, and goes on beside the whole model through the layers
after it. So one reading of the weights serves many cuts, where `ablation` resumes each from the
streams that it has kept.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from eap_jax.ablation import CutLosses, Edge, check_edges, losses_at_head
from eap_jax.block import READS, Block
from eap_jax.config import ModelConfig
from eap_jax.objective import Batch, Objective, self_entropy
from eap_jax.parameters import head_name
from eap_jax.places import Kind, Places
from eap_jax.sharding import gathered
from eap_jax.streaming import Weights
from eap_jax.transformer import embed


def cut_losses_streamed(
    weights: Weights,
    batch: Batch,
    edges: Sequence[Edge],
    *,
    config: ModelConfig,
    objective: Objective = self_entropy,
    rows: int = 64,
    most_kept: int = 2**30,
    progress: Callable[[int], object] | None = None,
) -> CutLosses:
    """The same as `cut_losses` with share 1 for a model larger than memory, read a layer at a time.

    Every cut starts when its reader's layer is read and goes on with the texts through the layers
    after it, so one reading of the weights serves as many cuts as `most_kept` has room for.

    Args:
      weights: gives the parameters.
      batch, edges, config, objective, progress: see `cut_losses`.
      rows: texts that go through a layer at once.
      most_kept: bytes of the streams of all cuts of one reading, about.

    Returns:
      `CutLosses`.

    Raises:
      ValueError: an edge does not exist in this model.
    """
    check_edges(edges, config)
    count, length = batch.tokens_BT.shape
    together = max(1, rows // count)
    itemsize = 4  # float32 activations at most
    kept = max(together, most_kept // (count * length * config.d_model * itemsize))
    # Deep readers last: a reading then holds few cuts through many layers.
    order = sorted(range(len(edges)), key=lambda place: edges[place][1])
    whole_BJ, cut_EBJ = None, [None] * len(edges)
    for first in range(0, max(len(order), 1), kept):
        places = order[first : first + kept]
        parts = [places[start : start + together] for start in range(0, len(places), together)]
        whole_BJ, found = _read_once(
            weights, batch, [[edges[place] for place in part] for part in parts],
            config=config, objective=objective,
        )  # fmt: skip
        for part, losses_EBJ in zip(parts, found, strict=True):
            for place, losses_BJ in zip(part, losses_EBJ, strict=True):
                cut_EBJ[place] = losses_BJ
        if progress is not None:
            progress(len(places))
    shape = (0, *whole_BJ.shape)
    return CutLosses(
        whole_BJ=whole_BJ, cut_EBJ=np.stack(cut_EBJ) if cut_EBJ else np.zeros(shape, np.float32)
    )


def _read_once(
    weights: Weights,
    batch: Batch,
    parts: Sequence[Sequence[Edge]],
    *,
    config: ModelConfig,
    objective: Objective,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Losses [B, J] of the whole model and [E, B, J] of each part's cuts, from one reading.

    A part's cuts go through a layer together from the first of their readers' layers on; a cut whose
    reader comes later follows the whole model until there.
    """
    stream_BTD = _embed(config, weights.ends(("embed",)), batch.tokens_BT)
    writes = [stream_BTD]
    starts = [min(reader for _, reader in part) // len(READS) for part in parts]
    streams: list[jax.Array | None] = [None] * len(parts)
    kinds = Kind.stacked(config)
    numbers = range(config.num_layers)
    for number, params in zip(numbers, weights.blocks(numbers), strict=True):
        kind = kinds.of(number)
        before_BTD = stream_BTD
        stream_BTD, writes_2BTD = _block(config, params, stream_BTD, kind, None)
        writes += list(writes_2BTD)
        for place, part in enumerate(parts):
            if starts[place] > number:
                continue
            if streams[place] is None:
                streams[place] = jnp.tile(before_BTD, (len(part), 1, 1))
            taps_4BTD = _taps(writes, part, number)
            streams[place], _ = _block(config, params, streams[place], kind, taps_4BTD)
        jax.block_until_ready((stream_BTD, streams))  # before the next layer is in memory too
    del params
    ends = weights.ends(("final_norm", head_name(config)))
    found = []
    for part, rows_BTD in zip(parts, streams, strict=True):
        last_EBTD = (
            jnp.tile(stream_BTD, (len(part), 1, 1)) if rows_BTD is None else rows_BTD
        ).reshape(len(part), *stream_BTD.shape)
        taken = [
            writes[writer]
            if reader == len(READS) * config.num_layers
            else jnp.zeros_like(stream_BTD)
            for writer, reader in part
        ]
        losses = losses_at_head(
            ends, batch, last_EBTD - jnp.stack(taken), config=config, objective=objective
        )
        found.append(gathered(losses))
    whole = losses_at_head(ends, batch, stream_BTD[None], config=config, objective=objective)
    return gathered(whole)[0], found


def _taps(writes: Sequence[jax.Array], part: Sequence[Edge], number: int) -> jax.Array:
    """Taps [4, E B, T, D] of the cuts whose reader is in this layer, 0 for the others."""
    nothing = jnp.zeros_like(writes[0])
    taps = [
        [
            -writes[writer] if reader == len(READS) * number + read else nothing
            for writer, reader in part
        ]
        for read in range(len(READS))
    ]
    return jnp.stack([jnp.concatenate(of_read) for of_read in taps])


_embed = jax.jit(embed, static_argnames="config")


@functools.partial(jax.jit, static_argnames=("config",))
def _block(config: ModelConfig, params: dict, stream_BTD, kind: Kind, taps_4BTD):
    """One layer: the stream after it, and its two writes."""
    length = stream_BTD.shape[1]
    places = Places.of_texts(config.for_length(length), length)
    after_BTD, (writes_2BTD, _) = Block(config).apply(
        {"params": params}, stream_BTD, places, kind, taps_4BTD
    )
    return after_BTD, writes_2BTD
