"""The front door: the same numbers as the engine and as torch, by name, in the texts' order."""

import json
import shutil

import gguf_model
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import toys
import xarray as xr
from failed_array import FailedArray
from safetensors.numpy import load_file, save_file

from converters.errors import CheckpointWarning
from eap_jax import parameters
from eap_jax.ablation import cut_losses
from eap_jax.attribution import attribute
from eap_jax.batching import Text, pad_into_batches
from eap_jax.decoding import ladder
from eap_jax.generation import Sampling, generate
from eap_jax.graph import edge_mask, num_edges, reader_names, writer_names
from eap_jax.sharding import make_mesh
from eap_jax.slots import cache_slots
from experiments import api
from experiments.api import compare, load
from experiments.errors import InputError
from experiments.responses.tokenization import stop_tokens
from experiments.statistics.metrics import METRICS
from experiments.study.footprint import Placed, decode_needs, weight_bytes

QUESTION = "Question: Hugo has {} coins. Hugo buys {}. How many coins does Hugo have?\nAnswer:"
TEXTS = [
    (QUESTION.format(7, 4), " 7 + 4 = 11. The answer is \\boxed{11}."),
    (QUESTION.format(12, 5), " 12 + 5 = 17."),
    (QUESTION.format(3, 9), " 3 + 9 = 12. The answer is \\boxed{12}."),
]


@pytest.fixture(scope="module")
def model():
    return load("tiny_grpo:rl")


@pytest.fixture(scope="module")
def scores(model):
    return model.attribute(TEXTS)


@pytest.fixture(scope="module")
def tokens(model):
    """The texts as the study tokenises them: prompt with special tokens, answer without."""
    encode = model.tokenizer
    return [
        toys.Text(
            prompt=tuple(encode(prompt)["input_ids"]),
            answer=tuple(encode(answer, add_special_tokens=False)["input_ids"]),
        )
        for prompt, answer in TEXTS
    ]


@pytest.fixture(scope="module")
def ten_texts(tokens):
    """Ten texts of the tiny family, as token ids: (prompt, answer) with 3 to 12 counted tokens."""
    lengths = (3, 5, 7, 9, 11, 12, 4, 6, 8, 10)
    longest = max(tokens, key=lambda text: len(text.answer))
    return [(tokens[i % 3].prompt, longest.answer[:n]) for i, n in enumerate(lengths)]


