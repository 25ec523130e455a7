"""A LoRA folder is the model that peft makes of it: logits, scores read layer by layer, conversion."""

import shutil
import warnings

import hf_folder
import numpy as np
import pytest
import toys
from peft_folder import change, logits, write_adapter

from converters.adapter_base import with_base
from converters.convert import to_hf, to_orbax
from converters.errors import CheckpointError
from converters.hf_config import read_config
from converters.hf_weights import open_weights
from converters.load import checkpoint_hash, checkpoint_notes, load_checkpoint
from converters.sameness import same_model
from converters.stored import StoredWeights
from eap_jax.attribution import attribute
from eap_jax.streaming import Work, attribute_streamed

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft")

BIASED = toys.ZOO["multi-query, head_dim 10, all biases"]
PLAIN = toys.ZOO["multi-head"]
TIED = toys.ZOO["window 7, tied head"]
SETTINGS = {
    "two projections": (PLAIN, {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"]}),
    "all linear, rank stabilised": (
        BIASED, {"r": 4, "lora_alpha": 9, "use_rslora": True, "target_modules": "all-linear"},
    ),
    "ranks and alphas of their own": (
        PLAIN,
        {
            "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj", "o_proj"],
            "rank_pattern": {"down_proj": 5, r"layers\.0\.self_attn\.q_proj": 3},
            "alpha_pattern": {"model.layers.1.self_attn.o_proj": 11},
        },
    ),
    "a regular expression in one layer": (
        PLAIN, {"target_modules": r".*layers\.1\..*\.(gate|up)_proj", "r": 2, "lora_alpha": 3},
    ),
    "chosen layers, fan_in_fan_out": (
        PLAIN,
        {
            "target_modules": ["k_proj", "up_proj"], "layers_to_transform": [1], "r": 2,
            "lora_alpha": 7, "fan_in_fan_out": True,
        },
    ),
    "modules saved whole": (
        PLAIN, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    ),
    "an embedding saved whole, tied base": (
        TIED, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "all biases": (BIASED, {"target_modules": ["q_proj", "gate_proj"], "bias": "all"}),
    "biases of its modules": (BIASED, {"target_modules": ["v_proj"], "bias": "lora_only"}),
    "embedding and head": (PLAIN, {"target_modules": ["embed_tokens", "lm_head"], "r": 3}),
}  # fmt: skip


def build(root, toy, settings, *, pickled=False, dtype=None):
    """A base's folder and an adapter's, and peft's model."""
    params = toys.random_params(toy.config)
    kinds = {} if dtype is None else {"dtype": dtype[0], "torch_dtype": dtype[1]}
    hf_folder.write_toy(root / "base", toy, params, **kinds)
    model = toys.torch_model(toy, params)
    if dtype is not None:
        model = model.to(getattr(torch, dtype[1]))
    return write_adapter(root, model, settings, pickled=pickled)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return build(tmp_path_factory.mktemp("plain"), *SETTINGS["two projections"])


def copy_of(plain, tmp_path):
    shutil.copytree(plain[1], tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_lora_folder_has_pefts_logits(name, tmp_path):
    toy, settings = SETTINGS[name]
    base, adapter, wrapped = build(tmp_path, toy, settings)
    tokens = toys.random_tokens(toy.config, 2, 12)
    with torch.no_grad():
        expected = wrapped(torch.from_numpy(tokens).long()).logits.numpy()
    assert toys.relative(logits(adapter, tokens), expected) < 1e-5
    assert toys.relative(logits(base, tokens), expected) > 1e-3


def test_streamed_scores_are_those_in_memory(plain):
    _, adapter, _ = plain
    config = PLAIN.config
    batch = toys.batch_of(toys.random_texts(config))
    expected = attribute(load_checkpoint(adapter).params, batch, config=config)
    length = batch.tokens_BT.shape[1]
    with StoredWeights(adapter) as weights:
        ((found,),) = attribute_streamed(
            weights,
            [Work(batch=batch, weights_ABJ=(batch.weights_BJ,), lengths=(length,))],
            config=config,
        )
    assert toys.relative(found.scores_BWR, expected.scores_BWR) <= 1e-5


def merged_tensors(wrapped):
    with warnings.catch_warnings():  # peft's own, about ends that are no longer tied
        warnings.simplefilter("ignore")
        state = wrapped.merge_and_unload().state_dict()
    return {name: tensor.float().numpy() for name, tensor in state.items()}


@pytest.mark.parametrize("to", [to_orbax, to_hf])
def test_both_conversions_hold_the_merged_model(to, plain, tmp_path):
    base, adapter, _ = plain
    (adapter / "tokenizer_config.json").write_text("{}")
    to(adapter, tmp_path / "out")
    assert same_model(tmp_path / "out", adapter)
    assert not same_model(tmp_path / "out", base)
    assert (tmp_path / "out" / "tokenizer_config.json").exists()
    assert not (tmp_path / "out" / "adapter_config.json").exists()


@pytest.mark.parametrize("name", ["an embedding saved whole, tied base", "all biases"])
def test_a_converted_model_needs_no_base(name, tmp_path):
    _, adapter, wrapped = build(tmp_path, *SETTINGS[name])
    to_hf(adapter, tmp_path / "hf")
    shutil.rmtree(tmp_path / "base")
    expected = merged_tensors(wrapped)
    with open_weights(tmp_path / "hf") as reader:
        for tensor in reader.names:
            np.testing.assert_allclose(reader.read(tensor), expected[tensor], rtol=1e-6, atol=1e-6)
    assert read_config(tmp_path / "hf").tied_embeddings is False or name == "all biases"


def test_a_bfloat16_base_is_rounded_as_peft_rounds_it(tmp_path):
    import ml_dtypes

    settings = {"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 8}
    _, adapter, wrapped = build(
        tmp_path, PLAIN, settings, pickled=True, dtype=(ml_dtypes.bfloat16, "bfloat16")
    )
    assert (adapter / "adapter_model.bin").exists()
    expected = merged_tensors(wrapped)
    with open_weights(adapter) as reader:
        for name in reader.names:
            found = reader.read(name)
            assert found.dtype == ml_dtypes.bfloat16
            # A sum in another order may fall on the other side of a rounding.
            difference = np.abs(found.astype(np.float32) - expected[name])
            assert (difference <= 2**-7 * np.abs(expected[name]) + 1e-6).all()
            assert (difference == 0).mean() > 0.999


def test_a_part_of_a_tensor_is_that_part(plain):
    with open_weights(plain[1]) as reader:
        name = "model.layers.1.self_attn.v_proj.weight"
        whole = reader.read(name).reshape(-1)
        for start, count in ((0, 7), (30, 50), (whole.size - 5, 5)):
            found = np.concatenate([piece.copy() for piece in reader.pieces(name, start, count)])
            np.testing.assert_allclose(found, whole[start : start + count], rtol=1e-6)


def test_an_adapter_beside_the_weights_is_applied_and_said(plain, tmp_path):
    base, adapter, _ = plain
    shutil.copytree(base, tmp_path / "both")
    shutil.copytree(adapter, tmp_path / "both", dirs_exist_ok=True)
    change(tmp_path / "both", base_model_name_or_path="nobody/nothing")
    assert same_model(tmp_path / "both", adapter)
    (note,) = checkpoint_notes(tmp_path / "both")
    assert "LoRA" in note
    assert "4 weights changed" in note  # two projections of two layers


def test_the_base_is_found_by_its_record_or_given(plain, tmp_path):
    base, adapter = plain[0], copy_of(plain, tmp_path)
    shutil.copytree(base, tmp_path / "near")
    change(adapter, base_model_name_or_path="../near")
    assert same_model(adapter, plain[1])
    change(adapter, base_model_name_or_path="nobody/nothing")
    with pytest.raises(CheckpointError, match="nobody/nothing.*--base"):
        load_checkpoint(adapter)
    change(adapter, base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="--base"):
        load_checkpoint(adapter)
    assert same_model(with_base(adapter, base), plain[1])
    with pytest.raises(CheckpointError, match="--base"):
        load_checkpoint(adapter)  # what was given with another path is forgotten


def test_one_adapter_on_two_bases_at_once_is_two_models(plain, tmp_path):
    """Nothing about the one is kept for the other, in memory or read layer by layer."""
    base, adapter, _ = plain
    other = tmp_path / "other"
    params = toys.random_params(PLAIN.config, 7)
    hf_folder.write_toy(other, PLAIN, params)
    on = {name: with_base(adapter, folder) for name, folder in (("one", base), ("two", other))}
    name = "model.layers.1.self_attn.q_proj.weight"
    added = []
    for merged, alone in ((on["one"], base), (on["two"], other)):
        with open_weights(merged) as changed, open_weights(alone) as before:
            added.append(changed.read(name) - before.read(name))
    np.testing.assert_allclose(added[0], added[1], atol=1e-6)
    assert not np.allclose(added[0], 0)
    loaded = {key: load_checkpoint(path).params for key, path in on.items()}
    assert checkpoint_hash(on["one"]) == checkpoint_hash(adapter) != checkpoint_hash(on["two"])
    for key, path in on.items():
        with StoredWeights(path) as weights:
            (block,) = weights.blocks([1])
        np.testing.assert_array_equal(block["q"], loaded[key]["blocks"]["q"][1])
    assert (on["one"] / "config.json").parent == adapter


def test_a_base_is_given_to_an_adapter_alone(plain, tmp_path):
    base, adapter, _ = plain
    with pytest.raises(CheckpointError, match="expected an adapter's folder"):
        with_base(base, base)
    shutil.copytree(base, tmp_path / "both")
    shutil.copytree(adapter, tmp_path / "both", dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match="found a base model beside it"):
        with_base(tmp_path / "both", base)
    with pytest.raises(CheckpointError, match="found an adapter in it"):
        load_checkpoint(with_base(adapter, adapter))


def test_the_hash_knows_the_adapter_and_its_base(plain, tmp_path):
    adapter = copy_of(plain, tmp_path)
    shutil.copytree(plain[0], tmp_path / "base")
    change(adapter, base_model_name_or_path=str(tmp_path / "base"))
    first = checkpoint_hash(adapter)
    (adapter / "optimizer.pt").write_bytes(b"training")
    assert checkpoint_hash(adapter) == first
    change(tmp_path / "adapter", lora_alpha=50)
    second = checkpoint_hash(adapter)
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert len({first, second, checkpoint_hash(adapter), checkpoint_hash(plain[0])}) == 4


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING"),
        ({"peft_type": "VERA"}, "VERA"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),
        ({"peft_type": None}, "peft_type"),
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"lora_bias": True}, "lora_bias"),
        ({"r": 4}, "rank 4"),
        ({"r": 0}, "r: expected"),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"rank_pattern": {"(": 3}}, "rank_pattern"),
        ({"target_modules": ["q_proj"]}, "v_proj"),
        ({"target_modules": "("}, "target_modules"),
        ({"target_modules": None}, "target_modules"),
        ({"layers_to_transform": [0]}, "layers.1"),
        ({"bias": "some"}, "bias"),
        ({"trainable_token_indices": [3]}, "trainable tokens"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(keys, words, plain, tmp_path):
    adapter = copy_of(plain, tmp_path)
    change(adapter, **keys)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(adapter)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_adapter_of_another_base_is_refused(plain, tmp_path):
    adapter = copy_of(plain, tmp_path)
    toy = toys.toy_of("llama", d_model=32, head_dim=8)
    hf_folder.write_toy(tmp_path / "wide", toy, toys.random_params(toy.config))
    change(adapter, base_model_name_or_path=str(tmp_path / "wide"))
    with pytest.raises(CheckpointError, match=r"expected shape \(32, 32\)"):
        load_checkpoint(adapter)


def test_an_adapter_without_weights_is_refused(plain, tmp_path):
    adapter = copy_of(plain, tmp_path)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        load_checkpoint(adapter)
