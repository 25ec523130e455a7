"""Checkpoints of either kind in memory: what was written, on its shards; whole on disk or not."""

import hashlib
import json
import os
import shutil

import hf_folder
import jax
import ml_dtypes
import numpy as np
import pytest
import toys

from converters import loading
from converters.convert import to_orbax
from converters.errors import CheckpointError
from converters.loading import (
    checkpoint_hash,
    copy_companions,
    load_checkpoint,
    save_hf,
    staged,
    write_safetensors,
)
from eap_jax.parameters import parameter_shapes
from eap_jax.sharding import make_mesh, parameter_shardings
from eap_jax.transformer import Transformer

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


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """TOY in three dtypes and both formats: ({(format, dtype): folder}, {dtype: parameters})."""
    root, found, trees = tmp_path_factory.mktemp("formats"), {}, {}
    params = toys.random_params(TOY.config)
    for name, dtype in DTYPES.items():
        trees[name] = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), params)
        found["hf", name] = root / f"hf_{name}"
        found["orbax", name] = root / f"orbax_{name}"
        hf_folder.write_toy(found["hf", name], TOY, params, dtype=dtype, torch_dtype=name)
        to_orbax(found["hf", name], found["orbax", name])
    return found, trees


@pytest.mark.parametrize("name", toys.ZOO)
def test_a_folder_loads_as_the_parameters_it_was_written_from(name, tmp_path):
    toy = toys.ZOO[name]
    params = toys.random_params(toy.config)
    hf_folder.write_toy(tmp_path, toy, params)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == toy.config
    assert_same(loaded.params, params)
    shapes = jax.tree.map(np.shape, loaded.params)
    assert shapes == parameter_shapes(toy.config)


@pytest.mark.parametrize("series", toys.SERIES)
def test_the_golden_checkpoints_load(series):
    config, params = toys.golden_checkpoint(series, "rl")
    loaded = load_checkpoint(toys.GOLDEN / "checkpoints" / f"toy_{series}_rl")
    assert loaded.config == config
    assert_same(loaded.params, params)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["hf", "orbax"])
def test_both_kinds_keep_the_dtype_and_bits(kind, dtype, folders):
    loaded = load_checkpoint(folders[0][kind, dtype])
    assert loaded.config == TOY.config
    assert_same(loaded.params, folders[1][dtype])
    assert {leaf.sharding.num_devices for leaf in jax.tree.leaves(loaded.params)} == {1}


@pytest.mark.parametrize(
    ("kind", "dtype"), [("hf", "bfloat16"), ("hf", "float16"), ("orbax", "bfloat16")]
)
def test_both_kinds_are_cast_on_demand(kind, dtype, folders):
    params = folders[1]["float32"]
    loaded = load_checkpoint(folders[0][kind, "float32"], dtype=dtype)
    assert_same(loaded.params, jax.tree.map(lambda leaf: leaf.astype(DTYPES[dtype]), params))


@pytest.mark.parametrize("mesh", ["data:2", "model:2"])
@pytest.mark.parametrize("kind", ["hf", "orbax"])
def test_both_kinds_are_restored_to_their_shards(kind, mesh, folders):
    params = folders[1]["bfloat16"]
    shardings = parameter_shardings(TOY.config, make_mesh(mesh))
    loaded = load_checkpoint(folders[0][kind, "bfloat16"], shardings=shardings)
    assert_same(loaded.params, params)
    halves = set()
    for (path, leaf), whole in zip(
        jax.tree_util.tree_leaves_with_path(loaded.params), jax.tree.leaves(params), strict=True
    ):
        assert len(leaf.addressable_shards) == 2
        assert len(leaf.devices()) == 2
        for shard in leaf.addressable_shards:
            assert np.asarray(shard.data).tobytes() == whole[shard.index].tobytes()
            if shard.data.size * 2 == whole.size:
                halves.add(path[-1].key)
            else:
                assert shard.data.size == whole.size
    # 61 tokens cannot be halved; norms have no axis of the mesh.
    split = {"q", "k", "v", "o", "gate", "up", "down", "q_bias", "k_bias", "v_bias"}
    assert halves == (split if mesh == "model:2" else set())


def test_a_tied_copy_of_the_head_is_no_parameter(tmp_path):
    params = toys.random_params(TIED.config)
    state = hf_folder.write_toy(tmp_path, TIED, params)
    hf_folder.write_weights(tmp_path, state | {"lm_head.weight": params["embed"]}, shards=2)
    (tmp_path / "model.safetensors").unlink()
    loaded = load_checkpoint(tmp_path)
    assert "head" not in loaded.params
    assert_same(loaded.params, params)


def test_layers_of_two_dtypes_are_refused(tmp_path):
    state = hf_folder.write_toy(tmp_path, TOY, toys.random_params(TOY.config))
    name = "model.layers.1.self_attn.v_proj.bias"
    hf_folder.write_weights(tmp_path, state | {name: state[name].astype(np.float16)})
    message = refusal(load_checkpoint, tmp_path)
    for word in (str(tmp_path), "v_bias of layer 1", "float32", "float16"):
        assert word in message
    # Norms kept in float32 beside other weights are common, and a cast makes one dtype of all.
    assert load_checkpoint(tmp_path, dtype="float32").config == TOY.config
    norms = {n: t if "norm" in n else t.astype(np.float16) for n, t in state.items()}
    hf_folder.write_weights(tmp_path, norms)
    loaded = load_checkpoint(tmp_path).params["blocks"]
    assert (loaded["q"].dtype, loaded["mlp_norm"].dtype) == (np.float16, np.float32)


