"""Several processes, on one machine or many, as one computation: process 0 writes, all compute.

Every process runs the same program over one mesh. Process 0's files decide what is done already:
the others work in a scratch directory of their own, into which process 0's files are copied where
they are read. All read the same checkpoints and questions, and this is checked.
"""

import hashlib
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


def mirror(*paths: Path) -> None:
    """Give every process the files of process 0, or none where process 0 has none.

    Args:
      paths: one a file, in the same order in every process, each in the process's own workdir.
    """
    if jax.process_count() == 1:
        return
    for path in paths:
        data = None
        if jax.process_index() == 0 and path.exists():
            data = np.frombuffer(path.read_bytes(), np.uint8)
        size = int(
            multihost_utils.broadcast_one_to_all(np.int32(-1 if data is None else len(data)))
        )
        if size < 0:
            continue
        sent = np.zeros(size, np.uint8) if data is None else data
        received = np.asarray(multihost_utils.broadcast_one_to_all(sent), np.uint8)
        if jax.process_index() != 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(received.tobytes())


def check_same(what: str, text: str) -> None:
    """Check that all processes hold the same text.

    Raises:
      InputError: in every process, if one differs.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    every = np.asarray(multihost_utils.process_allgather(own))
    for number, digest in enumerate(every):
        if (digest != every[0]).any():
            raise InputError(
                f"process {number}: {what}: expected the same as in process 0, found others; all "
                "processes need the same flags and files"
            )


_SCRATCH: list[tempfile.TemporaryDirectory] = []
