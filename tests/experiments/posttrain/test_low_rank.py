"""Low-rank factors: beside the weights as merged, in peft as here, and refused where they do not fit."""

import dataclasses
import functools
import json
import warnings

import hf_folder
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from converters.load import load_checkpoint
from eap_jax.transformer import Transformer
from experiments.errors import InputError
from experiments.posttrain import low_rank

TOY = toys.toy_of("llama", num_kv_heads=2, d_ff=26)
RANK, ALPHA = 3, 5.0
TOKENS_BT = toys.random_tokens(TOY.config, 2, 11)


@pytest.fixture(scope="module")
def params():
    return toys.random_params(TOY.config)


@pytest.fixture(scope="module")
def factors(params):
    """Both factors random, so that their product is of the size of the weights."""
    found = low_rank.initial_factors(params, RANK, jax.random.key(1))
    rng = np.random.default_rng(2)
    return {
        name: {"a": pair["a"], "b": jnp.asarray(rng.normal(0, 0.1, pair["b"].shape), jnp.float32)}
        for name, pair in found.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, params, factors):
    root = tmp_path_factory.mktemp("adapter")
    hf_folder.write_toy(root / "base", TOY, params)
    low_rank.save_adapter(
        root / "adapter", TOY.config, factors, alpha=ALPHA, base=str(root / "base"), dtype="float32"
    )
    return root / "adapter"


@functools.partial(jax.jit, static_argnames="config")
def logits(params, config):
    return Transformer(config).apply({"params": params}, TOKENS_BT).logits


def test_new_factors_change_nothing_and_their_numbers_have_the_stated_deviation(params):
    found = low_rank.initial_factors(params, RANK, jax.random.key(3))
    for name, pair in found.items():
        assert not np.any(pair["b"])
        inputs = pair["a"].shape[2]
        assert np.abs(pair["a"]).max() <= np.sqrt(3 / inputs)
        assert np.std(pair["a"]) == pytest.approx(inputs**-0.5, rel=0.2)
        assert pair["b"].shape[1] * inputs == np.prod(params["blocks"][name].shape[1:])
    merged = low_rank.merged(params, found, ALPHA)
    for name in found:
        np.testing.assert_array_equal(merged["blocks"][name], params["blocks"][name])


def test_factors_beside_the_weights_are_the_merged_model_and_have_its_gradients(params, factors):
    beside = dataclasses.replace(TOY.config, adapter_rank=RANK)
    ways = {
        "merged": (low_rank.merged, TOY.config),
        "beside": (low_rank.beside, beside),
    }
    weights = np.random.default_rng(4).normal(size=(*TOKENS_BT.shape, TOY.config.vocab_size))

    def value(way, factors):
        make, config = ways[way]
        found = logits(make(params, factors, ALPHA), config)
        return jnp.sum(found * weights), found

    found = {
        way: jax.value_and_grad(functools.partial(value, way), has_aux=True)(factors)
        for way in ways
    }
    assert toys.relative(found["beside"][0][1], found["merged"][0][1]) < 1e-5
    assert toys.relative(found["beside"][0][1], logits(params, TOY.config)) > 0.05
    for name, pair in found["merged"][1].items():
        for letter, gradient in pair.items():
            assert np.linalg.norm(gradient) > 0
            assert toys.relative(found["beside"][1][name][letter], gradient) < 1e-4


def test_peft_and_the_converters_read_the_folder_as_the_merged_model(
    torch, params, factors, folder
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft

        model = peft.PeftModel.from_pretrained(toys.torch_model(TOY, params), folder).eval()
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS_BT, dtype=torch.long)).logits.numpy()
    merged = logits(low_rank.merged(params, factors, ALPHA), TOY.config)
    assert toys.relative(merged, expected) < 1e-5
    loaded = load_checkpoint(folder)
    assert loaded.config == TOY.config
    assert toys.relative(logits(loaded.params, TOY.config), expected) < 1e-5


def test_factors_are_read_as_they_were_written(factors, folder):
    found = low_rank.read_factors(folder, TOY.config, RANK, ALPHA)
    assert jax.tree.structure(found) == jax.tree.structure(factors)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(factors), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("rank", "alpha"), [(RANK + 1, ALPHA), (RANK, 2 * ALPHA)])
def test_another_rank_or_alpha_is_refused_in_one_line(folder, rank, alpha):
    with pytest.raises(InputError, match=f"expected r {rank} and lora_alpha {alpha:g}") as error:
        low_rank.read_factors(folder, TOY.config, rank, alpha)
    assert "\n" not in str(error.value)


def test_an_adapter_of_other_modules_is_refused(tmp_path, factors, folder):
    layers = toys.toy_of("llama", num_kv_heads=2, d_ff=26, num_layers=3).config
    with pytest.raises(InputError, match=r"found no base_model\.model\.model\.layers\.2"):
        low_rank.read_factors(folder, layers, RANK, ALPHA)
    fewer = dataclasses.replace(TOY.config, num_layers=1)
    with pytest.raises(InputError, match=r"blocks' matrices alone, found .*layers\.1"):
        low_rank.read_factors(folder, fewer, RANK, ALPHA)


def test_a_base_whose_matrices_are_fused_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"})
    )
    with pytest.raises(InputError, match="found self_attn.qkv_proj"):
        low_rank.check_names(tmp_path)
