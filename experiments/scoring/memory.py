"""What a pass keeps, and how much its head holds at once: chosen from the memory at hand.

The choice rests on the memory that the device has in all, not on what is free just now: a run that
goes on after a kill chooses as before, so its scores round as before.
"""

import math
import os
from pathlib import Path

import jax

from eap_jax.config import ModelConfig
from eap_jax.parameters import parameter_shapes
from eap_jax.sharding import parameter_shardings

# What the estimate leaves out: the logits, the activations of the block at work, the system.
_SPARE = 0.25


def activation_bytes(config: ModelConfig, tokens: int, itemsize: int) -> int:
    """Bytes of one layer's kept activations: its stream, heads, gate and up projection."""
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    return (config.d_model + heads + 2 * config.d_ff) * tokens * itemsize


def write_bytes(config: ModelConfig, tokens: int, itemsize: int) -> int:
    """Bytes of all residual writes."""
    return (1 + 2 * config.num_layers) * config.d_model * tokens * itemsize


def device_bytes(device: jax.Device) -> int:
    """Bytes that a device has in all: an accelerator's own, or this machine's share of its host's
    memory for one of its simulated CPU devices."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's or a job's own limit
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total // jax.local_device_count()


def head_logits(mesh: jax.sharding.Mesh) -> int:
    """Logits that the output head holds at once on a mesh: float32, they take 1/256 of the memory.

    The head's matrix is read anew for each part of the positions. With 64 GB of memory that part is
    large enough for a GPU to multiply as fast as it can.
    """
    return mesh.size * (device_bytes(mesh.local_devices[0]) // 256 // 4)


def streamed_bytes() -> int:
    """Bytes that stay between the layers of a streamed pass, unless its user says otherwise: a
    quarter of the memory. The rest is for the largest part of the weights and for the system."""
    return device_bytes(jax.local_devices()[0]) // 4


def recompute_activations(
    config: ModelConfig, itemsize: int, tokens: int, mesh: jax.sharding.Mesh
) -> bool:
    """Whether the activations of a batch are too large to be kept beside the weights.

    Args:
      config: the model.
      itemsize: bytes of a parameter and of an activation.
      tokens: tokens of the largest batch, padding included.
      mesh: devices.
    """
    shardings = jax.tree.leaves(parameter_shardings(config, mesh))
    shapes = jax.tree.leaves(parameter_shapes(config), is_leaf=lambda x: isinstance(x, tuple))
    own = sum(
        math.prod(sharding.shard_shape(shape))
        for sharding, shape in zip(shardings, shapes, strict=True)
    )
    tokens = -(-tokens // mesh.shape["data"])
    # The model axis divides most of these too; counting them whole errs to safety.
    kept = write_bytes(config, tokens, itemsize)
    kept += config.num_layers * activation_bytes(config, tokens, itemsize)
    limit = (1 - _SPARE) * device_bytes(mesh.local_devices[0])
    return own * itemsize + kept > limit
