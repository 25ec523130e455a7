"""LoRA on projections that a file holds as one tensor (Phi-3) is the model that peft makes of it."""

import copy
import warnings

import family_toys
import numpy as np
import pytest
import toys
from peft_folder import change, logits, write_adapter

from converters.convert import to_hf, to_orbax
from converters.errors import CheckpointError
from converters.hf_weights import open_weights
from converters.load import checkpoint_notes, load_checkpoint
from converters.sameness import same_model
from converters.stored import StoredWeights
from eap_jax.attribution import attribute
from eap_jax.streaming import Work, attribute_streamed

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft")

FUSED = ["qkv_proj", "gate_up_proj"]
SETTINGS = {
    "the fused ones": ("phi3", {"r": 3, "lora_alpha": 5, "target_modules": FUSED}),
    "all linear, rank stabilised, tied": (
        "phi4", {"r": 4, "lora_alpha": 9, "use_rslora": True, "target_modules": "all-linear"},
    ),
    "ranks and alphas of their own": (
        "phi3",
        {
            "r": 2, "lora_alpha": 4, "target_modules": [*FUSED, "o_proj", "down_proj"],
            "rank_pattern": {"gate_up_proj": 5, r"layers\.0\.self_attn\.qkv_proj": 3},
            "alpha_pattern": {"model.layers.1.self_attn.qkv_proj": 11},
        },
    ),
    "one layer by a regular expression": (
        "phi4", {"r": 2, "lora_alpha": 3, "target_modules": r".*layers\.1\..*\.(qkv|gate_up)_proj"},
    ),
}  # fmt: skip


def build(root, name, settings):
    """A base's folder and an adapter's, and peft's model."""
    family_toys.family_folder(name, root / "base")
    return write_adapter(root, copy.deepcopy(family_toys.torch_family(name)), settings)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    return build(tmp_path_factory.mktemp("fused"), *SETTINGS["ranks and alphas of their own"])


@pytest.mark.parametrize("name", SETTINGS)
def test_an_adapter_of_fused_projections_has_pefts_logits(name, tmp_path):
    base, adapter, wrapped = build(tmp_path, *SETTINGS[name])
    tokens = np.random.default_rng(0).integers(0, 61, (2, 12)).astype(np.int32)
    with torch.no_grad():
        expected = wrapped(torch.from_numpy(tokens).long()).logits.numpy()
    assert toys.relative(logits(adapter, tokens), expected) < 1e-5
    assert toys.relative(logits(base, tokens), expected) > 1e-3


def test_it_is_merged_while_it_is_read_and_streamed_as_in_memory(fused):
    _, adapter, _ = fused
    found = load_checkpoint(adapter)
    batch = toys.batch_of(toys.random_texts(found.config))
    expected = attribute(found.params, batch, config=found.config)
    length = batch.tokens_BT.shape[1]
    with StoredWeights(adapter) as weights:
        ((streamed,),) = attribute_streamed(
            weights,
            [Work(batch=batch, weights_ABJ=(batch.weights_BJ,), lengths=(length,))],
            config=found.config,
        )
    assert toys.relative(streamed.scores_BWR, expected.scores_BWR) <= 1e-5
    (note,) = checkpoint_notes(adapter)
    assert "12 weights changed" in note  # four projections of three layers


def test_conversions_hold_pefts_merged_tensors(fused, tmp_path):
    _, adapter, wrapped = fused
    to_hf(adapter, tmp_path / "hf")
    to_orbax(adapter, tmp_path / "orbax")
    assert same_model(tmp_path / "orbax", adapter)
    merged = copy.deepcopy(wrapped).merge_and_unload().state_dict()
    with open_weights(tmp_path / "hf") as reader:
        assert "model.layers.0.self_attn.qkv_proj.weight" in reader.names
        for name in reader.names:
            expected = merged[name].float().numpy()
            np.testing.assert_allclose(reader.read(name), expected, rtol=1e-6, atol=1e-6)


def test_an_adapter_of_separate_projections_does_not_fit_a_fused_base(fused, tmp_path):
    """As one that was trained on a Llama."""
    toy = toys.toy_of("llama", num_layers=3, d_model=32, head_dim=8, d_ff=40)
    model = toys.torch_model(toy, toys.random_params(toy.config))
    with warnings.catch_warnings():  # transformers', of a name that peft uses
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
        wrapped.save_pretrained(tmp_path / "adapter")
    change(tmp_path / "adapter", base_model_name_or_path=str(fused[0]))
    with pytest.raises(CheckpointError, match="q_proj") as error:
        load_checkpoint(tmp_path / "adapter")
    assert "\n" not in str(error.value)
