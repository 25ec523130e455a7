"""GPUs by name and the memory of devices: what a plan is made for, also where no GPU is.

JAX takes three quarters of a GPU's memory when it starts (XLA_PYTHON_CLIENT_MEM_FRACTION); the rest
is the driver's, and room for libraries. `usable_bytes` is that share of a card or of a device at
hand. For a CPU it is three quarters of the machine, divided among its simulated devices.
"""

import dataclasses
import math
import os
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from experiments.errors import InputError

# What JAX takes of a GPU unless told otherwise, and what a plan takes of a CPU's memory.
SHARE = 0.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU.

    Attributes:
      key: name in flags.
      name: as its driver gives it.
      memory_bytes: all of its memory, as its driver gives it.
    """

    key: str
    name: str
    memory_bytes: int

    @property
    def usable_bytes(self) -> int:
        """What JAX takes of it by default."""
        return int(SHARE * self.memory_bytes)


CARDS = {
    card.key: card
    for card in (
        Card(key="h100", name="NVIDIA H100 80GB HBM3", memory_bytes=84_942_979_072),
        # The A800 is the A100 with slower links between cards.
        Card(key="a100", name="NVIDIA A100-SXM4-80GB", memory_bytes=85_100_068_864),
        Card(key="h200", name="NVIDIA H200", memory_bytes=150_754_820_096),
    )
}
_SAME = {"a800": "a100"}


def card_of(text: str) -> Card:
    """A card by its name, or an unnamed one of a number of GiB.

    Raises:
      InputError: neither.
    """
    key = _SAME.get(text.lower(), text.lower())
    if key in CARDS:
        return CARDS[key]
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 < gib < math.inf:
        names = ", ".join([*CARDS, *_SAME])
        raise InputError(f"device: expected {names} or a number of GiB, found {text!r}")
    return Card(key=text, name=f"a GPU of {gib:g} GiB", memory_bytes=int(gib * 2**30))


def usable_bytes(device: jax.Device) -> int:
    """Bytes of a device at hand that arrays may take in all; what is free just now does not matter.

    An accelerator's own limit, or three quarters of this machine's share of its host's memory for
    one of its simulated CPU devices.
    """
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's or a job's own limit
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return int(SHARE * (total // jax.local_device_count()))


def usable_on(mesh: Mesh) -> int:
    """`usable_bytes` of the device of a mesh that has the least, the same in all its processes: from
    different figures they would choose different programs, and wait for each other for ever."""
    own = min(map(usable_bytes, mesh.local_devices))
    if jax.process_count() == 1:
        return own
    # In MiB: JAX exchanges 32 bits.
    return int(multihost_utils.process_allgather(np.int32(own >> 20)).min()) << 20