def test_a_value_that_is_not_finite_is_refused(tmp_path):
    state = hf_folder.write_toy(tmp_path, TOY, toys.random_params(TOY.config))
    state["model.layers.1.mlp.up_proj.weight"][3, 1] = np.nan
    hf_folder.write_weights(tmp_path, state)
    message = refusal(load_checkpoint, tmp_path)
    assert message.endswith("up_proj.weight: expected finite values, found nan at (3, 1)")


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_what_is_no_folder_is_refused(kind, tmp_path):
    path = tmp_path / "checkpoint"
    if kind == "file":
        path.write_bytes(b"")
    assert refusal(load_checkpoint, path) == f"{path}: no such checkpoint directory"


def test_converted_layers_beyond_the_config_are_refused(folders, tmp_path):
    copy = shutil.copytree(folders[0]["orbax", "float32"], tmp_path / "copy")
    data = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(data | {"num_hidden_layers": 1}))
    assert refusal(load_checkpoint, copy) == (
        f"{copy / 'blocks'}: expected 1 layers as in config.json, found 001"
    )


@pytest.mark.parametrize("kind", ["hf", "hf sharded", "orbax"])
@pytest.mark.parametrize("name", ["grouped, q/k/v biases, theta 1e6", "window 7, tied head"])
def test_logits_equal_those_of_the_model_that_transformers_saved(name, kind, torch, tmp_path):
    toy = toys.ZOO[name]
    model = toys.torch_model(toy, toys.random_params(toy.config, seed=3))
    folder = tmp_path / "saved"
    options = {"max_shard_size": "6KB"} if kind == "hf sharded" else {}
    model.save_pretrained(folder, safe_serialization=True, **options)
    assert (folder / INDEX).exists() == (kind == "hf sharded")
    if kind == "orbax":
        to_orbax(folder, tmp_path / "orbax")
        folder = tmp_path / "orbax"
    loaded = load_checkpoint(folder)
    assert loaded.config == toy.config
    tokens = toys.random_tokens(toy.config, 2, 40)
    with torch.no_grad():
        expected = model(torch.tensor(tokens.tolist())).logits.numpy()
    logits = jax.jit(Transformer(toy.config).apply)({"params": loaded.params}, tokens).logits
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


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
    monkeypatch.setattr(loading, "_SHARD_BYTES", limit)
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
    monkeypatch.setattr(loading, "_SHARD_BYTES", 16)
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


def test_a_staged_folder_appears_when_all_went_well(tmp_path):
    target = tmp_path / "some" / "where" / "out"
    with staged(target) as staging:
        (staging / "a").write_text("b")
        assert not target.exists()
        assert staging.parent == target.parent  # a rename inside one file system
    assert (target / "a").read_text() == "b"
    assert [p.name for p in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_staged_folder_leaves_nothing_when_something_failed(error, tmp_path):
    def fail():
        with staged(tmp_path / "some" / "where" / "out") as staging:
            (staging / "a").write_text("b")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["folder", "file", "broken link"])
def test_a_staged_folder_does_not_replace_anything(there, tmp_path):
    target = tmp_path / "out"
    if there == "folder":
        target.mkdir()
    elif there == "file":
        target.write_text("kept")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="out: exists already"), staged(target):
        pytest.fail("entered")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_staged_folder_gives_way_to_one_that_appeared_meanwhile(tmp_path):
    def lose():
        with staged(tmp_path / "out") as staging:
            (staging / "a").write_text("b")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").write_text("kept")

    with pytest.raises(OSError, match="out"):
        lose()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["theirs"]


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_staged_folder_needs_a_name_of_its_own(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="exists already"), staged(name):
        pytest.fail("entered")
    assert list(tmp_path.iterdir()) == []


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


def test_a_hash_is_of_names_and_bytes_of_config_and_weights(tmp_path):
    contents = {"model.safetensors": b"weights", "config.json": b"{}"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    expected = hashlib.sha256(b"config.json\0{}model.safetensors\0weights").hexdigest()
    assert checkpoint_hash(tmp_path) == expected
    (tmp_path / "tokenizer.json").write_bytes(b"other")
    assert checkpoint_hash(tmp_path) == expected
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    assert checkpoint_hash(tmp_path) != expected


@pytest.mark.parametrize("kind", ["hf", "orbax"])
def test_a_hash_tells_checkpoints_apart_and_copies_not(kind, folders, tmp_path):
    paths = [folders[0][kind, dtype] for dtype in DTYPES]
    assert len({checkpoint_hash(path) for path in paths}) == len(paths)
    copy = shutil.copytree(paths[0], tmp_path / "copy")
    assert checkpoint_hash(copy) == checkpoint_hash(paths[0])
    weights = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert checkpoint_hash(copy) != checkpoint_hash(paths[0])
