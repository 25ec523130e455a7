"""Bytes that each program of a study needs on one device: weights, cache, writes, activations, work.

Everything is counted from shapes. What a program holds from beginning to end (weights, cache,
writes, kept activations) is exact; its temporary arrays are those that are alive together at its
worst moment. `experiments.bench --compile_for` holds both against the compiler's own figures.
"""

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from eap_jax.attention import query_group
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_mask
from eap_jax.parameters import parameter_shapes
from eap_jax.sharding import parameter_shardings
from eap_jax.steps import buffered_writers

# What a GPU's matrix products work in.
WORKSPACE = 2**25
# Streams that the way back through a layer holds in addition where writes are normalised: what each
# norm reads and makes, and its gradient. As the compiler's own figures show.
_WRITE_NORMS = {"pre": 0, "post": 3, "both": 6}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
    """A model of one precision on a mesh, whose devices need not exist.

    Attributes:
      config: the model.
      dtype: of its weights and activations.
      mesh: `sharding.make_mesh` or `sharding.abstract_mesh`.
    """

    config: ModelConfig
    dtype: str
    mesh: Mesh | AbstractMesh

    @property
    def itemsize(self) -> int:
        """Bytes of a weight and of an activation."""
        return jnp.dtype(self.dtype).itemsize

    def ways(self, size: int) -> int:
        """Over how many devices the model axis splits an axis of this size."""
        ways = self.mesh.shape["model"]
        return ways if size % ways == 0 else 1

    def own_rows(self, rows: int) -> int:
        """A device's share of the rows of a batch."""
        return -(-rows // self.mesh.shape["data"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes of one device while a program runs.

    Attributes:
      weights: the parameters.
      cache: keys and values of the texts being generated.
      writes: what all layers wrote to the residual stream.
      activations: kept between the forward and the backward pass.
      work: all other arrays at the worst moment, results included.
    """

    weights: int
    cache: int = 0
    writes: int = 0
    activations: int = 0
    work: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))


class HasTargets(Protocol):
    """A batch whose targets go through the output head, a chunk of them at a time; see `Scored`."""

    rows: int
    length: int
    targets: int
    most_logits: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """One batch of texts to attribute.

    Attributes:
      rows, length: of the batch, padding included.
      targets: places that carry loss, of each row.
      losses: that share the forward pass.
      most_logits: that the output head holds at once, on all devices.
      remat: activations are computed twice instead of kept.
      branches: copies of the batch that the branch estimator runs through a layer at once; 0 with
        another estimator.
    """

    rows: int
    length: int
    targets: int
    most_logits: int
    losses: int = 1
    remat: bool = False
    branches: int = 0


def weight_bytes(model: Placed) -> int:
    """Bytes of a device's share of the parameters."""
    shardings = jax.tree.leaves(parameter_shardings(model.config, model.mesh))
    shapes = jax.tree.leaves(
        parameter_shapes(model.config), is_leaf=lambda leaf: isinstance(leaf, tuple)
    )
    own = (
        math.prod(sharding.shard_shape(shape))
        for sharding, shape in zip(shardings, shapes, strict=True)
    )
    return sum(own) * model.itemsize


def activation_bytes(config: ModelConfig, tokens: int, itemsize: int) -> int:
    """Bytes of one layer's kept activations: its stream, heads, gate and up projection."""
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    return (config.d_model + heads + 2 * config.d_ff) * tokens * itemsize


def write_bytes(config: ModelConfig, tokens: int, itemsize: int) -> int:
    """Bytes of all residual writes."""
    return buffered_writers(config.num_layers, itemsize) * config.d_model * tokens * itemsize


def cache_bytes(model: Placed, rows: int, slots: int) -> int:
    """Bytes of a device's share of the key/value cache."""
    config = model.config
    heads = config.num_kv_heads // model.ways(config.num_kv_heads)
    numbers = 2 * config.num_layers * heads * config.head_dim * slots
    return numbers * model.own_rows(rows) * model.itemsize


def prefill_needs(model: Placed, *, rows: int, width: int) -> Needs:
    """Prompts of `width` tokens read at once; the cache is that of these prompts alone."""
    own, cache = model.own_rows(rows), cache_bytes(model, rows, width)
    work = WORKSPACE + _layer_bytes(model, own, width, width) + _logit_bytes(model, own)
    return Needs(weights=weight_bytes(model), cache=cache, work=work)


def decode_needs(model: Placed, *, rows: int, slots: int) -> Needs:
    """One token a row, over a cache of `slots` that is changed in place."""
    own, cache = model.own_rows(rows), cache_bytes(model, rows, slots)
    work = WORKSPACE + _layer_bytes(model, own, 1, slots) + _logit_bytes(model, own)
    return Needs(weights=weight_bytes(model), cache=cache, work=work)


def move_needs(model: Placed, *, rows: int, slots: int) -> Needs:
    """The cache of one layer after the other moved into one of another size, at most `slots`."""
    cache = cache_bytes(model, rows, slots)
    return Needs(
        weights=weight_bytes(model), cache=cache, work=3 * cache // (2 * model.config.num_layers)
    )


def attribution_needs(model: Placed, batch: Scored) -> Needs:
    """One forward pass and one backward sweep a loss; see `eap_jax.attribution`."""
    config, itemsize = model.config, model.itemsize
    own = model.own_rows(batch.rows)
    tokens = own * batch.length
    shards = model.ways(batch.length)
    kept = 0 if batch.remat else config.num_layers * _kept_bytes(model, tokens)
    scores = 4 * batch.losses * own * edge_mask(config.num_layers).size
    at_targets = own * batch.targets * config.d_model * (itemsize + 4)
    streams = (1 + batch.losses) * tokens * config.d_model * itemsize
    reads = 4 * batch.losses * tokens * config.d_model * itemsize
    layer = (4 + 4) * seen_pairs(model, own, batch.length, batch.length)
    layer += heads_bytes(model, tokens) if batch.remat else 0
    layer += _WRITE_NORMS[config.norm_position] * tokens * config.d_model * itemsize
    if batch.branches:
        rows = own * batch.branches
        # Writes, reads and the changed branches' outcomes beside the layer's own arrays.
        layer += _layer_bytes(model, rows, batch.length, batch.length)
        layer += 4 * rows * batch.length * config.d_model * itemsize
        layer += 2 * heads_bytes(model, rows * batch.length)
    in_head = head_bytes(model, own, batch)
    return Needs(
        weights=weight_bytes(model),
        writes=write_bytes(config, tokens, itemsize) // shards,
        activations=kept,
        work=WORKSPACE + 3 * scores + at_targets + streams + max(reads + layer, in_head),
    )


def streamed_needs(model: Placed, batch: Scored, kept_bytes: int) -> Needs:
    """The same pass layer by layer (`eap_jax.streaming`), on one device.

    Args:
      model: weights are cast to its precision as they are read.
      batch: one batch; it is not kept between layers whole, so `remat` does not matter.
      kept_bytes: of writes and activations of all batches between the layers, at least one's writes.
    """
    alone = dataclasses.replace(batch, remat=True)
    one = attribution_needs(model, alone)
    shapes = parameter_shapes(model.config)
    block = sum(math.prod(shape[1:]) for shape in shapes["blocks"].values())
    largest = max(block, math.prod(shapes["embed"]))
    return Needs(
        weights=largest * model.itemsize, writes=max(kept_bytes, one.writes), work=one.work
    )


def _kept_bytes(model: Placed, tokens: int) -> int:
    """`activation_bytes` of a device's share of the heads and of the MLP; the stream is whole.

    On a model axis about one more stream is kept, as the compiler's own figures show.
    """
    config = model.config
    streams = 1 if model.mesh.shape["model"] == 1 else 2
    numbers = streams * config.d_model + 2 * config.d_ff // model.ways(config.d_ff)
    numbers += config.num_heads * config.head_dim // model.ways(config.num_heads)
    numbers += 2 * config.num_kv_heads * config.head_dim // model.ways(config.num_kv_heads)
    return numbers * tokens * model.itemsize


def _layer_bytes(model: Placed, rows: int, queries: int, keys: int) -> int:
    """Arrays alive together while one layer runs forward: the MLP's, or the attention's logits."""
    config, itemsize = model.config, model.itemsize
    hidden = 3 * config.d_ff // model.ways(config.d_ff) + 2 * config.d_model
    attention = seen_pairs(model, rows, queries, keys) * (4 + 4 + itemsize)
    return max(rows * queries * hidden * itemsize, attention + heads_bytes(model, rows * queries))


def seen_pairs(model: Placed, rows: int, queries: int, keys: int) -> int:
    """Logits of attention at once: of one group of queries."""
    config = model.config
    heads = config.num_heads // model.ways(config.num_heads)
    return rows * heads * query_group(queries) * keys


def heads_bytes(model: Placed, tokens: int) -> int:
    """Queries and their like: three arrays of all query heads."""
    config = model.config
    heads = config.num_heads // model.ways(config.num_heads)
    return 3 * tokens * heads * config.head_dim * model.itemsize


def _logit_bytes(model: Placed, rows: int) -> int:
    """Logits of one place of each row, and as float32 for the choice of a token."""
    config = model.config
    return rows * config.vocab_size // model.ways(config.vocab_size) * (model.itemsize + 4)


def head_bytes(model: Placed, rows: int, batch: HasTargets) -> int:
    """Logits of a chunk of places, their softmax and their gradient."""
    vocabulary = model.config.vocab_size
    chunk = max(1, min(batch.targets, batch.most_logits // (batch.rows * vocabulary)))
    logits = rows * chunk * vocabulary // model.ways(vocabulary)
    return logits * (4 + 2 * model.itemsize)
