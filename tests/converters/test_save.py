"""A saved model is a Hugging Face folder, whole or not at all."""

import json
import os

import hf_folder
import jax
import ml_dtypes
import numpy as np
import pytest
import toys

from converters import save
from converters.errors import CheckpointError
from converters.load import load_checkpoint
from converters.save import copy_companions, save_hf, write_safetensors

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"]
TIED = toys.ZOO["window 7, tied head"]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
INDEX = "model.safetensors.index.json"


def assert_same(found: dict, expected: dict) -> None:
    """Same tree, shapes, dtypes and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == wanted.dtype
        assert leaf.shape == wanted.shape
        assert np.asarray(leaf).tobytes() == wanted.tobytes()


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(CheckpointError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", toys.ZOO)
def test_a_saved_model_holds_transformers_names_and_our_bits(name, dtype, tmp_path):
    toy = toys.ZOO[name]
    params = jax.tree.map(jax.numpy.asarray, toys.random_params(toy.config))
    architecture = hf_folder.ARCHITECTURES[toy.family]
    folder = tmp_path / "saved"
    save_hf(folder, toy.config, params, architecture=architecture, dtype=dtype)
    expected = {
        name: ({"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype], tensor.shape,
               tensor.astype(DTYPES[dtype]).tobytes())
        for name, tensor in toys.hf_state(toy.config, toys.random_params(toy.config)).items()
    }  # fmt: skip
    assert hf_folder.read_raw(folder / "model.safetensors") == expected
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == dtype


def test_a_saved_model_loads_as_it_was(tmp_path):
    params = toys.random_params(toys.MAIN)
    save_hf(tmp_path / "saved", toys.MAIN, params, architecture="Qwen2ForCausalLM")
    loaded = load_checkpoint(tmp_path / "saved")
    assert loaded.config == toys.MAIN
    assert_same(loaded.params, params)


def test_transformers_loads_what_we_save(torch, tmp_path):
    import transformers

    params = toys.random_params(TOY.config, seed=4)
    save_hf(tmp_path / "saved", TOY.config, params, architecture="Qwen2ForCausalLM")
    found = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "saved", attn_implementation="eager"
    )
    expected = toys.torch_model(TOY, params)
    tokens = torch.tensor(toys.random_tokens(TOY.config, 2, 9).tolist())
    with torch.no_grad():
        np.testing.assert_array_equal(found(tokens).logits, expected(tokens).logits)


def test_large_models_are_saved_in_shards_with_an_index(tmp_path, monkeypatch):
    limit = 20_000
    monkeypatch.setattr(save, "_SHARD_BYTES", limit)
    params = toys.random_params(TOY.config)
    save_hf(tmp_path / "saved", TOY.config, params, architecture="Qwen2ForCausalLM")
    expected = toys.hf_state(TOY.config, params)
    index = json.loads((tmp_path / "saved" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in expected.values())
    files = sorted(file.name for file in (tmp_path / "saved").glob("*.safetensors"))
    count = len(files)
    assert count > 1
    assert files == [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
    found, sizes = {}, {}
    for file in files:
        tensors = hf_folder.read_raw(tmp_path / "saved" / file)
        assert not found.keys() & tensors.keys()
        found |= tensors
        sizes[file] = sum(len(data) for _, _, data in tensors.values())
        assert {index["weight_map"][name] for name in tensors} == {file}
    assert {n: (shape, data) for n, (_, shape, data) in found.items()} == {
        name: (tensor.shape, tensor.tobytes()) for name, tensor in expected.items()
    }
    assert max(sizes.values()) <= limit
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == ["config.json", *files, INDEX]
    assert_same(load_checkpoint(tmp_path / "saved").params, params)


def test_a_tensor_larger_than_a_shard_has_one_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "_SHARD_BYTES", 16)
    tensors = {n: np.arange(size, dtype=np.float32) for n, size in (("a", 2), ("b", 9), ("c", 1))}
    write_safetensors(tmp_path, iter(tensors.items()), 48)
    weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    assert weight_map == {n: f"model-{k}-of-00003.safetensors" for n, k in
                          (("a", "00001"), ("b", "00002"), ("c", "00003"))}  # fmt: skip


def test_a_model_is_not_saved_over_a_folder_nor_half(tmp_path):
    params = toys.random_params(TOY.config)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("kept")
    message = refusal(save_hf, tmp_path / "there", TOY.config, params,
                      architecture="Qwen2ForCausalLM")  # fmt: skip
    assert message == f"{tmp_path / 'there'}: exists already; choose another output"
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["mine"]
    with pytest.raises(CheckpointError):  # Llama cannot have these biases
        save_hf(tmp_path / "new", TOY.config, params)
    del params["head"]
    with pytest.raises(KeyError):
        save_hf(tmp_path / "new", TOY.config, params, architecture="Qwen2ForCausalLM")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_everything_but_weights_is_copied_along(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    companions = {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "tokenizer.model", "vocab.json", "merges.txt",
        "chat_template.jinja", "added_tokens.json", "README.md",
    }  # fmt: skip
    weights = {
        "model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json",
        "pytorch_model.bin", "pytorch_model.bin.index.json", "optimizer.pt", "flax_model.msgpack",
    }  # fmt: skip
    for folder in (source, target):
        folder.mkdir()
    for name in companions | weights:
        (source / name).write_bytes(os.urandom(8) + name.encode())
    copy_companions(source, target)
    assert {p.name for p in target.iterdir()} == companions
    for name in companions:
        assert (target / name).read_bytes() == (source / name).read_bytes()
