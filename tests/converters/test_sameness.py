"""Two checkpoints are one model exactly where every number is equal, whatever their form."""

import dataclasses
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import toys
from hf_folder import write_toy

from converters.convert import to_orbax
from converters.sameness import same_model

TOY = toys.ZOO["window 5 above the first layer"]


def rounded_params() -> dict:
    """Parameters that bfloat16 holds exactly."""
    params = toys.random_params(TOY.config)
    return jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16).astype(np.float32), params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sameness") / "first"
    write_toy(path, TOY, rounded_params())
    return path


def test_a_copy_is_the_same_in_every_form_and_dtype(folder, tmp_path):
    params = rounded_params()
    shutil.copytree(folder, tmp_path / "copy")
    # Another producer's words in config.json, which say nothing of the function.
    write_toy(tmp_path / "sharded", TOY, params, shards=3, use_cache=False, _name_or_path="x")
    write_toy(tmp_path / "half", TOY, params, dtype=ml_dtypes.bfloat16)
    to_orbax(folder, tmp_path / "orbax")
    to_orbax(tmp_path / "half", tmp_path / "half orbax")
    for name in ("copy", "sharded", "half", "orbax", "half orbax"):
        assert same_model(folder, tmp_path / name), name
        assert same_model(tmp_path / name, folder), name


def test_a_tied_head_is_that_of_the_embedding_stored_twice(tmp_path):
    tied = dataclasses.replace(TOY.config, tied_embeddings=True)
    params = toys.random_params(tied)
    write_toy(tmp_path / "tied", dataclasses.replace(TOY, config=tied), params)
    write_toy(tmp_path / "stored", TOY, params | {"head": params["embed"]})
    write_toy(tmp_path / "other", TOY, params | {"head": params["embed"][::-1]})
    assert same_model(tmp_path / "tied", tmp_path / "stored")
    assert same_model(tmp_path / "stored", tmp_path / "tied")
    assert not same_model(tmp_path / "tied", tmp_path / "other")


def test_a_padded_vocabulary_is_the_same_model_and_a_changed_row_is_not(folder, tmp_path):
    wide = dataclasses.replace(TOY.config, vocab_size=TOY.config.vocab_size + 3)
    draw, params = np.random.default_rng(5), rounded_params()
    for name in ("embed", "head"):
        more = draw.normal(size=(3, wide.d_model)).astype(np.float32)
        params[name] = np.concatenate([params[name], more])
    write_toy(tmp_path / "padded", dataclasses.replace(TOY, config=wide), params)
    assert same_model(folder, tmp_path / "padded")
    assert same_model(tmp_path / "padded", folder)
    params["head"][60, 0] += 1
    write_toy(tmp_path / "changed", dataclasses.replace(TOY, config=wide), params)
    assert not same_model(folder, tmp_path / "changed")


def test_one_number_of_any_tensor_makes_another_model(folder, tmp_path):
    path = tmp_path / "other"
    names = list(toys.hf_state(TOY.config, rounded_params()))
    assert len(names) == 39
    # Of each kind, from the last layer.
    for name in {name.replace("layers.0.", "layers.2.") for name in names if "s.1." not in name}:
        params = rounded_params()
        state = toys.hf_state(TOY.config, params)
        before = state[name].copy()
        state[name].reshape(-1)[-1] += 2**-7  # a view of the parameters
        shutil.rmtree(path, ignore_errors=True)
        written = write_toy(path, TOY, params)
        assert (written[name] != before).sum() == 1, name
        assert not same_model(folder, path), name


def test_the_same_weights_under_another_config_are_another_model(folder, tmp_path):
    write_toy(tmp_path / "theta", TOY, rounded_params(), rope_theta=5000.0)
    assert not same_model(folder, tmp_path / "theta")


def test_nothing_is_read_beyond_the_first_tensor_that_differs(folder, tmp_path):
    """Every tensor after the first layer holds a NaN, which its reading refuses."""
    params = rounded_params()
    params["blocks"]["q"][0] += 1
    write_toy(tmp_path / "cut", TOY, params)
    weights = tmp_path / "cut" / "model.safetensors"
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    spoiled = bytearray(data)
    for name, entry in header.items():
        if name != "__metadata__" and "layers.0." not in name:
            first = 8 + length + entry["data_offsets"][0]
            spoiled[first : first + 4] = np.float32(np.nan).tobytes()
    weights.write_bytes(spoiled)
    assert not same_model(folder, tmp_path / "cut")
