"""A program that is ready to be compiled for GPUs that are not there, and what it takes, as shapes."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from eap_jax.objective import Batch
from eap_jax.parameters import parameter_shapes
from eap_jax.sharding import parameter_shardings, row_sharding
from experiments.study.footprint import HasTargets, Needs, Placed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lowered:
    """A program in one size, ready to be compiled.

    Attributes:
      program: its name.
      rows, length: of its batch; `length` of a decoding program is that of its cache.
      dtype: of weights and activations.
      planned: what the plan says it needs.
      beside: bytes of a device that other arrays take meanwhile.
      lower: makes it; the work of tracing is done here.
    """

    program: str
    rows: int
    length: int
    dtype: str
    planned: Needs
    beside: int
    lower: Callable[[], jax.stages.Lowered]


def parameters(model: Placed) -> dict:
    """The parameters as shapes on their mesh."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape, model.dtype, sharding=sharding),
        parameter_shapes(model.config),
        parameter_shardings(model.config, model.mesh),
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


def separate_parameters(model: Placed) -> dict:
    """The same with separate layers, as generation takes them."""
    shapes = parameter_shapes(model.config)
    block = {name: shape[1:] for name, shape in shapes["blocks"].items()}
    placed = parameter_shardings(model.config, model.mesh, separate=True)

    def arrays(shapes: dict, shardings: dict) -> dict:
        return {
            name: jax.ShapeDtypeStruct(shape, model.dtype, sharding=shardings[name])
            for name, shape in shapes.items()
        }

    ends = {name: shape for name, shape in shapes.items() if name != "blocks"}
    return arrays(ends, placed) | {
        "blocks": tuple(arrays(block, shardings) for shardings in placed["blocks"])
    }


def rows_of(model: Placed, rows: int) -> Callable[..., jax.ShapeDtypeStruct]:
    """Makes shapes of arrays of so many rows."""

    def array(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=row_sharding(model.mesh))

    return array


def text_batch(model: Placed, sizes: HasTargets) -> Batch:
    """Texts and their targets, as `place_batch` puts them on the mesh."""
    array = rows_of(model, sizes.rows)
    return Batch(
        tokens_BT=array((sizes.length,), jnp.int32),
        positions_BJ=array((sizes.targets,), jnp.int32),
        targets_BJ=array((sizes.targets,), jnp.int32),
        weights_BJ=array((sizes.targets,), jnp.float32),
    )


def share_bytes(arrays: Any) -> int:
    """Bytes of one device's share of a tree of placed shapes."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )
