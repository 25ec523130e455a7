"""Weights read a part at a time are those that are loaded at once, from both kinds of checkpoint."""

import shutil
import weakref

import jax
import numpy as np
import pytest
import toys

from converters.convert import to_orbax
from converters.errors import CheckpointError
from converters.load import load_checkpoint
from converters.save import save_hf
from converters.stored import StoredWeights
from eap_jax.attribution import attribute
from eap_jax.streaming import Work, attribute_streamed


@pytest.fixture(scope="module", params=["safetensors", "orbax"])
def directory(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "hf"
    save_hf(path, toys.MAIN, toys.random_params(toys.MAIN), architecture="Qwen2ForCausalLM")
    if request.param == "safetensors":
        return path
    to_orbax(path, path.parent / "orbax")
    return path.parent / "orbax"


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_parts_are_those_of_the_whole(directory, dtype):
    whole = load_checkpoint(directory, dtype=dtype).params
    with StoredWeights(directory, dtype=dtype) as weights:
        layers = list(range(weights.config.num_layers))
        for order in (layers, layers[::-1]):
            for layer, block in zip(order, weights.blocks(order), strict=True):
                expected = jax.tree.map(lambda leaf: leaf[layer], whole["blocks"])  # noqa: B023
                assert block.keys() == expected.keys()
                for name, leaf in block.items():
                    np.testing.assert_array_equal(leaf, expected[name])
        ends = weights.ends(("embed", "final_norm"))
    assert ends.keys() == {"embed", "final_norm"}
    np.testing.assert_array_equal(ends["embed"], whole["embed"])


def test_streaming_from_disk_scores_as_in_memory(directory):
    params = load_checkpoint(directory).params
    batch = toys.batch_of(toys.random_texts(toys.MAIN))
    expected = attribute(params, batch, config=toys.MAIN)
    length = batch.tokens_BT.shape[1]
    with StoredWeights(directory) as weights:
        ((found,),) = attribute_streamed(
            weights,
            [Work(batch=batch, weights_ABJ=(batch.weights_BJ,), lengths=(length,))],
            config=toys.MAIN,
        )
    assert toys.relative(found.scores_BWR, expected.scores_BWR) <= 1e-5


def test_a_missing_layer_is_named(tmp_path):
    save_hf(
        tmp_path / "hf", toys.MAIN, toys.random_params(toys.MAIN), architecture="Qwen2ForCausalLM"
    )
    to_orbax(tmp_path / "hf", tmp_path / "orbax")
    shutil.rmtree(tmp_path / "orbax" / "blocks" / "001")
    with pytest.raises(CheckpointError, match="missing 001"):
        StoredWeights(tmp_path / "orbax")


def test_a_layer_that_nobody_holds_is_gone_when_the_one_after_next_is_read(directory, monkeypatch):
    with StoredWeights(directory) as weights:
        read, alive, first = weights._block, {}, []

        def watched(layer):
            alive[layer] = [ref() is not None for ref in first]
            return read(layer)

        monkeypatch.setattr(weights, "_block", watched)
        for block in weights.blocks([0, 1, 0, 1]):
            if not first:
                first += [weakref.ref(leaf) for leaf in block.values()]
                alive.clear()
            del block
        assert first
        assert not any(alive[0]), "the third block is read while the first is still in memory"
