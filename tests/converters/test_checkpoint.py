"""Orbax saving and restoring: equal bits, real shards, nothing cast or left out in silence."""

import dataclasses
import re
import shutil

import hf_folder
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from converters import checkpoint
from converters.convert import to_orbax
from converters.errors import CheckpointError
from eap_jax.sharding import make_mesh, parameter_shardings

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"]
DTYPES = ("float32", "bfloat16", "float16", "int32", "uint32", "bool")


def bits(leaf) -> bytes:
    return np.asarray(leaf).tobytes()


def small_tree() -> dict:
    rng = np.random.default_rng(0)
    leaves = {name: jnp.asarray(rng.normal(size=(4, 6)) * 9).astype(name) for name in DTYPES}
    return {
        "by dtype": leaves,
        "list": [jnp.zeros(3), jnp.float32(2.5)],
        "numpy": np.arange(5, dtype=np.int32),
    }


def like(tree, sharding=None):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """(converted folder, parameters) of TOY."""
    folder = tmp_path_factory.mktemp("converted")
    params = toys.random_params(TOY.config)
    hf_folder.write_toy(folder / "hf", TOY, params)
    to_orbax(folder / "hf", folder / "orbax")
    return folder / "orbax", params


@pytest.fixture
def copied(converted, tmp_path):
    """A copy of the converted folder that a test may break."""
    shutil.copytree(converted[0], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("given", ["arrays", "shapes"])
def test_a_tree_comes_back_bit_for_bit(given, tmp_path):
    tree = small_tree()
    checkpoint.save_tree(tmp_path / "tree", tree)
    found = checkpoint.load_tree(tmp_path / "tree", tree if given == "arrays" else like(tree))
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        assert leaf.dtype == expected.dtype
        assert leaf.shape == np.shape(expected)
        assert bits(leaf) == bits(expected)


@pytest.mark.parametrize("mesh", ["model:2", "data:2"])
def test_a_tree_saved_from_one_device_is_restored_to_shards_of_two(mesh, tmp_path):
    params = toys.random_params(TOY.config)
    checkpoint.save_tree(tmp_path / "tree", params)
    shardings = parameter_shardings(TOY.config, make_mesh(mesh))
    abstract = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        params,
        shardings,
    )
    found = checkpoint.load_tree(tmp_path / "tree", abstract)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert_on_two_devices(found, params, split=mesh == "model:2")

    # And from two devices back to one.
    checkpoint.save_tree(tmp_path / "again", found)
    again = checkpoint.load_tree(tmp_path / "again", like(params))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(again)} == {1}


def assert_on_two_devices(found, params, *, split: bool) -> None:
    """Both devices hold every leaf: half of each matrix of heads, MLP or vocabulary if `split`."""
    halves = 0
    for leaf, whole in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        assert len(leaf.devices()) == 2
        sizes = {shard.data.size for shard in leaf.addressable_shards}
        assert sizes in ({whole.size}, {whole.size // 2})
        halves += sizes == {whole.size // 2}
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, np.asarray(whole)[shard.index])
    # q, k, v, o, gate, up, down and three biases; 61 tokens cannot be halved.
    assert halves == (10 if split else 0)


@pytest.mark.parametrize("sharded", [False, True])
def test_ends_and_blocks_are_restored_one_by_one(converted, sharded):
    folder, params = converted
    ends = {name: leaf for name, leaf in params.items() if name != "blocks"}
    mesh = make_mesh("model:2")
    shardings = parameter_shardings(TOY.config, mesh) if sharded else None
    found = checkpoint.load_ends(folder, TOY.config, shardings)
    jax.tree.map(np.testing.assert_array_equal, found, ends)
    of_layer = None
    if sharded:  # a block has no layer axis
        of_layer = {
            name: jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*s.spec[1:]))
            for name, s in shardings["blocks"].items()
        }
    blocks = []
    for layer in range(TOY.config.num_layers):
        expected = {name: leaf[layer] for name, leaf in params["blocks"].items()}
        blocks.append(checkpoint.load_block(folder, TOY.config, layer, of_layer))
        jax.tree.map(np.testing.assert_array_equal, blocks[-1], expected)
    kind = jax.Array if sharded else np.ndarray
    assert all(isinstance(leaf, kind) for leaf in jax.tree.leaves((found, blocks)))
    if sharded:
        assert_on_two_devices(blocks[0], expected | blocks[0], split=True)


def test_a_converted_folder_is_told_from_any_other(converted, tmp_path):
    assert checkpoint.is_orbax(converted[0])
    assert not checkpoint.is_orbax(converted[0].parent / "hf")
    assert not checkpoint.is_orbax(tmp_path / "nowhere")


def refusal(call, *args) -> str:
    with pytest.raises(CheckpointError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"a": np.zeros((2, 3), np.float16)}, ["a: expected float16 (2, 3)", "float32 (2, 3)"]),
        ({"a": np.zeros((3, 2), np.float32)}, ["a: expected float32 (3, 2)", "float32 (2, 3)"]),
        ({"b": np.zeros((2, 3), np.float32)}, ["leaves differ", "a, b"]),
        (
            {"a": np.zeros((2, 3), np.float32), "more": {"c": np.zeros(1)}},
            ["leaves differ", "more/c"],
        ),
        ({}, ["leaves differ", "a"]),
    ],
)
def test_a_tree_of_another_form_is_refused(expected, words, tmp_path):
    """Orbax itself casts to the dtype that is asked for and says nothing."""
    checkpoint.save_tree(tmp_path / "tree", {"a": np.ones((2, 3), np.float32)})
    message = refusal(checkpoint.load_tree, tmp_path / "tree", expected)
    assert message.startswith(f"{tmp_path / 'tree'}: ")
    assert [word for word in words if word not in message] == []