def torch_model(model):
    """The same checkpoint through transformers."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        model.directory, attn_implementation="eager"
    )


def test_scores_are_the_engines_and_keep_the_order_of_texts(model, scores, tokens):
    layers = model.config.num_layers
    for sample, text in enumerate(tokens):
        found = attribute(model.checkpoint.params, toys.batch_of([text]), config=model.config)
        assert toys.relative(scores.score.values[sample], found.scores_BWR[0]) <= 1e-5
        assert float(scores.loss[sample]) == pytest.approx(float(found.loss_B[0]), abs=1e-6)
    assert tuple(scores.writer.values) == writer_names(layers)
    assert tuple(scores.reader.values) == reader_names(layers)
    assert int(scores.edge.sum()) == num_edges(layers) == 77
    assert not scores.score.where(~scores.edge).fillna(0).any()
    unseen = scores.edge & ~scores.measurable
    names = set(unseen.to_series()[lambda at: at].index)
    assert names == {("input", f"a0<{read}>") for read in "qkv"}


def test_the_branch_estimator_predicts_cuts_better_and_cuts_into_logits_exactly(model, ten_texts):
    """Over all edges but input -> a0: Spearman 0.81 and equal signs 0.91 here, EAP 0.70 and 0.84."""
    effects_nWR = model.ablate(ten_texts).effect.values
    measured_WR = edge_mask(model.config.num_layers).copy()
    measured_WR[0, :3] = False
    effects = effects_nWR[:, measured_WR].ravel()
    found = {}
    for estimator in ("eap", "branch"):
        scores = model.attribute(ten_texts, estimator=estimator)
        assert scores.attrs["estimator"] == estimator
        predicted = scores.score.values[:, measured_WR].ravel()
        rank = scipy.stats.spearmanr(predicted, effects).statistic
        found[estimator] = rank, (np.sign(predicted) == np.sign(effects)).mean()
    np.testing.assert_allclose(scores.score[..., -1], effects_nWR[..., -1], atol=1e-5)
    assert found["branch"][0] >= 0.75 > found["eap"][0]
    assert found["branch"][1] >= 0.88 > found["eap"][1]


def test_token_ids_and_texts_are_the_same_texts(model, scores, tokens):
    found = model.attribute([(text.prompt, text.answer) for text in tokens], batch_tokens=64)
    np.testing.assert_allclose(found.score, scores.score, atol=1e-6)


def test_an_edge_a_frame_and_a_file_come_from_xarray(scores, tmp_path):
    one = scores.score.sel(writer="m0", reader="logits")
    assert one.dims == ("sample",)
    top = scores.score.mean("sample").to_series().sort_values(key=abs).tail(10)
    assert isinstance(top, pd.Series)
    assert top.index.names == ["writer", "reader"]
    assert top.abs().max() == pytest.approx(float(np.abs(scores.score.mean("sample")).max()))
    scores.to_dataframe().to_csv(tmp_path / "scores.csv")
    back = pd.read_csv(tmp_path / "scores.csv")
    assert len(back) == scores.score.size


def test_all_77_edges_of_ten_texts_are_cut_as_a_torch_program_cuts_them(model, ten_texts, torch):
    """Issue's bar: exact ablation through `Model.ablate` equals torch to 1e-4 absolute."""
    import torch_eap

    found = model.ablate(ten_texts)
    peer, worst = torch_model(model), 0.0
    with torch.no_grad():
        for sample, (prompt, answer) in enumerate(ten_texts):
            text = toys.Text(prompt=prompt, answer=answer)
            whole = float(torch_eap.loss_of(peer, text)[0])
            assert float(found.loss[sample]) == pytest.approx(whole, abs=1e-5)
            for writer in found.writer.values:
                for reader in found.reader.values:
                    effect = float(found.effect[sample].sel(writer=writer, reader=reader))
                    if np.isnan(effect):
                        assert not bool(found.edge.sel(writer=writer, reader=reader))
                        continue
                    cut = float(torch_eap.loss_of(peer, text, (writer, reader))[0])
                    worst = max(worst, abs(effect - (cut - whole)))
    assert worst <= 1e-4


def test_only_the_edges_asked_for_are_cut(model):
    found = model.ablate(TEXTS, [("m0", "logits"), "input -> a1<k>"])
    asked = found.effect.notnull()
    assert int(asked.sum()) == 2 * len(TEXTS)
    assert bool(asked.sel(writer="m0", reader="logits").all())
    assert bool(asked.sel(writer="input", reader="a1<k>").all())
    every = model.ablate(TEXTS).effect
    np.testing.assert_allclose(
        found.effect.values[asked.values], every.values[asked.values], atol=1e-5
    )


