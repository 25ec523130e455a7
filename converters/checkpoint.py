"""Orbax checkpoints: the only file that touches Orbax.

A converted model is a directory that stands for itself:
    config.json, tokenizer files                copied from the Hugging Face checkpoint
    ends/embed, ends/final_norm, ends/head      Orbax: one checkpoint a tensor
    blocks/000, blocks/001, ...                 Orbax: one checkpoint a layer
So conversion, restoring and layer-by-layer attribution hold one layer or one of the two large
tensors in memory. Training states are single Orbax trees.
"""

import gc
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from converters.errors import CheckpointError
from converters.weight_files import DTYPES
from eap_jax.config import ModelConfig
from eap_jax.parameters import axis_sizes, block_axes, end_axes


def is_orbax(directory: str | Path) -> bool:
    """Whether a directory holds a converted model."""
    return (Path(directory) / "ends").is_dir()


def end_path(directory: str | Path, name: str) -> Path:
    """Where a parameter outside the blocks is."""
    return Path(directory).absolute() / "ends" / name


def block_path(directory: str | Path, layer: int) -> Path:
    """Where one layer's parameters are."""
    return Path(directory).absolute() / "blocks" / f"{layer:03d}"


def save_tree(path: str | Path, tree: Any) -> None:
    """Save any tree of arrays; Orbax makes the directory appear whole or not at all.

    Raises:
      CheckpointError: the directory exists, or cannot be written.
    """
    if Path(path).exists():
        raise CheckpointError(f"{path}: exists already")
    try:
        with _context():
            ocp.save(Path(path).absolute(), tree)
    except (OSError, ValueError) as error:  # a full disk is a ValueError here
        raise CheckpointError(f"{path}: cannot be written: {_first_sentence(error)}") from None


def load_tree(path: str | Path, like: Any) -> Any:
    """Restore a tree.

    Args:
      path: a checkpoint written by `save_tree`.
      like: a tree of arrays or ShapeDtypeStructs with the expected structure, shapes and dtypes;
        a ShapeDtypeStruct's sharding says where the leaf is put.

    Raises:
      CheckpointError: the checkpoint is not readable or does not have that structure.
    """
    abstract = jax.tree.map(_abstract, like)
    _check_leaves(path, _saved_leaves(path), abstract)
    loaded = failure = None
    _leave_out_late_reads()
    try:
        with _context():
            loaded = ocp.load(Path(path).absolute(), abstract)
    except Exception as error:  # Orbax raises a bare Exception for an array it cannot read
        failure = _unreadable(path, error)
    if failure is not None:
        _collect_quietly()
        raise failure
    _check_leaves(path, loaded, abstract)  # 64 bits become 32 where jax has them switched off
    return loaded


def _collect_quietly() -> None:
    """Free what a failed read of Orbax has left behind.

    It reads all tensors at once and looks at the first failure only. Each of the others would write a
    traceback to standard error when it is freed.
    """
    said, hook = logging.getLogger("asyncio"), sys.unraisablehook
    disabled = said.disabled
    said.disabled, sys.unraisablehook = True, lambda _: None
    try:
        gc.collect()
    finally:
        said.disabled, sys.unraisablehook = disabled, hook


def _leave_out_late_reads() -> None:
    """Keep reads that end after another one failed from writing a traceback: the event loop that they
    would tell of it is closed by then."""
    before = sys.unraisablehook
    if getattr(before, "leaves_out_late_reads", False):
        return

    def hook(unraisable):
        late = isinstance(unraisable.exc_value, RuntimeError)
        if not (late and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    hook.leaves_out_late_reads = True
    sys.unraisablehook = hook


def check_layers(directory: str | Path, config: ModelConfig) -> None:
    """Hold a converted model's blocks against its config.

    Raises:
      CheckpointError: a layer is missing, or there are more of them.
    """
    expected = {block_path(directory, layer).name for layer in range(config.num_layers)}
    blocks = Path(directory) / "blocks"
    found = {entry.name for entry in blocks.iterdir()} if blocks.is_dir() else set()
    if odd := sorted(expected ^ found):
        raise CheckpointError(
            f"{blocks}: expected {config.num_layers} layers as in config.json, "
            f"{'found' if odd[0] in found else 'missing'} {odd[0]}"
        )


def check_complete(directory: str | Path, config: ModelConfig) -> None:
    """Account for every tensor of a converted model by name, shape and dtype, and for its bytes.

    No value is read, but where a part's files hold fewer bytes than its tensors have: then they are
    compressed, or cut off, which reading tells.

    Raises:
      CheckpointError: a layer or tensor is missing, unexpected, mis-shaped, of a dtype that is no float
        or is another in another layer, or its files are cut off.
    """
    check_layers(directory, config)
    _check_ends(directory, config)
    parts = [(end_path(directory, name), {name: axes}) for name, axes in end_axes(config).items()]
    blocks = [
        (block_path(directory, layer), block_axes(config)) for layer in range(config.num_layers)
    ]
    first = {}
    for path, axes in parts + blocks:
        like = _expected(path, axes, config)
        _check_leaves(path, _saved_leaves(path), like)
        for name, leaf in like.items():
            if leaf.dtype not in DTYPES.values():
                raise CheckpointError(
                    f"{path}: {name}: expected dtype {', '.join(map(str, DTYPES.values()))}, found "
                    f"{leaf.dtype}"
                )
            if path.parent.name == "blocks" and first.setdefault(name, leaf).dtype != leaf.dtype:
                raise CheckpointError(
                    f"{path}: {name}: expected dtype {first[name].dtype} as in the layers before, "
                    f"found {leaf.dtype}"
                )
        held = sum(file.stat().st_size for file in path.rglob("d/*") if file.is_file())
        if held < sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in like.values()):
            load_tree(path, like)


