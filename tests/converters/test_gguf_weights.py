"""GGUF files as checkpoints: the values of gguf's own dequantisation, and torch's logits of them."""

import hashlib

import gguf_model
import jax
import ml_dtypes
import numpy as np
import pytest
import toys

from converters import mapping
from converters.convert import to_hf, to_orbax
from converters.gguf_weights import GGUFReader
from converters.hf_weights import open_weights
from converters.load import checkpoint_dtype, checkpoint_hash, load_checkpoint
from converters.pieces import PIECE
from converters.stored import StoredWeights

PLAIN = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("kind", gguf_model.KINDS)
def test_every_type_has_ggufs_own_values_and_torchs_logits(kind, torch, tmp_path):
    path = tmp_path / "model.gguf"
    expected = gguf_model.write(path, kind=kind)
    with open_weights(path) as reader:
        assert set(reader.names) == set(expected)
        for name, tensor in expected.items():
            found = reader.read(name)
            dtype = PLAIN.get(kind, np.float32) if tensor.ndim > 1 else np.float32
            assert (found.dtype, found.shape) == (dtype, tensor.shape)
            assert np.array_equal(found.astype(np.float32), tensor), name
    assert checkpoint_dtype(path) == np.dtype(PLAIN.get(kind, np.float32)).name
    gguf_model.assert_logits(path, gguf_model.TOY, expected, torch)


def test_biases_and_a_head_of_its_own_are_read(torch, tmp_path):
    toy = toys.ZOO["multi-query, head_dim 10, all biases"]
    expected = gguf_model.write(tmp_path / "model.gguf", toy)
    assert {"lm_head.weight", "model.layers.0.self_attn.q_proj.bias"} < set(expected)
    gguf_model.assert_logits(tmp_path / "model.gguf", toy, expected, torch)


def test_types_that_differ_from_matrix_to_matrix_become_float32(tmp_path):
    path = tmp_path / "model.gguf"
    kinds = {"token_embd.weight": "Q8_0", "blk.1.ffn_up.weight": "BF16"}
    expected = gguf_model.write(path, kind="F16", kinds=kinds)
    with GGUFReader(path) as reader:
        for name, tensor in expected.items():
            found = reader.read(name)
            assert found.dtype == np.float32
            assert np.array_equal(found, tensor)


@pytest.mark.parametrize("room", [1, 256 * 100, PIECE])
def test_pieces_of_any_size_are_the_tensor(room, monkeypatch, tmp_path):
    """A head's rows move within it, so that they must come together."""
    expected = gguf_model.write(tmp_path / "model.gguf", kind="Q8_0")
    monkeypatch.setattr("converters.gguf_weights.PIECE", room)
    with GGUFReader(tmp_path / "model.gguf") as reader:
        for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"):
            name = f"model.layers.1.{part}.weight"
            pieces = [piece.copy() for piece in reader.pieces(name)]
            assert len(pieces) > 1 or room == PIECE
            assert np.array_equal(np.concatenate(pieces), expected[name].reshape(-1))


def test_one_piece_at_a_time_is_in_memory(tmp_path, monkeypatch):
    """A tensor is dequantised piece by piece: no piece holds more than asked for and one head."""
    gguf_model.write(tmp_path / "model.gguf", kind="Q4_1")
    monkeypatch.setattr("converters.gguf_weights.PIECE", 2**10)
    with GGUFReader(tmp_path / "model.gguf") as reader:
        for name in reader.names:
            head = 64 * 256 if "q_proj" in name or "k_proj" in name else 0
            assert max(piece.size for piece in reader.pieces(name)) <= max(2**10, head)


@pytest.mark.parametrize("kind", ["F16", "Q4_1"])
def test_streamed_and_converted_weights_are_those_in_memory(kind, tmp_path):
    path = tmp_path / "model.gguf"
    gguf_model.write(path, kind=kind, tokenizer=gguf_model.add_tokenizer)
    loaded = load_checkpoint(path)
    to_orbax(path, tmp_path / "orbax")
    to_hf(path, tmp_path / "hf")
    for other in (tmp_path / "orbax", tmp_path / "hf"):
        found = load_checkpoint(other)
        assert found.config == loaded.config
        jax.tree.map(np.testing.assert_array_equal, found.params, loaded.params)
        assert checkpoint_dtype(other) == checkpoint_dtype(path)
    with StoredWeights(path) as weights:
        for layer, block in enumerate(weights.blocks((0, 1))):
            for name, tensor in block.items():
                assert tensor.dtype == loaded.params["blocks"][name].dtype
                assert np.array_equal(tensor, loaded.params["blocks"][name][layer])
        for name, tensor in weights.ends(("embed", "final_norm")).items():
            assert np.array_equal(tensor, loaded.params[name])


def test_the_hash_is_of_the_contents(tmp_path):
    path = tmp_path / "model.gguf"
    gguf_model.write(path)
    assert checkpoint_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checkpoint_is_complete_or_refused_by_the_tensors_name(tmp_path):
    gguf_model.write(tmp_path / "model.gguf", without=("blk.1.ffn_up.weight",))
    with (
        GGUFReader(tmp_path / "model.gguf") as reader,
        pytest.raises(
            ValueError, match=r"1 missing tensor: model\.layers\.1\.mlp\.up_proj\.weight"
        ),
    ):
        mapping.check_complete(gguf_model.TOY.config, reader, tmp_path / "model.gguf")
