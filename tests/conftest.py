"""Strict surroundings of every test: four devices, full precision, no network, no litter."""

import gc
import importlib.metadata
import os
import socket
import tempfile
from pathlib import Path

# Read at import of huggingface_hub, transformers and jax, so they are set before all of them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
# Compiled programs are kept for this session only, and shared by all of its processes.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    # Small programs too: a process of the binaries reads a hundred of them in the time of five.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # The emitters before the present ones make a program in a third of the time, with the same values
    # up to rounding. A jaxlib that does not know a flag ends the process, so its version is asked.
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        _flags = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join([*_flags, "--xla_cpu_use_fusion_emitters=false"])

import binaries
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_default_matmul_precision", "highest")
# Compiling is most of the suite's time; binaries run with the compiler as users have it.
jax.config.update("jax_disable_most_optimizations", True)

# Files that take long are started first, so that no process is left alone with one at the end.
_LONG_FILES = (
    "test_train.py", "test_families.py", "test_run.py", "test_run_published.py", "test_sweep.py",
    "test_grid.py", "test_distributed.py", "test_along_grid.py", "test_bench.py",
)  # fmt: skip


# Every compiled program keeps mappings of its own, and Linux gives a process 65,530: past them the
# compiler dies of a segmentation fault. A process of half the suite reaches that.
_MOST_MAPPINGS = 30_000


@pytest.fixture(autouse=True, scope="module")
def _room_for_compiled_programs():
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > _MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist would start large files first
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    gc.freeze()  # imports made a million objects; no collection of a test's garbage visits them


REPOSITORY = Path(__file__).resolve().parents[1]
# Tools' own folders: versions, environments, caches.
_NOT_OURS = {".git", ".venv", ".pytest_cache", ".ruff_cache", "__pycache__", "build", "runs"}


def _files() -> set[str]:
    found, folders = set(), [str(REPOSITORY)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name in _NOT_OURS or entry.name.endswith(".egg-info"):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not entry.name.endswith(".py"):  # People may write code while tests run.
                    found.add(entry.path)
    return found


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    """Runs the study's programs as a user does, all from one server; see `binaries.Binaries`."""
    yield from binaries.server(
        tmp_path_factory.mktemp("outputs"), "experiments.grid", "experiments.study_flags",
        "experiments.posttrain.algorithms",
    )  # fmt: skip


@pytest.fixture(scope="module")
def optimised():
    """The compiler as users have it: for modules that compute for long, or compare with binaries."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def known_files():
    """The repository's files; each test adds those that it is blamed for."""
    return _files()


@pytest.fixture(autouse=True)
def no_litter(known_files):
    """A test that leaves a file in the repository fails; tests write to `tmp_path`."""
    yield
    left = sorted(_files() - known_files)
    known_files.update(left)
    assert not left, f"new files in the repository: {left}"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that looks up a host or opens a connection outside this machine fails."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address!r}")
        return connect(self, address)

    def lookup(host, *args, **kwargs):
        raise AssertionError(f"a test tried to look up {host!r}")

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.fixture
def torch():
    """PyTorch on one thread; the test is skipped, visibly, where it is not installed."""
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module
