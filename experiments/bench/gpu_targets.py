"""What the compiler must know of a GPU to make programs for it on a machine without one.

The text is a GpuTargetConfigProto of XLA. Figures are those that the cards' drivers report: an H100
or H200 has compute capability 9.0 with its accelerated features, an A100 or A800 8.0.
"""

import dataclasses

from experiments.study.cards import CARDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """What tells one GPU from another to the compiler.

    Attributes:
      cores: streaming multiprocessors.
      fpus: float32 units in each.
      bandwidth: of the memory, bytes a second.
      l2_cache, shared_core, shared_block: bytes of the second cache, and of shared memory in a
        core and at most in a block.
      clock: GHz.
      capability: major version and feature set.
    """

    cores: int
    fpus: int
    bandwidth: int
    l2_cache: int
    shared_core: int
    shared_block: int
    clock: float
    capability: str


_HOPPER = "major: 9 feature_extension: ACCELERATED_FEATURES"
CHIPS = {
    "h100": Chip(
        cores=132, fpus=128, bandwidth=3_352_320_000_000, l2_cache=52_428_800,
        shared_core=233_472, shared_block=232_448, clock=1.98, capability=_HOPPER,
    ),
    "a100": Chip(
        cores=108, fpus=64, bandwidth=2_039_040_000_000, l2_cache=41_943_040,
        shared_core=167_936, shared_block=166_912, clock=1.41,
        capability="major: 8 feature_extension: NONE",
    ),
    "h200": Chip(
        cores=132, fpus=128, bandwidth=4_800_000_000_000, l2_cache=62_914_560,
        shared_core=233_472, shared_block=232_448, clock=1.98, capability=_HOPPER,
    ),
}  # fmt: skip


def target_config(key: str) -> str:
    """The text for `jax.experimental.topologies.get_topology_desc` of a card of `cards.CARDS`."""
    card, chip = CARDS[key], CHIPS[key]
    return f"""
gpu_device_info {{
  name: "{card.name}"
  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability {{ {chip.capability} }}
  device_memory_size: {card.memory_bytes}
  memory_bandwidth: {chip.bandwidth}
  l2_cache_size: {chip.l2_cache}
  clock_rate_ghz: {chip.clock}
  core_count: {chip.cores}
  fpus_per_core: {chip.fpus}
  shared_memory_per_core: {chip.shared_core}
  shared_memory_per_block_optin: {chip.shared_block}
  shared_memory_per_block: 49152
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  device_address_bits: 64
  pcie_bandwidth: 34359738368
  driver_version: "13.0.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
device_description_str: "{card.name}"
runtime_version {{ major: 12 minor: 8 patch: 0 }}
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
"""
