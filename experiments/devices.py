"""What JAX computes on: an accelerator where there is one, simulated devices only where asked for.

JAX falls back to the CPU where it cannot use an accelerator, and a 7B study on a CPU takes months.
So a run says when it does, and ends where an accelerator was asked for and is not there.
"""

import dataclasses
import getpass
import os
import tempfile
import traceback
from pathlib import Path

import jax
from filelock import FileLock, Timeout

from experiments.errors import InputError

# JAX fails late on far more.
MOST_SIMULATED = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
    """A kind of accelerator: the files that its driver makes, below the root of the file system."""

    name: str
    platforms: tuple[str, ...]
    files: tuple[str, ...]
    install: str
    chooses: str


_KINDS = (
    _Kind(
        name="NVIDIA GPU",
        platforms=("cuda", "gpu"),
        files=("dev/nvidia[0-9]*", "proc/driver/nvidia/gpus/*", "usr/lib/wsl/lib/libcuda.so*"),
        install='pip install "jax[cuda12]"',
        chooses="CUDA_VISIBLE_DEVICES",
    ),
    _Kind(
        name="AMD GPU",
        platforms=("rocm",),
        files=("dev/kfd",),
        install='pip install "jax[rocm7-local]" beside a ROCm 7 of the system',
        chooses="HIP_VISIBLE_DEVICES",
    ),
    _Kind(
        name="TPU",
        platforms=("tpu",),
        files=("dev/accel[0-9]*",),
        install='pip install "jax[tpu]"',
        chooses="TPU_VISIBLE_CHIPS",
    ),
)


def simulate(count: int) -> None:
    """Divide the CPU into `count` devices, for trying a mesh; call before anything computes."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)


def take_card(number: int, root: Path = Path("/")) -> None:
    """Leave this process one card of those it may see; call before anything computes.

    Args:
      number: place among the cards, from 0. Where the environment lists some already, as schedulers
        do, among those.
      root: of the file system.

    Raises:
      InputError: the environment lists fewer, no driver is visible, or another process of this user
        has taken the card and its memory.
    """
    kind = next((kind for kind in _KINDS if _present(kind, root)), None)
    if kind is None:
        raise InputError(f"card {number}: expected a GPU or TPU, found no driver's files")
    listed = os.environ.get(kind.chooses)
    card = str(number)
    if listed is not None:
        cards = [name.strip() for name in listed.split(",") if name.strip()]
        if number >= len(cards):
            raise InputError(
                f"card {number}: expected a place among {kind.chooses}={listed}, found {len(cards)}"
            )
        card = cards[number]
    name = f"eap-jax-{getpass.getuser()}-{kind.platforms[0]}-{card}.lock"
    lock = FileLock(Path(tempfile.gettempdir()) / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"card {number}: another process of this program has it; give each its own number"
        ) from None
    _TAKEN.append(lock)  # the system frees it when the process ends
    os.environ[kind.chooses] = card


def require(count: int, mesh: str, *, card: int | None = None) -> None:
    """Check that the devices are there that a run asks for.

    Args:
      count: devices of the mesh.
      mesh: its text, for the message.
      card: the card that was asked for, if any.

    Raises:
      InputError: there are fewer, one of several processes has none in the mesh, or JAX was told to
        use what it cannot find.
    """
    try:
        found = jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise InputError(missing(error) or str(error)) from None
    if card is not None and found[0].platform == "cpu":
        raise InputError(f"card {card}: {idle_accelerator() or 'JAX was told to use the CPU'}")
    if len(found) >= count:
        _require_every_process(found, count, mesh)
        return
    have = f"{len(found)} x {found[0].device_kind}"
    advice = ""
    if found[0].platform == "cpu":
        advice = f"; --simulated_devices={count} divides the CPU, to try a mesh without speed"
        advice += f"; {note}" if (note := idle_accelerator()) else ""
    raise InputError(f"mesh {mesh!r}: expected {count} devices, found {have}{advice}")


def _require_every_process(found: list[jax.Device], count: int, mesh: str) -> None:
    """Check that each process has a device among the first `count`, which make the mesh."""
    inside = {device.process_index for device in found[:count]}
    if len(inside) < jax.process_count():
        raise InputError(
            f"mesh {mesh!r}: expected devices of all {jax.process_count()} processes, found those of "
            f"{len(inside)}; --mesh=data:{len(found)} has all {len(found)} devices"
        )


def idle_accelerator(root: Path = Path("/")) -> str | None:
    """What to say where JAX computes on the CPU beside an accelerator that it was not told to leave.

    Args:
      root: of the file system.

    Returns:
      one line that says how to install what is missing, or None.
    """
    if jax.config.jax_platforms or jax.default_backend() != "cpu":
        return None
    for kind in _KINDS:
        hidden = os.environ.get(kind.chooses) in ("", "-1")
        if not hidden and _present(kind, root):
            return (
                f"this machine has an {kind.name} that JAX does not use, so all is computed on the "
                f"CPU: {kind.install}; JAX_PLATFORMS=cpu says that the CPU is meant"
            )
    return None


def missing(error: BaseException) -> str | None:
    """The line for JAX's error that a platform of JAX_PLATFORMS is not there; None for others."""
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError):  # of a platform that JAX knows of but has no plugin for
        if traceback.extract_tb(error.__traceback__)[-1].name != "backends":
            return None
        text = "no plugin, or no driver that it finds"
    elif not isinstance(error, RuntimeError) or "Unable to initialize backend" not in text:
        return None
    asked = jax.config.jax_platforms or "the default"
    platforms = asked.split(",")
    install = next((k.install for k in _KINDS if set(k.platforms) & set(platforms)), None)
    advice = f"install it with {install}, or leave JAX_PLATFORMS out" if install else "name another"
    return f"JAX_PLATFORMS={asked}: expected a device of it, found none; {advice} ({text[:200]})"


_TAKEN: list[FileLock] = []


def _present(kind: _Kind, root: Path) -> bool:
    return any(any(root.glob(pattern)) for pattern in kind.files)
