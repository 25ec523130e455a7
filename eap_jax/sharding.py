"""Where arrays live on several devices: the only file that names a mesh axis.

The mesh has two axes: `data` splits the batch, `model` splits heads, MLP width and vocabulary
(tensor parallelism). Where a mesh axis does not divide a size, every device holds that axis whole.
"""

import dataclasses
import math

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from eap_jax.config import ModelConfig
from eap_jax.parameters import (
    axis_sizes,
    block_axes,
    end_axes,
    parameter_axes,
    parameter_shapes,
)

MESH_AXES = ("data", "model")
_MESH_AXIS_OF = {"B": "data", "N": "model", "K": "model", "F": "model", "V": "model"}


def parse_mesh(text: str) -> dict[str, int]:
    """Sizes of the mesh axes from a flag such as `data:2`, `model:2` or `data:2,model:2`.

    Raises:
      ValueError: an unknown or repeated axis, or a size that is not a positive whole number.
    """
    sizes = {}
    for part in filter(None, text.split(",")):
        axis, _, size = part.partition(":")
        if (
            axis not in MESH_AXES
            or axis in sizes
            or not (size.isascii() and size.isdigit())
            or int(size) < 1
        ):
            raise ValueError(f"mesh: expected data:N,model:M, each at most once, found {text!r}")
        sizes[axis] = int(size)
    return {axis: sizes.get(axis, 1) for axis in MESH_AXES}


def make_mesh(text: str = "", devices=None) -> Mesh:
    """Mesh of axes (data, model).

    Args:
      text: sizes as for `parse_mesh`.
      devices: devices to use, or None for the first ones of `jax.devices()`.

    Raises:
      ValueError: malformed text, or fewer devices than the mesh needs.
    """
    sizes = tuple(parse_mesh(text).values())
    devices = jax.devices() if devices is None else devices
    needed = math.prod(sizes)
    if len(devices) < needed:
        raise ValueError(f"mesh {text!r}: expected {needed} devices, found {len(devices)}")
    # Auto: the compiler propagates shardings; Explicit, the default, refuses plain indexing.
    return Mesh(
        np.asarray(devices[:needed]).reshape(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * 2
    )


def abstract_mesh(text: str = "") -> AbstractMesh:
    """The mesh of `make_mesh` without devices: enough to say where arrays would lie.

    Raises:
      ValueError: malformed text.
    """
    return AbstractMesh(tuple(parse_mesh(text).values()), MESH_AXES)


def parameter_shardings(
    config: ModelConfig, mesh: Mesh | AbstractMesh, *, separate: bool = False
) -> dict:
    """One NamedSharding a parameter, in the structure of `parameters.parameter_axes`, or separate
    layers as `parameters.separate_layers` makes them."""
    if separate:
        sizes = axis_sizes(config)

        def place(letters: str) -> NamedSharding:
            return _sharding(letters, tuple(sizes[letter] for letter in letters), mesh)

        block = jax.tree.map(place, block_axes(config))
        return jax.tree.map(place, end_axes(config)) | {"blocks": (block,) * config.num_layers}
    return jax.tree.map(
        lambda letters, shape: _sharding(letters, shape, mesh),
        parameter_axes(config),
        parameter_shapes(config),
    )


def place_parameters(params: dict, config: ModelConfig, mesh: Mesh) -> dict:
    """Parameters put on the mesh."""
    return jax.device_put(params, parameter_shardings(config, mesh))


def row_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Where an array whose axis `axis` holds the rows lies: its rows split over `data`."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def place_batch(batch, mesh: Mesh):
    """A batch (any tree whose leaves have rows first) put on the mesh, its rows split over `data`.

    Raises:
      ValueError: the number of rows is not a multiple of the data axis.
    """

    def place(leaf):
        rows, ways = leaf.shape[0], mesh.shape["data"]
        if rows % ways:
            raise ValueError(f"batch: expected a multiple of {ways} rows, found {rows}")
        sharding = row_sharding(mesh)
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        # Of several processes, each puts the rows of its own devices.
        return jax.make_array_from_callback(
            leaf.shape, sharding, lambda rows: np.asarray(leaf)[rows]
        )

    return jax.tree.map(place, batch)


def gathered(array: jax.Array) -> np.ndarray:
    """The whole array in every process, wherever its parts lie.

    Raises:
      RuntimeError: what failed where it was computed, such as an allocation.
    """
    # On a CPU, reading an array whose own allocation failed waits for ever; waiting for it raises.
    array.block_until_ready()
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where an attribution pass keeps its largest arrays on a mesh.

    Tensor parallelism needs streams whole on every device of the model axis. Writes are needed only
    for the contraction, which sums over T. So each device keeps and contracts its own part of every
    text, and the memory of the writes is divided by both mesh axes.

    Attributes:
      stream: where a stream [B, T, D] lies.
      writes: where all writes [B, W, T, D] lie.
    """

    stream: NamedSharding
    writes: NamedSharding

    def whole(self, stream_BTD: jax.Array) -> jax.Array:
        """The stream [B, T, D], placed as `stream` says: rows split, whole along T and D."""
        return jax.lax.with_sharding_constraint(stream_BTD, self.stream)

    def apart(self, writes_BWTD: jax.Array) -> jax.Array:
        """The writes [B, W, T, D], placed as `writes` says: split over rows and along T."""
        return jax.lax.with_sharding_constraint(writes_BWTD, self.writes)


def layout(mesh: Mesh, length: int) -> Layout | None:
    """Layout of texts of `length` on a mesh; None on one device, where there is nothing to place.

    If the model axis does not divide the length, writes are split over rows only.
    """
    if mesh.size == 1:
        return None
    places = "model" if length % mesh.shape["model"] == 0 else None
    return Layout(
        stream=NamedSharding(mesh, PartitionSpec("data")),
        writes=NamedSharding(mesh, PartitionSpec("data", None, places)),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingLayout:
    """Where generation keeps its arrays on a mesh: rows split over `data`, heads over `model`.

    Attributes:
      rows: of arrays [B, ...].
      cache: of keys and values [B, K, S, H].
    """

    rows: NamedSharding
    cache: NamedSharding

    @property
    def ways(self) -> int:
        """Parts that the rows are divided into."""
        return self.rows.mesh.shape["data"]

    def place_caches(self, caches):
        """Caches of all layers inside a compiled program, placed as `cache` says."""
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self.cache), caches)


def decoding_layout(config: ModelConfig, mesh: Mesh) -> DecodingLayout | None:
    """Layout of generation on a mesh; None on one device, where there is nothing to place."""
    if mesh.size == 1:
        return None
    heads = "model" if config.num_kv_heads % mesh.shape["model"] == 0 else None
    return DecodingLayout(
        rows=NamedSharding(mesh, PartitionSpec("data")),
        cache=NamedSharding(mesh, PartitionSpec("data", heads)),
    )


def mesh_of(array: jax.Array) -> Mesh | None:
    """The mesh of (data, model) that an array was put on, or None if on none."""
    sharding = getattr(array, "sharding", None)
    if isinstance(sharding, NamedSharding) and tuple(sharding.mesh.axis_names) == MESH_AXES:
        return sharding.mesh
    return None


def _sharding(letters: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> NamedSharding:
    names = []
    for letter, size in zip(letters, shape, strict=True):
        name = _MESH_AXIS_OF.get(letter)
        names.append(name if name and size % mesh.shape[name] == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*names))
