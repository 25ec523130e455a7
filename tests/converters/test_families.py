"""Every family against transformers: logits, answers, gradients, scores, cuts, and its checkpoint.

The models are tiny and random, made by each family's own transformers class (`family_toys`); the
scores' oracle is the literal torch program (`torch_eap`).
"""

import copy
import functools
import math

import family_toys
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from family_toys import FAMILY_TOYS
from safetensors.numpy import load_file

from converters.convert import to_hf, to_orbax
from converters.hf_config import read_family
from converters.load import load_checkpoint
from converters.save import save_hf
from converters.stored import StoredWeights
from eap_jax.ablation import cut_losses
from eap_jax.attribution import attribute
from eap_jax.circuit import circuit_losses
from eap_jax.generation import Sampling, generate
from eap_jax.graph import edge_mask, reader_names, writer_names
from eap_jax.objective import self_entropy
from eap_jax.sharding import layout, make_mesh, place_batch, place_parameters
from eap_jax.streamed_ablation import cut_losses_streamed
from eap_jax.streaming import Work, attribute_streamed
from eap_jax.transformer import Taps, Transformer

every_family = pytest.mark.parametrize("name", FAMILY_TOYS)
# Of every kind of norm, rotary table and projection one.
some_families = pytest.mark.parametrize("name", ["olmo3", "gemma3", "phi4"])
TEXT = toys.Text(prompt=tuple(range(3, 11)), answer=tuple(range(20, 30)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function: the checkpoint of a toy, written once."""

    @functools.cache
    def written(name):
        return family_toys.family_folder(name, tmp_path_factory.mktemp("family"))

    return written


@pytest.fixture(scope="module")
def loaded(folder):
    """A function: the toy as we read it."""
    return functools.cache(lambda name: load_checkpoint(folder(name)))


@pytest.fixture(scope="module")
def attributed(loaded):
    """A function: (batch of `TEXT`, its attribution)."""

    @functools.cache
    def found(name):
        batch = toys.batch_of([TEXT])
        checkpoint = loaded(name)
        return batch, attribute(checkpoint.params, batch, config=checkpoint.config)

    return found


@functools.partial(jax.jit, static_argnames="config")
def tapped_loss_gradient(taps, params, batch, *, config):
    def loss(taps):
        output = Transformer(config).apply(
            {"params": params}, batch.tokens_BT, taps, batch.positions_BJ
        )
        losses_BJ = self_entropy(output.logits, batch.targets_BJ)
        return jnp.sum(losses_BJ * batch.weights_BJ), output.logits

    return jax.grad(loss, has_aux=True)(taps)


@every_family
def test_logits_and_gradients_of_taps_equal_torch(name, loaded, torch):
    import torch_eap

    checkpoint, batch = loaded(name), toys.batch_of([TEXT])
    gradients, state, _ = torch_eap.tap_gradients(family_toys.torch_family(name), TEXT)
    zeros = Taps.zeros(checkpoint.config, *batch.tokens_BT.shape)
    taps, logits = tapped_loss_gradient(zeros, checkpoint.params, batch, config=checkpoint.config)
    expected = state.logits[len(TEXT.prompt) - 1 :].detach().numpy()
    assert np.abs(logits[0] - expected).max() <= 1e-4 * np.abs(expected).max()
    found = np.concatenate(
        [taps.blocks_L4BTD.reshape(-1, *zeros.logits_BTD.shape), taps.logits_BTD[None]]
    )
    for place, reader in enumerate(reader_names(checkpoint.config.num_layers)):
        assert toys.relative(found[place, 0], gradients[reader].numpy()) <= 1e-5, reader


def kind_of(reader: str) -> str:
    """`a2<q>` -> q, `m2` -> mlp, `logits`."""
    return {"a": reader[-2:-1], "m": "mlp"}.get(reader[0], reader)


@every_family
def test_scores_equal_the_torch_program_and_columns_add_up_to_zero(name, loaded, attributed, torch):
    """But for the MLP of a model that does not normalise what it reads."""
    import torch_eap

    config, (_, found) = loaded(name).config, attributed(name)
    scores, loss = torch_eap.edge_scores(
        copy.deepcopy(family_toys.torch_family(name)).double(), TEXT
    )
    writers, readers = writer_names(config.num_layers), reader_names(config.num_layers)
    expected_WR = np.array([[scores.get((w, r), 0.0) for r in readers] for w in writers])
    scores_WR = np.asarray(found.scores_BWR[0], np.float64)
    assert set(scores) == {
        (writers[w], readers[r]) for w, r in np.argwhere(edge_mask(config.num_layers))
    }
    assert toys.relative(scores_WR, expected_WR) <= 1e-5
    np.testing.assert_allclose(found.loss_B[0], loss, rtol=1e-5)
    for read in ("q", "k", "v", "mlp", "logits"):
        columns = [place for place, reader in enumerate(readers) if kind_of(reader) == read]
        part_WR = expected_WR[:, columns]
        residual = np.abs(part_WR.sum(axis=0)).sum() / np.abs(part_WR).sum()
        if read == "mlp" and config.norm_position == "post":
            assert residual > 1e-2, "this column is no measure of error"
        else:
            assert residual <= 1e-4, read


@every_family
def test_greedy_answers_equal_transformers(name, loaded, torch):
    """64 tokens, far beyond the windows, or as many as rotary frequencies hold for."""
    checkpoint, model = loaded(name), family_toys.torch_family(name)
    prompts = [family_toys.family_tokens(name, length, seed=length) for length in (3, 9)]
    most = min(64, (checkpoint.config.longest_text or math.inf) - 9)
    found = generate(
        checkpoint.params, prompts, config=checkpoint.config,
        sampling=Sampling(max_new_tokens=most),
    )  # fmt: skip
    for prompt, answer in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False,
            pad_token_id=0, eos_token_id=None,
        )[0, len(prompt) :]  # fmt: skip
        assert answer == expected.tolist()


@every_family
def test_a_checkpoint_comes_back_with_the_same_bits(name, folder, tmp_path):
    """Hugging Face -> Orbax -> Hugging Face, fused tensors included."""
    to_orbax(folder(name), tmp_path / "orbax")
    to_hf(tmp_path / "orbax", tmp_path / "back")
    before, after = (
        load_file(place / "model.safetensors") for place in (folder(name), tmp_path / "back")
    )
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        np.testing.assert_array_equal(tensor.view(np.uint8), after[key].view(np.uint8))
    assert (tmp_path / "back/config.json").read_bytes() == (
        folder(name) / "config.json"
    ).read_bytes()


@every_family
def test_a_saved_model_is_read_by_transformers_and_by_us(name, folder, loaded, tmp_path, torch):
    import transformers

    checkpoint, family = loaded(name), read_family(folder(name))
    save_hf(
        tmp_path / "saved", checkpoint.config, jax.tree.map(np.asarray, checkpoint.params),
        architecture=family.architecture, extra={"pad_token_id": None},
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "saved", attn_implementation="eager", dtype="float32"
    )
    assert type(model).__name__ == family.architecture
    tokens = torch.tensor([family_toys.family_tokens(name, 24)])
    with torch.no_grad():
        found, expected = (m(tokens).logits for m in (model, family_toys.torch_family(name)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    assert load_checkpoint(tmp_path / "saved").config == checkpoint.config


@every_family
def test_recomputed_and_streamed_scores_equal_those_in_memory(name, folder, loaded, attributed):
    checkpoint, (batch, expected) = loaded(name), attributed(name)
    again = attribute(checkpoint.params, batch, config=checkpoint.config, remat=True)
    assert toys.relative(again.scores_BWR, expected.scores_BWR) <= 1e-5
    length = batch.tokens_BT.shape[1]
    work = Work(batch=batch, weights_ABJ=(batch.weights_BJ,), lengths=(length,))
    with StoredWeights(folder(name)) as weights:
        ((streamed,),) = attribute_streamed(
            weights, [work], config=checkpoint.config, keep_layers=1
        )
    assert toys.relative(streamed.scores_BWR, expected.scores_BWR) <= 1e-5


@some_families
def test_scores_on_a_mesh_equal_those_of_one_device(name, loaded, attributed):
    checkpoint, (batch, expected) = loaded(name), attributed(name)
    mesh = make_mesh("model:2")
    found = attribute(
        place_parameters(checkpoint.params, checkpoint.config, mesh), place_batch(batch, mesh),
        config=checkpoint.config, layout=layout(mesh, batch.tokens_BT.shape[1]),
    )  # fmt: skip
    assert toys.relative(found.scores_BWR, expected.scores_BWR) <= 1e-5


@some_families
def test_a_cut_edge_and_a_circuit_cost_what_they_cost_in_torch(name, folder, loaded, torch):
    import torch_eap

    checkpoint, model = loaded(name), family_toys.torch_family(name)
    config, batch = checkpoint.config, toys.batch_of([TEXT])
    writers, readers = writer_names(config.num_layers), reader_names(config.num_layers)
    mask_WR = edge_mask(config.num_layers)
    edges = [(int(w), int(r)) for w, r in np.argwhere(mask_WR)][::9]

    def loss(losses_BJ):
        return float(np.sum(np.asarray(losses_BJ) * batch.weights_BJ))

    with torch.no_grad():
        expected = [
            float(torch_eap.loss_of(model, TEXT, cut=(writers[w], readers[r]))[0]) for w, r in edges
        ]
    cut = cut_losses(checkpoint.params, batch, edges, config=config)
    np.testing.assert_allclose(list(map(loss, cut.cut_EBJ)), expected, rtol=1e-4)
    with StoredWeights(folder(name)) as weights:
        streamed = cut_losses_streamed(weights, batch, edges, config=config)
    np.testing.assert_allclose(streamed.cut_EBJ, cut.cut_EBJ, rtol=1e-4, atol=1e-5)
    kept_WR = (np.random.default_rng(3).random(mask_WR.shape) < 0.7) & mask_WR
    kept = {(writers[w], readers[r]) for w, r in np.argwhere(kept_WR)}
    with torch.no_grad():
        expected = float(torch_eap.loss_of(model, TEXT, kept=kept)[0])
    found = circuit_losses(checkpoint.params, batch, kept_WR[None], config=config)
    np.testing.assert_allclose(loss(found), expected, rtol=1e-4)


@some_families
def test_branch_scores_equal_the_torch_programs(name, loaded, torch):
    """Where a write is normalised it is not linear in the values, and v has a branch of its own."""
    import torch_eap

    from eap_jax.attribution import attribute_prefixes

    checkpoint, batch = loaded(name), toys.batch_of([TEXT])
    length = batch.tokens_BT.shape[1]
    (found,) = attribute_prefixes(
        checkpoint.params, batch, (batch.weights_BJ,), lengths=(length,),
        config=checkpoint.config, estimator="branch",
    )  # fmt: skip
    scores = torch_eap.branch_scores(family_toys.torch_family(name), TEXT)
    layers = checkpoint.config.num_layers
    expected_WR = np.array(
        [[scores.get((w, r), 0.0) for r in reader_names(layers)] for w in writer_names(layers)]
    )
    assert toys.relative(found.scores_BWR[0], expected_WR) <= 1e-4