def test_a_circuit_of_all_edges_is_the_model_and_of_none_reads_nothing(model, scores, torch):
    import torch_eap

    layers = model.config.num_layers
    pairs = np.argwhere(edge_mask(layers))
    every = [(writer_names(layers)[w], reader_names(layers)[r]) for w, r in pairs]
    whole = model.circuit(TEXTS, every)
    assert whole.name == "loss"
    np.testing.assert_allclose(whole, scores.loss, atol=1e-5)
    peer, empty = torch_model(model), model.circuit(TEXTS, [])
    missing = model.circuit(TEXTS, [edge for edge in every if edge != ("m1", "m3")])
    effect = model.ablate(TEXTS, [("m1", "m3")]).effect.sel(writer="m1", reader="m3")
    np.testing.assert_allclose(missing - whole, effect, atol=1e-5)
    with torch.no_grad():
        for sample, (prompt, answer) in enumerate(TEXTS):
            text = toys.Text(
                prompt=tuple(model.tokenizer(prompt)["input_ids"]),
                answer=tuple(model.tokenizer(answer, add_special_tokens=False)["input_ids"]),
            )
            expected = float(torch_eap.loss_of(peer, text, kept=set())[0])
            assert float(empty[sample]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("side", ["base", "rl"])
def test_scores_are_the_effect_of_one_percent_of_a_write(side, ten_texts):
    """FIDELITY.md has the curve from 0.1 to 100 %, by a float64 program."""
    model = load(f"tiny_grpo:{side}")
    texts = [Text(tokens=(*prompt, *answer[:-1]), targets=answer) for prompt, answer in ten_texts]
    (padded,) = pad_into_batches(texts, batch_tokens=4096)
    places = [(int(w), int(r)) for w, r in np.argwhere(edge_mask(model.config.num_layers))]
    found = cut_losses(
        model.checkpoint.params, padded.batch, places, config=model.config, share=0.01
    )
    effects_BE = found.effects(padded.batch.weights_BJ) / 0.01
    scores_nWR = model.attribute(ten_texts).score.values[list(padded.indices)]
    scores_BE = scores_nWR[:, *np.transpose(places)]
    assert scipy.stats.pearsonr(scores_BE.ravel(), effects_BE[:10].ravel()).statistic >= 0.99


def test_a_circuit_by_the_mean_reads_the_mean_writes_of_its_texts(model, tokens, torch):
    import torch_eap

    peer, edges = torch_model(model), [("input", "m0"), ("m3", "logits")]
    found = model.circuit(TEXTS, edges, ablation="mean")
    means = torch_eap.mean_writes(peer, tokens)
    with torch.no_grad():
        for sample, text in enumerate(tokens):
            loss, _ = torch_eap.loss_of(peer, text, kept=set(edges), means=means)
            assert float(found[sample]) == pytest.approx(float(loss), abs=1e-5)
    with pytest.raises(ValueError, match="ablation: expected zero or mean, found 'median'"):
        model.circuit(TEXTS, edges, ablation="median")


def test_greedy_answers_are_transformers(model, torch):
    prompts = [prompt for prompt, _ in TEXTS]
    found = model.generate(prompts, max_new_tokens=24)
    peer = torch_model(model)
    for prompt, answer in zip(prompts, found, strict=True):
        ids = torch.tensor([model.tokenizer(prompt)["input_ids"]])
        given = peer.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
        assert answer == model.tokenizer.decode(given, skip_special_tokens=True)
    assert model.generate([]) == []


def test_answers_of_rows_that_the_memory_has_room_for_are_those_of_all_together_from_one_copy(
    model, monkeypatch
):
    """With room for a few rows beside both copies of the weights, as many are decoded together."""
    prompts = [QUESTION.format(number, 5) for number in range(12)]
    sizes = {"max_new_tokens": 24}
    ids = [model.tokenizer(prompt)["input_ids"] for prompt in prompts]
    sampling = Sampling(**sizes, stop_tokens=stop_tokens(model.directory))
    plain = generate(model.checkpoint.params, ids, config=model.config, sampling=sampling)
    expected = [model.tokenizer.decode(answer, skip_special_tokens=True) for answer in plain]
    asked = []

    def spied(*args, rows, **named):
        asked.append(rows)
        return generate(*args, rows=rows, **named)

    monkeypatch.setattr(api, "generate_tokens", spied)
    assert model.generate(prompts, **sizes) == expected
    one = Placed(config=model.config, dtype="float32", mesh=make_mesh(""))
    slots = cache_slots(ladder(max(map(len, ids))), 24)
    decode = decode_needs(one, rows=4, slots=slots).total
    usable = int(decode / 0.95) + weight_bytes(one) + 1
    monkeypatch.setattr(api, "usable_on", lambda _: usable)
    monkeypatch.setattr(parameters, "_cut", lambda _: pytest.fail("the weights are copied again"))
    assert model.generate(prompts, **sizes) == expected
    assert asked[0] == 12
    assert 1 <= asked[1] <= 4


def test_two_models_are_compared_as_the_study_compares_them(scores):
    base = load("tiny_grpo:base").attribute(TEXTS)
    table = compare(base, scores)
    assert list(table.index) == [metric.key for metric in METRICS]
    intensity = table.loc[METRICS[0].key]
    expected = [float(np.abs(side.score).mean()) for side in (base, scores)]
    assert [intensity.base, intensity.rl] == pytest.approx(expected)
    assert intensity.difference == pytest.approx(expected[1] - expected[0])
    assert np.isnan(intensity.difference_low), "three texts are too few for an interval"
    often = [side.isel(sample=[0, 1, 2] * 4) for side in (base, scores)]
    intensity = compare(*often).loc[METRICS[0].key]
    assert intensity.difference_low < intensity.difference < intensity.difference_high
    assert set(table.trend) <= {"rises", "falls", "unclear"}


def test_a_directory_a_side_and_their_names(model):
    again = load(model.directory)
    assert again.config == model.config
    assert repr(model) == "<Model tiny_grpo:rl: 4 layers, 77 edges, float32>"
    assert isinstance(model.attribute(TEXTS[:1]), xr.Dataset)


def test_a_gguf_file_is_a_model(tmp_path):
    path = tmp_path / "model.gguf"
    gguf_model.write(path, tokenizer=gguf_model.add_tokenizer)
    found = load(path)
    assert found.config == gguf_model.TOY.config
    assert found.tokenizer("12")["input_ids"] == [39]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: load("tiny_grpo:after"), "expected tiny_grpo:base or tiny_grpo:rl"),
        (lambda m: load("tiny_grpo"), "expected tiny_grpo:base or tiny_grpo:rl"),
        (lambda m: load("no/such/place"), "no/such/place: no such directory"),
        (lambda m: m.attribute([]), r"texts: expected at least one"),
        (lambda m: m.attribute([((1, 2), (3, 10**6))]), "text 0: answer: expected token ids"),
        (lambda m: m.attribute([("Question:", "")]), "text 0: answer: .* found none"),
        (lambda m: m.ablate(TEXTS, ["m9 -> logits"]), "edge 'm9 -> logits': expected a writer"),
        (lambda m: m.circuit(TEXTS, [("m3", "a0<q>")]), "comes after the writer"),
    ],
)
def test_a_wrong_argument_is_one_line(model, call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(model)
    assert "\n" not in str(caught.value)


def test_a_dtype_that_scores_are_not_computed_in_is_refused():
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        load("tiny_grpo:rl", dtype="float16")


def test_an_adapter_is_merged_into_the_named_model(model, tmp_path):
    rng, name = np.random.default_rng(0), "model.layers.1.mlp.up_proj"
    width, inner = model.config.d_model, model.config.d_ff
    a, b = rng.normal(size=(2, width)), rng.normal(size=(inner, 2))
    save_file(
        {
            f"base_model.model.{name}.lora_A.weight": a.astype(np.float32),
            f"base_model.model.{name}.lora_B.weight": b.astype(np.float32),
        },
        tmp_path / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["up_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.warns(CheckpointWarning) as caught:
        adapted = load("tiny_grpo:rl", adapter=tmp_path)
    (line,) = [str(one.message) for one in caught]
    assert "a LoRA adapter is merged into its base: 1 weights changed, 0 replaced" in line
    assert caught[0].filename == __file__
    found, before = (m.checkpoint.params["blocks"]["up"] for m in (adapted, model))
    np.testing.assert_allclose(found[1] - before[1], 3 * b @ a, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[0], before[0])
    assert adapted.generate(
        ["Question: 1"], max_new_tokens=2
    )  # the base's tokenizer and stop tokens


def test_one_adapter_is_loaded_onto_two_bases(model, tmp_path):
    name = "base_model.model.model.layers.0.mlp.up_proj"
    a = np.ones((1, model.config.d_model), np.float32)
    b = np.ones((model.config.d_ff, 1), np.float32)
    save_file(
        {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b},
        tmp_path / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["up_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.warns(CheckpointWarning, match="LoRA"):
        sides = {side: load(f"tiny_grpo:{side}", adapter=tmp_path) for side in ("base", "rl")}
    for side, adapted in sides.items():
        before = load(f"tiny_grpo:{side}").checkpoint.params["blocks"]["up"]
        found = adapted.checkpoint.params["blocks"]["up"]
        np.testing.assert_allclose(found[0] - before[0], 1, atol=1e-5)
        np.testing.assert_array_equal(found[1:], before[1:])
        assert adapted.tokenizer("Question")["input_ids"]  # that of its own base


def test_what_a_program_prints_of_a_checkpoint_is_a_warning_once(model, tmp_path):
    folder = shutil.copytree(model.directory, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"favourite_colour": "blue"}))
    state = load_file(folder / "model.safetensors")
    save_file(
        {f"module.{key}": value for key, value in state.items()}, folder / "model.safetensors"
    )
    with pytest.warns(CheckpointWarning) as caught:
        load(folder)
    lines = [str(one.message) for one in caught]
    assert len(lines) == 2
    assert lines[0].endswith("config.json: ignored keys that are not known: 'favourite_colour'")
    assert "tensors are read without their prefixes" in lines[1]


def test_a_circuit_whose_allocation_failed_ends_in_its_error(model, monkeypatch):
    monkeypatch.setattr(api, "circuit_losses", lambda *_, **__: FailedArray(1, 1))
    with pytest.raises(RuntimeError, match="^RESOURCE_EXHAUSTED"):
        model.circuit([([1, 2], [3])], ["input -> logits"])