def load_ends(
    directory: str | Path, config: ModelConfig, shardings=None, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Parameters outside the blocks, all or those named: numpy, or jax arrays where `shardings`
    say so."""
    _check_ends(directory, config)
    axes, found = end_axes(config), {}
    for name in names or axes:
        sharding = None if shardings is None else {name: shardings[name]}
        found |= _load_group(end_path(directory, name), {name: axes[name]}, config, sharding)
    return found


def saved_dtype(directory: str | Path, name: str) -> np.dtype:
    """Dtype of a parameter outside the blocks, without reading it."""
    return np.dtype(_saved_leaves(end_path(directory, name))[name].dtype)


def load_block(directory: str | Path, config: ModelConfig, layer: int, shardings=None):
    """One layer's parameters: numpy, or jax arrays where `shardings` (without L) say so."""
    return _load_group(block_path(directory, layer), block_axes(config), config, shardings)


def _check_ends(directory: str | Path, config: ModelConfig) -> None:
    axes, ends = end_axes(config), Path(directory).absolute() / "ends"
    saved = {entry.name for entry in ends.iterdir()} if ends.is_dir() else set()
    if saved != set(axes):
        raise CheckpointError(f"{ends}: expected tensors {sorted(axes)}, found {sorted(saved)}")


def _expected(
    path: Path, axes: dict[str, str], config: ModelConfig, shardings=None
) -> dict[str, Any]:
    """The tensors that a part must hold, in the dtypes that it has: Orbax casts silently to whatever
    dtype is asked for, so the saved one is asked for."""
    sizes, saved = axis_sizes(config), _saved_leaves(path)
    if set(saved) != set(axes):
        raise CheckpointError(f"{path}: expected tensors {sorted(axes)}, found {sorted(saved)}")
    return {
        name: jax.ShapeDtypeStruct(
            tuple(sizes[c] for c in letters),
            saved[name].dtype,
            sharding=None if shardings is None else shardings[name],
        )
        for name, letters in axes.items()
    }


def _load_group(path: Path, axes: dict[str, str], config: ModelConfig, shardings) -> dict[str, Any]:
    loaded = load_tree(path, _expected(path, axes, config, shardings))
    return loaded if shardings is not None else {n: np.asarray(leaf) for n, leaf in loaded.items()}


def _context() -> ocp.Context:
    """Orbax's settings: weights hardly compress, and without it they are written twice as fast."""
    context = ocp.Context()
    context.array.saving.use_compression = False
    return context


def _saved_leaves(path: str | Path) -> dict[str, Any]:
    _leave_out_late_reads()
    try:
        found = ocp.metadata(Path(path).absolute()).metadata
    except Exception as error:  # whatever its readers of JSON and of arrays met
        raise _unreadable(path, error) from None
    if found is None:  # what Orbax met is in its log only
        raise CheckpointError(
            f"{path}: not a readable Orbax checkpoint: its arrays have no metadata"
        )
    return found


def _unreadable(path: str | Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a readable Orbax checkpoint: {_first_sentence(error)}")


def _first_sentence(error: Exception) -> str:
    """Orbax's own message can be pages long; its first sentence says what was met."""
    return (str(error).strip().splitlines() or [repr(error)])[0].split(". ")[0]


def _abstract(leaf) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


def _check_leaves(path, saved, expected) -> None:
    found, wanted = dict(_flat(saved)), dict(_flat(expected))
    if set(found) != set(wanted):
        odd = sorted(set(found) ^ set(wanted))
        raise CheckpointError(f"{path}: leaves differ from what was expected: {', '.join(odd[:3])}")
    for name, leaf in wanted.items():
        if tuple(found[name].shape) != leaf.shape or found[name].dtype != leaf.dtype:
            raise CheckpointError(
                f"{path}: {name}: expected {leaf.dtype} {leaf.shape}, found "
                f"{found[name].dtype} {tuple(found[name].shape)}"
            )


def _flat(tree):
    """(path, leaf) pairs; keys of every kind become strings, as Orbax stores them."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        keys = (getattr(k, "key", getattr(k, "idx", getattr(k, "name", k))) for k in path)
        yield "/".join(map(str, keys)), leaf
