"""The table of names against transformers' own, and every tensor of a checkpoint accounted for."""

import hf_folder
import ml_dtypes
import numpy as np
import pytest
import toys

from converters import mapping, weight_files
from converters.errors import CheckpointError
from converters.hf_weights import open_weights

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"]
TIED = toys.ZOO["window 7, tied head"]
HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"


def check(folder, config) -> None:
    with open_weights(folder) as reader:
        mapping.check_complete(config, reader, folder)


def refusal(folder, config) -> str:
    with pytest.raises(CheckpointError) as error:
        check(folder, config)
    assert "\n" not in str(error.value)
    return str(error.value)


def state_of(toy: toys.Toy) -> dict[str, np.ndarray]:
    return toys.hf_state(toy.config, toys.random_params(toy.config))


@pytest.mark.parametrize("name", toys.ZOO)
def test_the_table_names_every_tensor_of_transformers_model(name, torch):
    toy = toys.ZOO[name]
    model = toys.torch_model(toy, toys.random_params(toy.config))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if toy.config.tied_embeddings:
        del expected[HEAD]
    table = mapping.table(toy.config)
    assert {entry.hf_name: entry.hf_shape for entry in table} == expected
    assert len(table) == len(expected)


@pytest.mark.parametrize("name", toys.ZOO)
def test_every_tensor_lands_in_its_place_of_the_tree(name, tmp_path):
    toy = toys.ZOO[name]
    params = toys.random_params(toy.config)
    hf_folder.write_weights(tmp_path, toys.hf_state(toy.config, params))
    with open_weights(tmp_path) as reader:
        mapping.check_complete(toy.config, reader, tmp_path)
        for entry in mapping.table(toy.config):
            if entry.layer is None:
                expected = params[entry.name]
            else:
                expected = params["blocks"][entry.name][entry.layer]
            assert entry.shape == expected.shape
            np.testing.assert_array_equal(mapping.read_entry(entry, reader), expected)


def test_the_ends_come_first_and_then_layer_by_layer():
    layers = [entry.layer for entry in mapping.table(toys.MAIN)]
    ends = layers.count(None)
    assert layers[:ends] == [None] * ends
    assert layers[ends:] == sorted(layers[ends:])
    assert set(layers[ends:]) == {0, 1, 2}


@pytest.mark.parametrize("name", sorted(state_of(TOY)))
def test_each_missing_tensor_is_named(name, tmp_path):
    state = state_of(TOY)
    del state[name]
    hf_folder.write_weights(tmp_path, state)
    assert refusal(tmp_path, TOY.config) == f"{tmp_path}: 1 missing tensor: {name}"


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.2.self_attn.q_proj.weight",
        "model.layers.0.self_attn.o_proj.bias",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq.more",
    ],
)
def test_an_unexpected_tensor_is_named(name, tmp_path):
    hf_folder.write_weights(tmp_path, state_of(TOY) | {name: np.ones(2, np.float32)})
    assert refusal(tmp_path, TOY.config) == f"{tmp_path}: 1 unexpected tensor: {name}"


def test_a_long_list_of_tensors_is_cut_and_counted(tmp_path):
    more = {f"extra.{n}": np.ones(1, np.float32) for n in range(5)}
    hf_folder.write_weights(tmp_path, state_of(TOY) | more)
    message = refusal(tmp_path, TOY.config)
    assert message == (f"{tmp_path}: 5 unexpected tensors: extra.0, extra.1, extra.2 and 2 more")


