"""The bench compares equals: its PyTorch programs compute what ours compute."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
import toys

from eap_jax.attribution import attribute
from eap_jax.generation import Sampling, generate
from eap_jax.graph import edge_mask
from eap_jax.transformer import init_parameters
from experiments.bench import measure, mixed_answers, programs, streamed
from experiments.bench.programs import Preset, _llama, random_batch
from experiments.errors import InputError

TINY = Preset(config=_llama(3, 32, 64, 4, 96), rows=3, length=20, targets=6)


@pytest.fixture(scope="module")
def params():
    return init_parameters(TINY.config, jax.random.key(0))


def test_random_weights_are_made_in_their_own_dtype():
    preset = dataclasses.replace(TINY, dtype="bfloat16")
    found = programs.random_parameters(preset)
    wanted = jax.eval_shape(lambda: init_parameters(TINY.config, jax.random.key(0), "bfloat16"))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), wanted
    )
    assert float(found["blocks"]["q"].astype("float32").std()) == pytest.approx(0.02, rel=0.1)
    first, second, _ = found["blocks"]["q"]
    assert (first != second).any()
    assert (found["final_norm"] == 1).all()


def test_lean_torch_program_scores_the_same_edges(torch, params):
    from experiments.bench import torch_peer

    batch = random_batch(TINY)
    program = torch_peer.EdgeScores(torch_peer.torch_model(TINY.config, params))
    found = program(batch) * edge_mask(3)
    expected = attribute(params, batch, config=TINY.config).scores_BWR
    assert toys.relative(found, expected) <= 1e-5


def test_transformers_decodes_the_same_tokens(torch, params):
    from experiments.bench import torch_peer

    prompts = np.asarray(random_batch(TINY).tokens_BT)
    found = torch_peer.generate(torch_peer.torch_model(TINY.config, params), prompts, 12)
    ours = generate(
        params, prompts.tolist(), config=TINY.config,
        sampling=Sampling(max_new_tokens=12, stop_tokens=()),
    )  # fmt: skip
    assert found.tolist() == [list(answer) for answer in ours]


def test_figures_are_complete_and_consistent():
    figures = measure.bench(TINY, repeats=1, compiles=1)
    assert figures["tokens"] == 60
    assert figures["attribution_tokens_per_second"] == pytest.approx(
        60 / figures["attribution_seconds"]
    )
    bound = 4 * TINY.config.num_parameters * 60 / (figures["matmul_gflops"] * 1e9)
    assert figures["fraction_of_matmul_bound"] == pytest.approx(
        bound / figures["attribution_seconds"]
    )
    assert figures["stacked_writes_bytes"] == 7 * 60 * 32 * 4
    json.dumps(figures)


def test_random_checkpoint_streams_from_both_kinds_of_files(tmp_path):
    streamed.write_random_checkpoint(tmp_path / "hf", TINY.config)
    figures = streamed.stream_once(tmp_path / "hf", random_batch(TINY))
    assert figures["finite"] == 1.0
    assert figures["streamed_over_bound"] == pytest.approx(
        figures["streamed_seconds"] / figures["bound_seconds"]
    )


def test_a_programs_peak_is_its_own_and_not_that_of_who_started_it():
    held = np.ones(300_000_000, np.uint8)
    _, small, output = streamed.run_measured([sys.executable, "-S", "-c", "print('done')"])
    code = "held = bytearray(b'x') * 200_000_000"
    seconds, large, _ = streamed.run_measured([sys.executable, "-S", "-c", code])
    assert output == "done\n"
    assert small < 100e6 < held.nbytes
    assert 200e6 < large < 300e6
    assert seconds > 0
    with pytest.raises(InputError, match="no such thing"):
        streamed.run_measured([sys.executable, "-S", "-c", "raise SystemExit('no such thing')"])


def test_alphas_are_compared_on_the_same_texts(params):
    both = programs.alpha_programs(TINY, params)
    shared, apart = both["alphas_shared"](), both["alphas_apart"]()
    assert len(shared) == len(apart) == len(programs.ALPHAS)
    for one, other in zip(shared, apart, strict=True):
        assert toys.relative(one.scores_BWR, other.scores_BWR) <= 1e-5


def test_a_blocks_activations_grow_with_the_rows_and_hold_no_weights():
    """Hand count of the least: the norms' inputs, three heads, the attention's weights of every
    place that is seen, its output, gate and up; a length that equals the width changes nothing."""
    odd = dataclasses.replace(TINY, length=TINY.config.d_model)
    twice = dataclasses.replace(odd, rows=2 * odd.rows)
    found = programs.block_activation_bytes(odd)
    assert programs.block_activation_bytes(twice) == 2 * found
    tokens, width, hidden = odd.rows * odd.length, odd.config.d_model, odd.config.d_ff
    least = 4 * tokens * (2 * width + 3 * width + width + 2 * hidden)
    least += 4 * odd.rows * odd.config.num_heads * odd.length**2
    assert least <= found <= 3 * least


def test_the_streamed_bench_measures_every_step_and_goes_on_after_a_kill(tmp_path):
    """A half-written copy and checkpoint of a killed run are in the way of nothing."""
    for left in ("copy", ".hf.partial"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "model.safetensors").write_text("cut off")
    code = (
        "import sys, json; from pathlib import Path\n"
        "from eap_jax.config import ModelConfig, RopeScaling\n"
        "from experiments.bench.programs import Preset, random_batch\n"
        "from experiments.bench.streamed import stream_once\n"
        f"print(json.dumps(stream_once(Path(sys.argv[1]), random_batch({TINY!r}))))"
    )
    figures = streamed.bench_streamed(TINY.config, tmp_path, [sys.executable, "-c", code])
    for name in ("hf", "orbax"):
        assert figures[f"{name}_finite"] == 1.0
        assert figures[f"{name}_stream_peak_bytes"] > 50e6
    assert figures["convert_speed_over_copy"] == pytest.approx(
        figures["copy_seconds"] / figures["convert_seconds"]
    )
    assert {path.name for path in tmp_path.iterdir()} == {"hf", "orbax"}


def test_a_checkpoint_with_fewer_words_than_the_batch_is_refused(tmp_path):
    smaller = dataclasses.replace(TINY.config, vocab_size=40)
    streamed.write_random_checkpoint(tmp_path / "hf", smaller)
    with pytest.raises(InputError, match="vocab_size: expected more than .* token 9., found 40"):
        streamed.stream_once(tmp_path / "hf", random_batch(TINY))


def test_the_mixed_workload_is_answered_alike_by_all_programs(torch):
    """Refilled rows, whole batches and transformers give the same tokens of the lengths imposed."""
    work = mixed_answers.workload(TINY.config.vocab_size)
    assert len(work.prompts) == 96
    assert 8 <= min(work.lengths) < max(work.lengths) == 400
    small = mixed_answers.Workload(
        prompts=[prompt[:20] for prompt in work.prompts[:7]], lengths=[3, 24, 9, 1, 14, 5, 20]
    )
    figures = mixed_answers.bench_answers(TINY, repeats=1, work=small, rows=3)
    assert figures["answer_tokens"] == 76
    assert figures["answers_as_batches"] == figures["answers_as_transformers"] == 1.0
