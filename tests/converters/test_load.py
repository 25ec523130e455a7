"""Checkpoints of either kind in memory: what was written, on its shards, cast on demand."""

import hashlib
import json
import shutil

import hf_folder
import jax
import ml_dtypes
import numpy as np
import pytest
import toys

from converters.convert import to_orbax
from converters.errors import CheckpointError
from converters.load import checkpoint_dtype, checkpoint_hash, load_checkpoint
from eap_jax.parameters import parameter_shapes, separate_layers
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


@pytest.mark.parametrize("mesh", ["", "model:2"])
@pytest.mark.parametrize("kind", ["hf", "orbax"])
def test_separate_layers_are_those_of_the_stack_on_the_same_shards(kind, mesh, folders):
    mesh = make_mesh(mesh)
    stacked = separate_layers(jax.tree.map(np.asarray, folders[1]["bfloat16"]))
    loaded = load_checkpoint(
        folders[0][kind, "bfloat16"],
        shardings=parameter_shardings(TOY.config, mesh, separate=True),
        separate=True,
    )
    assert_same(loaded.params, jax.tree.map(np.asarray, stacked))
    halves = {leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(loaded.params)}
    whole = {leaf.shape for leaf in jax.tree.leaves(loaded.params)}
    assert (halves == whole) == (mesh.size == 1)
    alone = load_checkpoint(folders[0][kind, "bfloat16"], separate=True)
    assert_same(alone.params, jax.tree.map(np.asarray, stacked))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dtype_is_that_of_the_weights_whatever_config_json_says(dtype, folders, tmp_path):
    assert checkpoint_dtype(folders[0]["orbax", dtype]) == dtype
    stated = "float32" if dtype == "bfloat16" else "bfloat16"
    hf_folder.write_toy(tmp_path, TOY, folders[1][dtype], dtype=DTYPES[dtype], torch_dtype=stated)
    assert checkpoint_dtype(tmp_path) == dtype


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


def test_a_hash_is_of_names_and_bytes_of_config_weights_and_tokenizer(tmp_path):
    contents = {"model.safetensors": b"weights", "config.json": b"{}"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    expected = hashlib.sha256(b"config.json\0{}model.safetensors\0weights").hexdigest()
    assert checkpoint_hash(tmp_path) == expected
    (tmp_path / "optimizer.bin").write_bytes(b"training")
    (tmp_path / "trainer_state.json").write_bytes(b"{}")
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10" / "model.safetensors").write_bytes(b"earlier")
    assert checkpoint_hash(tmp_path) == expected
    (tmp_path / "chat_template.jinja").write_bytes(b"template")
    edited = checkpoint_hash(tmp_path)
    assert edited != expected
    (tmp_path / "chat_template.jinja").unlink()
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
