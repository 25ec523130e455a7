"""JAX's CUDA plugin on a machine without an NVIDIA driver: there it can compile, and only that.

`pip install ".[gpu-compile]"` brings it, for `experiments.bench --compile_for`. JAX loads every plugin
that is installed, and without a driver this one writes warnings and a traceback to standard error.
So the packages leave it out where there is no driver, and who compiles takes it in again.
"""

import ctypes
import importlib.util
import sys
import types

# JAX imports the first when it is imported itself, and the second when it looks for devices.
_EXTENSIONS, _PLUGIN = "jax_cuda12_plugin", "jax_plugins.xla_cuda12"


def is_installed() -> bool:
    """Whether the plugin is installed."""
    if isinstance(sys.modules.get(_PLUGIN), _LeftOut):
        return True
    return all(map(_is_found, (_EXTENSIONS, _PLUGIN)))


def leave_out() -> None:
    """Keep JAX from loading the plugin where it has no driver; call before JAX is imported."""
    if isinstance(sys.modules.get(_PLUGIN), _LeftOut) or not is_installed() or _has_driver():
        return
    sys.modules.setdefault(_EXTENSIONS, None)  # Python's own way to say that it is not there
    sys.modules.setdefault(_PLUGIN, _LeftOut(_PLUGIN))


def take_in() -> None:
    """Undo `leave_out`; call before JAX looks for devices."""
    for name in (_EXTENSIONS, _PLUGIN):
        if name in sys.modules and isinstance(sys.modules[name], _LeftOut | None):
            del sys.modules[name]


class _LeftOut(types.ModuleType):
    """What stands for the plugin."""

    def initialize(self) -> None:
        """Where the plugin would register itself."""


def _is_found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # no folder of plugins; a module that was left out
        return False


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
