"""What a folder without readable weights is, and what to do with it."""

from pathlib import Path

from converters.errors import CheckpointError

# Patterns of what may lie in a folder instead of weights, the surest sign first.
_SIGNS = (
    (("snapshots/*",), "a repository's folder in the Hub's cache", "pass its folder snapshots/<hash>"),
    (
        ("model_world_size_*_rank_*.pt", "actor/model_world_size_*_rank_*.pt"),
        "shards of FSDP as verl saves them",
        "merge them first: python -m verl.model_merger merge --backend fsdp",
    ),
    (
        ("pytorch_model_fsdp_0", "pytorch_model_fsdp_*", "*.distcp", ".metadata"),
        "shards of PyTorch's distributed checkpoints",
        "merge them first: accelerate merge-weights FOLDER OUTPUT",
    ),
    (
        ("zero_to_fp32.py", "global_step*/*zero*", "*zero_pp_rank*", "latest"),
        "a training state of DeepSpeed",
        "merge it first: python zero_to_fp32.py FOLDER OUTPUT",
    ),
    (
        ("adapter_model.safetensors", "adapter_model.bin"),
        "an adapter's weights without adapter_config.json",
        "copy that file beside them",
    ),
    (("consolidated*.pth", "consolidated*.safetensors"), "the original release's weights",
     "pass the same model in Hugging Face's format"),
    (("*.gguf",), "GGUF files", "pass one of the files"),
    (("tf_model*.h5", "model.h5"), "TensorFlow weights", "save them as safetensors with transformers"),
    (("flax_model*.msgpack",), "Flax weights", "save them as safetensors with transformers"),
    (("model*.safetensors", "pytorch_model*.bin"), "shards without their index",
     "copy the file *.index.json that belongs to them"),
    (("optimizer*", "scheduler.pt", "trainer_state.json", "rng_state*"),
     "a training state without the model", "pass the folder that the model was saved to"),
    (("checkpoint-*", "global_step*", "epoch*", "step*"), "a folder of checkpoints",
     "pass one of the folders in it"),
)  # fmt: skip


def described(folder: Path) -> str | None:
    """What a folder holds instead of weights and what to do, or None where nothing is known."""
    for patterns, kind, advice in _SIGNS:
        for pattern in patterns:
            if (found := min(folder.glob(pattern), default=None)) is not None:
                return f"{kind} ({found.relative_to(folder).as_posix()}); {advice}"
    return None


def check_fetched(path: Path) -> None:
    """Refuse a Git LFS pointer, a few lines of text in the place of a large file.

    Raises:
      CheckpointError: it is one.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise CheckpointError(
                f"{path}: expected weights, found a Git LFS pointer; fetch the file itself with "
                "git lfs pull, or download it from the Hub"
            )
