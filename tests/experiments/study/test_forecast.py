"""`--plan`: what a study needs, before a weight is loaded or a question asked."""

import dataclasses
import json
import types
from pathlib import Path

import pytest

from eap_jax.decoding import ladder
from experiments import study_flags
from experiments.bench.gpu_compile import study_of
from experiments.study.cards import card_of
from experiments.study.forecast import Shape, forecast
from experiments.study.pairs import PAIRS, SHAPES
from experiments.study.plan import streamed_bytes
from experiments.study.printed_plan import rungs
from experiments.study.public_chains import PUBLIC_CHAINS
from experiments.study.shortages import shortages

README = Path(__file__).parents[3] / "README.md"
FLAGS = ("--plan", "--pair=deepseek_math", "--device=h100")


def test_the_main_job_fits_two_cards_and_nothing_is_downloaded(processes, tmp_path):
    """No network: the shape is the registered one. Answers in bfloat16, scores in float32."""
    done = processes.run(
        "experiments.run", *FLAGS, "--mesh=data:2", f"--workdir={tmp_path / 'runs'}"
    )
    assert done.code == 0
    assert done.stdout[-1] == "plan: fits"
    said = "\n".join(done.stdout)
    for fact in (
        "2 x NVIDIA H100 80GB HBM3, mesh data:2; arrays may take 63.7 GB of each",
        "answers in bfloat16, scores in float32",
        "write answers",
        "score the longest",
        "cut edges of texts",
        "circuits of the longest",
        "programs to compile: ",
    ):
        assert fact in said
    (weights,) = {line.split()[4] for line in done.stdout if "write answers" in line}
    assert weights == "13.82"
    assert not (tmp_path / "runs").exists()


def test_what_does_not_fit_says_what_would(processes):
    done = processes.run("experiments.run", "--plan", "--pair=deepseek_math", "--device=24")
    assert done.code == 1
    assert done.stdout[-1].startswith("plan: does not fit: base: scores need ")
    assert "--memory=stream or --device=h100 would fit" in done.stdout[-1]
    done = processes.run(
        "experiments.run", "--plan", "--pair=distilled_qwen", "--device=20", "--memory=stream"
    )
    assert done.code == 1
    assert "answers need" in done.stdout[-1]
    assert "scores need" not in done.stdout[-1]
    assert "--mesh=model:2" not in done.stdout[-1], "streaming runs on one device"


@pytest.mark.parametrize("dtype", ["bfloat16", None])
def test_a_config_alone_is_enough(processes, tmp_path, dtype):
    """A folder without weights: stored precision from config.json, float32 where it is silent."""
    config = {
        "architectures": ["LlamaForCausalLM"], "vocab_size": 1000, "num_hidden_layers": 2,
        "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "torch_dtype": dtype,
        "dtype": None,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder = f"checkpoint={tmp_path}"
    done = processes.run("experiments.run", "--plan", f"--base_{folder}", f"--rl_{folder}")
    assert done.code == 0, done.stderr
    assert f"answers in {dtype or 'float32'}, scores in float32" in "\n".join(done.stdout)
    assert "1 x cpu" in "\n".join(done.stdout)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--device=b200",), "error: device: expected h100, a100, h200, a800 or a number of GiB"),
        (("--noplan", "--device=h100"), "error: device: only --plan is made for"),
        (("--mesh=data:x", "--device=h100"), "error: flags: mesh: expected data:N,model:M"),
    ],
)
def test_a_device_that_is_not_known_is_one_line(processes, flags, message):
    done = processes.run("experiments.run", "--plan", "--pair=deepseek_math", *flags)
    assert done.code == 1
    assert done.error.startswith(message)


def test_rungs_are_the_ladders_and_end_at_the_last():
    found = rungs(1, 4352)
    assert found[-1] == 4352
    assert all(ladder(size) == size for size in found[:-1])
    assert found == sorted(set(found))
    every = {ladder(slots) for slots in range(1, 4097)}
    assert set(found) == every | {4352}


@pytest.mark.parametrize(("given", "kept"), [(None, 6 * 2**30), (1.5, 3 * 2**29), (0.0, 0)])
def test_a_stream_for_a_card_asks_for_no_device(monkeypatch, given, kept):
    """Where JAX_PLATFORMS names what is not there, asking would end the plan in a traceback."""
    chosen = types.SimpleNamespace(FLAGS=types.SimpleNamespace(memory="stream", stream_gib=given))
    monkeypatch.setattr(study_flags, "flags", chosen)
    monkeypatch.setattr(study_flags.jax, "local_devices", None)
    assert study_flags._stream_bytes(card_of("24")) == kept


