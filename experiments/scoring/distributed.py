"""Several processes, on one machine or many, as one computation: process 0 writes, all compute.

Every process runs the same program over one mesh. Process 0's files decide what is done already;
the others work in a scratch directory of their own.
"""

import re
import tempfile
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.errors import InputError


def start(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Join the other processes; call before anything touches a device.

    Args:
      coordinator: `host:port` of process 0; `auto` takes all three from the scheduler's environment
        (Slurm, Open MPI, cloud TPUs); None: one process.
      num_processes, process_id: of the computation and of this process.

    Raises:
      InputError: the flags are incomplete, or the others cannot be reached.
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise InputError("coordinator: expected host:port beside num_processes and process_id")
        return
    if coordinator != "auto" and (num_processes is None or process_id is None):
        raise InputError(
            f"coordinator {coordinator}: expected num_processes and process_id with it"
        )
    if coordinator != "auto" and not re.fullmatch(r".+:\d+", coordinator):
        raise InputError(f"coordinator: expected host:port or auto, found {coordinator!r}")
    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"coordinator {coordinator}: cannot join: {reason}") from None


def own_workdir(workdir: Path) -> Path:
    """The workdir in process 0; a scratch directory, discarded at exit, in the others."""
    if jax.process_index() == 0:
        return workdir
    scratch = tempfile.TemporaryDirectory(prefix="eap-jax-")
    _SCRATCH.append(scratch)  # removed when the interpreter ends
    return Path(scratch.name)


def agreed(value: bool) -> bool:
    """Process 0's value in every process."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def gathered(array: jax.Array) -> np.ndarray:
    """The whole array in every process."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


_SCRATCH: list[tempfile.TemporaryDirectory] = []
