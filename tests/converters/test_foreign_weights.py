"""A folder that holds something else than weights is told for what it is, and what to do with it."""

import pytest

from converters.errors import CheckpointError
from converters.hf_weights import open_weights

FOLDERS = {
    "models--owner--name/snapshots/0123abcd/config.json": "snapshots/",
    "model_world_size_8_rank_0.pt": "verl.model_merger",
    "actor/model_world_size_8_rank_0.pt": "verl.model_merger",
    "pytorch_model_fsdp_0/__0_0.distcp": "merge-weights",
    "__0_0.distcp": "merge-weights",
    "zero_to_fp32.py": r"zero_to_fp32\.py",
    "global_step100/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": r"zero_to_fp32\.py",
    "adapter_model.safetensors": r"adapter_config\.json",
    "consolidated.00.pth": "Hugging Face",
    "model.q4.gguf": "GGUF",
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "model-00001-of-00002.safetensors": r"index\.json",
    "pytorch_model-00001-of-00002.bin": r"index\.json",
    "optimizer.pt": "training state",
    "checkpoint-100/model.safetensors": "folder of checkpoints",
    "config.json": "none of them",
}


@pytest.mark.parametrize("file", FOLDERS)
def test_a_folder_without_weights_is_told_what_it_is(file, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    folder = tmp_path / "models--owner--name" if file.startswith("models--") else tmp_path
    with pytest.raises(CheckpointError, match=FOLDERS[file]) as error:
        open_weights(folder)
    assert str(error.value).startswith(f"{folder}: expected model.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_git_lfs_pointer_is_told_from_weights(name, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(CheckpointError, match="Git LFS pointer.*git lfs pull"):
        open_weights(tmp_path)