def test_an_untied_model_needs_its_head_and_a_tied_one_does_not(tmp_path):
    state = state_of(TIED)
    assert HEAD not in state
    hf_folder.write_weights(tmp_path, state)
    check(tmp_path, TIED.config)
    untied = toys.toy_of("mistral", num_kv_heads=2, layer_windows=(7, 7), norm_eps=1e-5)
    assert refusal(tmp_path, untied.config) == f"{tmp_path}: 1 missing tensor: {HEAD}"


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", sorted(state_of(TOY)))
def test_each_tensor_of_a_wrong_shape_is_named(name, shards, tmp_path):
    state = state_of(TOY)
    expected = state[name].shape
    state[name] = np.concatenate([state[name], state[name][:1]])
    hf_folder.write_weights(tmp_path, state, shards=shards)
    file = next(f for f in tmp_path.glob("*.safetensors") if name in hf_folder.read_raw(f))
    assert refusal(tmp_path, TOY.config) == (
        f"{file}: tensor {name}: expected shape {expected}, found {state[name].shape}"
    )


def test_a_transposed_matrix_is_refused(tmp_path):
    state, name = state_of(TOY), "model.layers.1.mlp.down_proj.weight"
    state[name] = state[name].T
    hf_folder.write_weights(tmp_path, state)
    assert "expected shape (36, 44), found (44, 36)" in refusal(tmp_path, TOY.config)


@pytest.mark.parametrize("name", sorted(state_of(TOY)))
def test_each_tensor_of_a_wrong_dtype_is_named(name, tmp_path):
    state = state_of(TOY)
    state[name] = state[name].astype(np.float64)
    hf_folder.write_weights(tmp_path, state)
    assert refusal(tmp_path, TOY.config) == (
        f"{tmp_path / 'model.safetensors'}: tensor {name}: expected dtype F32, F16, BF16, found F64"
    )


def test_buffers_of_old_checkpoints_are_passed_over(tmp_path):
    buffers = {
        f"model.layers.{n}.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32) for n in (0, 1)
    }
    hf_folder.write_weights(tmp_path, state_of(TOY) | buffers)
    check(tmp_path, TOY.config)


def test_a_tied_heads_copy_must_be_the_embedding(tmp_path):
    state = state_of(TIED)
    hf_folder.write_weights(tmp_path, state | {HEAD: state[EMBED]})
    check(tmp_path, TIED.config)

    changed = state[EMBED].copy()
    changed[-1, -1] += 1
    file = tmp_path / "model.safetensors"
    for copy in (changed, state[EMBED][1:]):
        hf_folder.write_weights(tmp_path, state | {HEAD: copy})
        message = refusal(tmp_path, TIED.config)
        assert message.startswith(f"{file}: tensor {HEAD}: ")
        assert EMBED in message

    hf_folder.write_weights(tmp_path, state | {HEAD: state[EMBED].astype(np.float64)})
    assert f"tensor {HEAD}: expected dtype" in refusal(tmp_path, TIED.config)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
@pytest.mark.parametrize("piece", [2**21, 7], ids=["one piece", "many pieces"])
def test_a_value_that_is_not_finite_is_named_with_its_place(
    value, shown, dtype, piece, tmp_path, monkeypatch
):
    monkeypatch.setattr(weight_files, "PIECE", piece)
    state = {name: tensor.astype(dtype) for name, tensor in state_of(TOY).items()}
    name = "model.layers.1.self_attn.k_proj.weight"
    state[name][2, 5] = value
    hf_folder.write_weights(tmp_path, state)
    entries = {entry.hf_name: entry for entry in mapping.table(TOY.config)}
    with open_weights(tmp_path) as reader:
        for other, entry in entries.items():
            if other != name:
                mapping.read_entry(entry, reader)
        with pytest.raises(CheckpointError) as error:
            mapping.read_entry(entries[name], reader)
    assert str(error.value) == (
        f"{tmp_path / 'model.safetensors'}: tensor {name}: expected finite values, "
        f"found {shown} at (2, 5)"
    )


def test_large_finite_values_are_kept(tmp_path):
    state = {name: tensor.astype(np.float16) for name, tensor in state_of(TOY).items()}
    state["model.norm.weight"][:] = np.finfo(np.float16).max
    hf_folder.write_weights(tmp_path, state)
    entry = next(e for e in mapping.table(TOY.config) if e.name == "final_norm")
    with open_weights(tmp_path) as reader:
        assert (mapping.read_entry(entry, reader) == 65504).all()