def test_64_bits_are_not_cut_in_silence(tmp_path):
    tree = {"a": np.arange(3, dtype=np.int64)}
    checkpoint.save_tree(tmp_path / "tree", tree)
    message = refusal(checkpoint.load_tree, tmp_path / "tree", tree)
    assert message.endswith("a: expected int64 (3,), found int32 (3,)")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        message = refusal(checkpoint.load_tree, tmp_path / name, {"a": np.zeros(1)})
        assert message.startswith(f"{tmp_path / name}: not a readable Orbax checkpoint: ")


def test_an_existing_tree_is_not_overwritten(tmp_path):
    tree = {"a": jnp.arange(3)}
    checkpoint.save_tree(tmp_path / "tree", tree)
    message = refusal(checkpoint.save_tree, tmp_path / "tree", {"a": jnp.arange(3) + 1})
    assert message == f"{tmp_path / 'tree'}: exists already"
    np.testing.assert_array_equal(checkpoint.load_tree(tmp_path / "tree", tree)["a"], [0, 1, 2])


def test_a_config_that_does_not_fit_the_blocks_is_refused(copied):
    def config(**changes):
        return dataclasses.replace(TOY.config, **changes)

    checkpoint.check_layers(copied, TOY.config)
    for layers, odd in ((1, "found 001"), (3, "missing 002")):
        message = refusal(checkpoint.check_layers, copied, config(num_layers=layers))
        assert message == (
            f"{copied / 'blocks'}: expected {layers} layers as in config.json, {odd}"
        )
    message = refusal(checkpoint.load_ends, copied, config(vocab_size=62))
    assert message.startswith(f"{copied / 'ends' / 'embed'}: embed: expected float32 (62, 36)")
    message = refusal(checkpoint.load_ends, copied, config(tied_embeddings=True))
    assert message.startswith(f"{copied / 'ends'}: expected tensors ['embed', 'final_norm'], found")
    message = refusal(checkpoint.load_block, copied, config(qkv_bias=False), 1)
    assert message.startswith(f"{copied / 'blocks' / '001'}: expected tensors")


def test_a_missing_layer_is_named(copied):
    shutil.rmtree(copied / "blocks" / "000")
    message = refusal(checkpoint.check_layers, copied, TOY.config)
    assert message == f"{copied / 'blocks'}: expected 2 layers as in config.json, missing 000"
    shutil.rmtree(copied / "blocks")
    assert refusal(checkpoint.check_layers, copied, TOY.config) == message


def rewritten(folder, layer: int, **changes) -> None:
    """One layer saved again with other tensors."""
    block = checkpoint.load_block(folder, TOY.config, layer)
    path = checkpoint.block_path(folder, layer)
    shutil.rmtree(path)
    tree = {name: leaf for name, leaf in (block | changes).items() if leaf is not None}
    checkpoint.save_tree(path, tree)


def largest_file(part):
    return max((file for file in part.rglob("*") if file.is_file()), key=lambda f: f.stat().st_size)


def cut_off(folder):
    file = largest_file(folder / "blocks" / "001")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def spoil(folder, name):
    """Change a saved layer's bytes so that its metadata cannot be read."""
    for file in (folder / "blocks" / "001").rglob(name):
        file.write_bytes(file.read_bytes()[:8])


BROKEN = {
    "no layer": (lambda f: shutil.rmtree(f / "blocks" / "001"), "blocks: .* missing 001"),
    "a layer more": (
        lambda f: shutil.copytree(f / "blocks" / "001", f / "blocks" / "002"),
        "blocks: .* found 002",
    ),
    "no head": (lambda f: shutil.rmtree(f / "ends" / "head"), "ends: expected tensors .*'head'"),
    "no tensor": (lambda f: rewritten(f, 1, up=None), "blocks/001: expected tensors .*'up'"),
    "cut off": (cut_off, "blocks/001: not a readable Orbax checkpoint: "),
    "emptied": (
        lambda f: largest_file(f / "blocks" / "001").write_bytes(b""),
        "blocks/001: not a readable Orbax checkpoint: ",
    ),
    "no manifest": (
        lambda f: spoil(f, "manifest.ocdbt"),
        "blocks/001: not a readable Orbax checkpoint: ",
    ),
    "another shape": (
        lambda f: rewritten(f, 1, up=np.zeros((44, 35), np.float32)),
        r"blocks/001: up: expected float32 \(44, 36\), found float32 \(44, 35\)",
    ),
    "no float": (
        lambda f: rewritten(f, 1, up=np.zeros((44, 36), np.int32)),
        "blocks/001: up: expected dtype float32, float16, bfloat16, found int32",
    ),
    "another float": (
        lambda f: rewritten(f, 1, up=np.zeros((44, 36), np.float16)),
        "blocks/001: up: expected dtype float32 as in the layers before, found float16",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_converted_model_is_accounted_for_without_reading_its_values(copied, name):
    checkpoint.check_complete(copied, TOY.config)
    break_it, words = BROKEN[name]
    break_it(copied)
    message = refusal(checkpoint.check_complete, copied, TOY.config)
    assert re.match(f"{re.escape(str(copied))}/{words}", message), message
    assert "\n" not in message


def test_a_whole_converted_model_is_checked_without_reading_a_value(copied, monkeypatch):
    monkeypatch.setattr(checkpoint, "load_tree", lambda *_: pytest.fail("read a part"))
    checkpoint.check_complete(copied, TOY.config)
