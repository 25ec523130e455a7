"""A wrapped model's tensors are found under their plain names, and what is no weight is left out."""

import hf_folder
import numpy as np
import pytest
import toys

from converters.errors import CheckpointError
from converters.hf_weights import open_weights
from converters.load import checkpoint_notes, load_checkpoint
from converters.sameness import same_model
from converters.tensor_names import plain_names

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"]
TIED = toys.ZOO["window 7, tied head"]
PARAMS = toys.random_params(TOY.config)
STATE = toys.hf_state(TOY.config, PARAMS)
WRAPPERS = {
    "DataParallel": lambda name: f"module.{name}",
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "FSDP": lambda name: "_fsdp_wrapped_module." + name.replace(
        "model.layers.0.", "model.layers.0._fsdp_wrapped_module."
    ),
    "PEFT": lambda name: f"base_model.model.{name}",
    "TRL": lambda name: f"pretrained_model.{name}",
    "pictures": lambda name: f"language_model.{name}",
    "pictures, newer": lambda name: name.replace("model.", "model.language_model.", 1),
    "compiled inside DataParallel": lambda name: f"module._orig_mod.{name}",
    "TRL around PEFT in FSDP": lambda name: (
        f"_fsdp_wrapped_module.pretrained_model.base_model.model.{name}"
    ),
    "compiled layers": lambda name: name.replace("self_attn.", "_orig_mod.self_attn."),
    "the body's own names": lambda name: name.removeprefix("model."),
}  # fmt: skip


def folder_of(path, state, toy=TOY, **changes):
    hf_folder.write_config(path, hf_folder.config_json(toy) | changes)
    hf_folder.write_weights(path, state)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("plain") / "hf", STATE)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_model_is_the_plain_one(name, plain, tmp_path):
    wrapped = {WRAPPERS[name](own): tensor for own, tensor in STATE.items()}
    assert set(wrapped) != set(STATE)
    assert same_model(folder_of(tmp_path / "hf", wrapped), plain)
    (note,) = checkpoint_notes(tmp_path / "hf")
    assert "prefixes" in note
    assert checkpoint_notes(plain) == []


def test_a_prefix_that_one_tensor_lacks_stays(tmp_path):
    state = {
        (name if name == "model.norm.weight" else f"module.{name}"): t for name, t in STATE.items()
    }
    with pytest.raises(CheckpointError, match="missing tensor"):
        load_checkpoint(folder_of(tmp_path / "hf", state))


def test_a_name_inside_which_a_word_stands_is_no_prefix():
    names = ["my_module.x", "a.language_model_b.c"]
    assert plain_names(names) == dict(zip(names, names, strict=True))


EXTRAS = {
    "v_head.summary.weight": "value head",
    "v_head.summary.bias": "value head",
    "score.weight": "value head",
    "value_head.0.weight": "value head",
    "model.layers.0.self_attn.rotary_emb.inv_freq": "rotary",
    "model.rotary_emb.inv_freq": "rotary",
    "model.layers.1.self_attn.rotary_emb.cos_cached": "rotary",
    "model.layers.0.self_attn.masked_bias": "mask",
    "model.layers.0.self_attn.bias": "mask",
    "model.layers.0.attn.bias": "mask",
}


@pytest.mark.parametrize("name", EXTRAS)
def test_what_is_no_weight_of_the_language_model_is_left_out_and_named(name, plain, tmp_path):
    state = STATE | {name: np.ones((1, 3), np.float32)}
    assert same_model(folder_of(tmp_path / "hf", state), plain)
    (note,) = checkpoint_notes(tmp_path / "hf")
    assert name in note
    assert EXTRAS[name] in note


def test_a_value_head_outside_a_prefix_does_not_hide_it(plain, tmp_path):
    state = {f"pretrained_model.{name}": tensor for name, tensor in STATE.items()}
    state["v_head.summary.weight"] = np.ones((1, 3), np.float32)
    assert same_model(folder_of(tmp_path / "hf", state), plain)
    assert len(checkpoint_notes(tmp_path / "hf")) == 2


@pytest.mark.parametrize("value", [0.0, 1e-3])
def test_biases_without_a_place_must_be_zero(value, plain, tmp_path):
    name = "model.layers.1.mlp.up_proj.bias"
    folder = folder_of(tmp_path / "hf", STATE | {name: np.full(44, value, np.float32)})
    if value:
        with pytest.raises(CheckpointError, match=f"unexpected tensor: {name}"):
            load_checkpoint(folder)
    else:
        assert same_model(folder, plain)
        assert name in checkpoint_notes(folder)[0]


def test_a_tied_model_may_store_only_its_head(tmp_path):
    params = toys.random_params(TIED.config)
    state = toys.hf_state(TIED.config, params)
    expected = folder_of(tmp_path / "embed", state, TIED)
    state["lm_head.weight"] = state.pop("model.embed_tokens.weight")
    assert same_model(folder_of(tmp_path / "head", state, TIED), expected)
    untied = folder_of(tmp_path / "untied", state, TIED, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"missing tensor: model\.embed_tokens\.weight"):
        load_checkpoint(untied)


def test_two_names_of_one_tensor_are_refused(tmp_path):
    state = STATE | {"model.norm._orig_mod.weight": STATE["model.norm.weight"]}
    with pytest.raises(CheckpointError, match="is also there as"):
        open_weights(folder_of(tmp_path / "hf", state))