def test_streaming_is_advised_as_it_would_run():
    """With a third of 3.9 GB kept between layers; 2 GiB would not fit."""
    study = dataclasses.replace(study_of("deepseek_math", "", "float32"), batch_tokens=1024)
    shape = Shape(config=SHAPES["deepseek_math"], dtype="bfloat16", origin="")
    usable = int(3.9e9)
    _, scores, _ = shortages(study, shape, forecast(study, shape, usable), usable)
    streaming = dataclasses.replace(study, stream_bytes=streamed_bytes(usable))
    assert forecast(streaming, shape, usable).usual.scores.fits
    assert "--memory=stream" in scores
    larger = dataclasses.replace(study, stream_bytes=2**31)
    assert not forecast(larger, shape, usable).usual.scores.fits


def test_a_streamed_plan_counts_the_longest_texts():
    """distilled_qwen's longest text has 256 + 0.3 x 32,768 places, its 57 writes take 8.2 GB."""
    study = dataclasses.replace(study_of("distilled_qwen", "", "float32"), stream_bytes=2**31)
    shape = Shape(config=SHAPES["distilled_qwen"], dtype="bfloat16", origin="")
    found = forecast(study, shape, 13 * 10**9)
    assert found.usual.scores.fits
    assert found.longest.scores.needs.writes == 57 * 3584 * (256 + 9830) * 4
    (said,) = (
        text for text in shortages(study, shape, found, 13 * 10**9) if text.startswith("scores")
    )
    assert said.startswith("scores of the longest texts need 17.7 GB of 13.0; ")
    assert "--mesh" not in said, "streaming runs on one device"


def test_cuts_decide_the_verdict_where_they_need_the_most():
    """distilled_qwen's longest text, in GB: weights 30.5, 57 writes 8.2, 29 streams 4.2, and for the
    layer at work 2,522 x 10,086 logits of 28 heads and their softmax 5.7: 48.6 and some more. To score
    it, computing twice, needs the writes only."""
    study = study_of("distilled_qwen", "", "float32")
    shape = Shape(config=SHAPES["distilled_qwen"], dtype="bfloat16", origin="")
    usable = 48 * 10**9
    found = forecast(study, shape, usable)
    assert (found.longest.scores.fits, found.longest.cuts.fits) == (True, False)
    assert found.longest.circuits.fits
    said = list(shortages(study, shape, found, usable))
    (cuts,) = (text for text in said if not text.startswith("answers"))
    assert cuts.startswith("exact cuts and circuits of the longest texts need ")
    assert 48.6 < float(cuts.split(" need ")[1].split()[0]) < 50.5
    assert "--fidelity=off" in cuts
    off = dataclasses.replace(study, fidelity="off")
    assert forecast(off, shape, usable).longest.cuts is None
    assert not any(
        "cuts" in text for text in shortages(off, shape, forecast(off, shape, usable), usable)
    )


def readme_line(pair: str, mesh: str) -> str:
    """A line of README's table: rows x tokens and GB a card, as the plan has them on an H100."""
    shape = Shape(config=SHAPES[pair], dtype="bfloat16", origin="")
    found = forecast(study_of(pair, mesh, "float32"), shape, card_of("h100").usable_bytes)
    answers, *scores = found.answers, found.usual.scores, found.longest.scores
    parts = [
        f"{answers.entering} x {answers.width}: {answers.prefill.total / 1e9:.1f}",
        f"{answers.rows} x {answers.slots:,}: {answers.decode.total / 1e9:.1f}",
        f"{answers.move.total / 1e9:.1f}",
    ]
    parts += [
        f"{one.batch.rows} x {one.batch.length:,}{', twice' if one.batch.remat else ''}: "
        f"{one.needs.total / 1e9:.1f}"
        for one in scores
    ]
    parts.append("yes" if answers.fits and all(one.fits for one in scores) else "no")
    cards = "two, data:2" if mesh else "one"
    weights = [needs.weights / 1e9 for needs in (answers.decode, found.usual.scores.needs)]
    parts = [name_of(pair), cards, f"{weights[0]:.1f}, {weights[1]:.1f}", *parts]
    return f"| {' | '.join(parts)} |"


def name_of(pair: str) -> str:
    """A pair, or `tulu3_*` where all pairs of a public chain have one shape and one limit."""
    chains = [
        chain for chain in PUBLIC_CHAINS.values() if PAIRS[pair].base in chain.stages.values()
    ]
    return f"{chains[0].key}_*" if chains and len(chains[0].stages) > 2 else pair


SHOWN = list({name_of(pair): pair for pair in SHAPES}.values())


@pytest.mark.parametrize(
    ("pair", "mesh"), [*((pair, "") for pair in SHOWN), ("deepseek_math", "data:2")]
)
def test_readmes_table_is_the_plan(pair, mesh):
    _, _, rest = README.read_text().partition("<!-- memory of the registered pairs")
    table = [line for line in rest.split("\n\n")[0].splitlines() if line.startswith("| ")]
    assert readme_line(pair, mesh) in table
    assert len(table) == 2 + len(SHOWN) + 1, "its head, its rule, and a line for each"
