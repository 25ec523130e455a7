"""`experiments.run` agrees with the paper's program, survives kills and leaves no mess."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import toys

from experiments import grid
from experiments.grid import run_grid
from experiments.study import opened
from experiments.study.pairs import pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

CHECKPOINTS = toys.GOLDEN / "checkpoints"
RESPONSES = toys.GOLDEN / "responses" / "qwen" / "math" / "all_correct.jsonl"
ALPHAS = (0.1, 0.3)


@pytest.fixture(scope="module")
def run(processes):
    """`run(workdir, ...)`: the binary on the golden pair; a flag of None is left out."""

    def start(workdir, kill_when=None, **changes):
        flags = {
            "base_checkpoint": CHECKPOINTS / "toy_qwen_base",
            "rl_checkpoint": CHECKPOINTS / "toy_qwen_rl",
            "responses": RESPONSES, "dataset": "math", "alpha": "0.1,0.3", "pair": "toy",
            "workdir": workdir,
        } | changes  # fmt: skip
        argv = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        return processes.run("experiments.run", *argv, kill_when=kill_when)

    return start


@pytest.fixture(scope="module")
def unbroken(run, tmp_path_factory):
    """An unbroken run: how it ended, and its directory."""
    workdir = tmp_path_factory.mktemp("unbroken")
    done = run(workdir)
    assert done.code == 0, done
    return done, workdir / "toy"


def results(directory):
    """Bytes of every score file by its path in the run directory."""
    found = sorted(directory.rglob("results_*.npz"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def saved(workdir):
    """Every file of a run but its locks."""
    return {
        str(path.relative_to(workdir))
        for path in workdir.rglob("*")
        if path.is_file() and ".locks" not in path.parts
    }


def test_the_last_line_is_the_report_and_every_stage_was_told(unbroken):
    done, directory = unbroken
    assert done.stdout[-1] == f"report: {directory / 'report.html'}"
    assert (directory / "report.html").is_file()
    said = "\n".join(done.stdout)
    # Writers seen by q, k, v, the MLP of layers 0 to 2, and the logits.
    edges = sum(3 * (1 + 2 * layer) + 2 + 2 * layer for layer in range(3)) + 7
    for fact in (
        f"{edges} edges",
        "dtype: float32",
        "1 x cpu",
        "both right 24, equal prompts 21, usual length 16, similar length 15",
        "column-sum health base",
    ):
        assert fact in said
    assert any("100%" in line and "15/15" in line for line in done.stderr), "a progress bar"


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("side", toys.SIDES)
def test_score_files_agree_with_the_papers_program(unbroken, alpha, side):
    _, directory = unbroken
    path = directory / "math" / f"cut{alpha}" / f"results_toy_math_{side}_cut{alpha}.npz"
    with np.load(path) as arrays:
        assert set(arrays.files) == {"scores", "all_scores"}
        golden_nWR = toys.golden_scores("qwen", side, alpha)
        assert toys.relative(arrays["all_scores"], golden_nWR) <= 1e-5
        assert toys.relative(arrays["scores"], golden_nWR.mean(axis=0)) <= 1e-5


@pytest.mark.parametrize("alpha", ALPHAS)
def test_each_cell_says_what_was_measured_on_which_rows(unbroken, alpha):
    _, directory = unbroken
    cell = json.loads((directory / "math" / f"cut{alpha}" / "cell.json").read_text())
    metrics = json.loads((directory / "math" / f"cut{alpha}" / "metrics.json").read_text())
    rows = [json.loads(line) for line in RESPONSES.read_text().splitlines()]
    chosen = [row for row in rows if row["idx"] in cell["rows"]]
    expected = toys.golden_texts("qwen", "base", alpha)
    assert [tuple(row["base_prompt_tokens"]) for row in chosen] == [t.prompt for t in expected]
    assert cell["cut"] == metrics["cut"] == len(expected[0].answer)
    assert cell["numerics"] == "float32"
    for side in toys.SIDES:
        golden_nWR = toys.golden_scores("qwen", side, alpha).astype(np.float64)
        intensity = metrics["metrics"]["activation_intensity"][side]
        assert intensity == pytest.approx(np.abs(golden_nWR).mean(), rel=1e-5)
        assert metrics["sides"][side]["health"] <= 1e-4
        assert 0 < metrics["sides"][side]["loss"] < 10


def test_rows_are_kept_as_given_and_the_manifest_tells_how_the_results_came(unbroken):
    _, directory = unbroken
    assert (directory / "math" / "all_correct.jsonl").read_bytes() == RESPONSES.read_bytes()
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["cells"] == ["math/cut0.1", "math/cut0.3"]
    assert manifest["command"].startswith("python -m experiments.run --base_checkpoint=")
    assert manifest["packages"]["jax"] == jax.__version__
    assert manifest["responses"] == str(RESPONSES)
    assert manifest["numerics"] == "float32"
    hashes = manifest["checkpoint_sha256"]
    assert all(len(hashes[side]) == 64 for side in toys.SIDES)
    assert hashes["base"] != hashes["rl"]


def test_a_run_killed_in_the_middle_goes_on_and_ends_with_identical_arrays(run, unbroken, tmp_path):
    _, expected = unbroken
    directory = tmp_path / "toy"
    killed = run(tmp_path, kill_when=lambda: len(list(directory.rglob("results_*_base_*"))) == 2)
    assert killed.code == -9
    assert not (directory / "manifest.json").exists(), "the kill came too late"
    kept = {path: path.stat().st_mtime_ns for path in directory.rglob("results_*.npz")}
    assert kept
    done = run(tmp_path)
    assert done.code == 0, done
    assert results(directory) == results(expected)
    assert len(results(directory)) == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a finished file was rewritten"
    for name in ("math/cut0.1/cell.json", "math/cut0.3/metrics.json", "math/all_correct.jsonl"):
        assert (directory / name).read_bytes() == (expected / name).read_bytes()
    assert not [name for name in saved(tmp_path) if Path(name).name.startswith(".")], "litter"


def golden_study(workdir, **changes):
    """The unbroken run's settings, for runs inside this process."""
    names = [str(CHECKPOINTS / f"toy_qwen_{side}") for side in toys.SIDES]
    fields = {
        "pair": pair_of(*names, "toy"), "workdir": workdir, "datasets": ("math",),
        "rules": tuple(Rule(alpha=alpha) for alpha in ALPHAS), "responses": RESPONSES,
    } | changes  # fmt: skip
    return Study(**fields)


def test_a_finished_run_computes_nothing_again(unbroken, tmp_path, monkeypatch):
    _, directory = unbroken
    shutil.copytree(directory, tmp_path / "toy")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results_*.npz")}
    reports = []
    monkeypatch.setattr(
        opened, "load_checkpoint", lambda *_, **__: pytest.fail("weights were read")
    )
    monkeypatch.setattr(grid.report, "write_report", lambda path: reports.append(path) or path)
    outcome = run_grid([golden_study(tmp_path)], lambda _: None)
    assert outcome.failures == []
    assert outcome.cells == ["toy, math, alpha 0.1", "toy, math, alpha 0.3"]
    assert reports == [tmp_path / "toy"], "the report is drawn again from the saved files"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert results(tmp_path / "toy") == results(directory)


def test_a_kill_between_two_alphas_of_one_pass_ends_with_identical_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(grid.report, "write_report", lambda path: path)
    run_grid([golden_study(tmp_path)], lambda _: None)
    expected = results(tmp_path)
    (tmp_path / "toy" / "math" / "cut0.3" / "results_toy_math_base_cut0.3.npz").unlink()
    run_grid([golden_study(tmp_path)], lambda _: None)
    assert results(tmp_path) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"numerics": "bfloat16"}, "numerics: expected 'bfloat16', found 'float32'"),
        ({"pair": "swapped"}, "toy_qwen_rl: the weights: expected"),
        ({"responses": "other"}, "all_correct.jsonl: holds other responses"),
    ],
)
def test_other_settings_never_touch_finished_results(unbroken, tmp_path, changes, said):
    _, directory = unbroken
    shutil.copytree(directory, tmp_path / "toy")
    if "pair" in changes:
        names = [str(CHECKPOINTS / f"toy_qwen_{side}") for side in ("rl", "base")]
        changes = {"pair": pair_of(*names, "toy")}
    if "responses" in changes:
        other = tmp_path / "other.jsonl"
        other.write_text("".join(RESPONSES.read_text().splitlines(keepends=True)[:-1]))
        changes = {"responses": other}
    before = jax.config.jax_default_matmul_precision
    outcome = run_grid([golden_study(tmp_path, **changes)], lambda _: None)
    jax.config.update("jax_default_matmul_precision", before)
    assert outcome.reports == []
    assert outcome.failures
    assert all(said in message for _, message in outcome.failures), outcome.failures
    assert all("--workdir" in message for _, message in outcome.failures)
    assert results(tmp_path / "toy") == results(directory)
    assert saved(tmp_path / "toy") == saved(directory)


def edited(path, line, change):
    """The golden responses with one line changed."""
    lines = RESPONSES.read_text().splitlines(keepends=True)
    lines[line - 1] = change(lines[line - 1])
    path.write_text("".join(lines))
    return path


def row_with(**fields):
    return lambda line: json.dumps(json.loads(line) | fields) + "\n"


def model_with(folder, name="toy_qwen_rl", **fields):
    """A copy of a golden checkpoint whose config.json says something else."""
    shutil.copytree(CHECKPOINTS / name, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    return folder


def test_mistakes_end_in_one_line_that_names_the_place_and_leave_nothing(run, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    broken = edited(files / "broken.jsonl", 7, lambda line: line[:50] + "\n")
    outside = edited(files / "outside.jsonl", 2, row_with(rl_prompt_tokens=[1, 42, 99]))
    empty = edited(files / "empty.jsonl", 3, row_with(base_answer_tokens=[]))
    for row in (outside, empty):  # the ranges repeat the lengths
        row.write_text(row.read_text().replace("_answer_tokens_range", "_range"))
    larger = model_with(files / "larger", vocab_size=70)
    deeper = CHECKPOINTS / "toy_mistral_rl"
    cases = [
        (1, {"responses": broken}, f"{broken}: line 7: expected a JSON object"),
        (1, {"responses": outside}, f"{outside}: idx 1: rl_prompt_tokens: expected ids below"),
        (1, {"responses": empty}, f"{empty}: line 3: base_answer_tokens: expected at least one"),
        (1, {"responses": files / "none.jsonl"}, "none.jsonl: no such responses file"),
        (1, {"delta": 0, "beta": 1, "gamma": 1}, "no row is left"),
        (1, {"rl_checkpoint": deeper}, "toy_mistral_rl: num_layers: expected 3"),
        (
            1,
            {"rl_checkpoint": larger},
            "tensor model.embed_tokens.weight: expected shape (70, 36), found (61, 36)",
        ),
        (1, {"base_checkpoint": files / "gone"}, f"{files / 'gone'}: no such directory"),
        (1, {"rl_checkpoint": None}, "--base_checkpoint and --rl_checkpoint go together"),
        (
            1,
            {"base_checkpoint": None, "rl_checkpoint": None, "pair": "tiny_grop"},
            "found 'tiny_grop'",
        ),
        (1, {"pair": "a/b"}, "pair: expected a plain name, found 'a/b'"),
        (1, {"alpha": 0}, "alpha: expected a number in (0, 1], found 0"),
        (1, {"alpha": "0.3,much"}, "much"),
        (1, {"alpha": ""}, "alpha: expected at least one number, found none"),
        (1, {"delta": "inf"}, "delta: expected a number from 0 on, found inf"),
        (1, {"delta": "nan"}, "delta: expected a number from 0 on, found nan"),
        (1, {"memory": "stream", "stream_gib": "inf"}, "stream_gib: expected a number, found inf"),
        (
            1,
            {"estimator": "branch", "numerics": "published"},
            "estimator: branch is not what the published program computes; use --numerics=float32",
        ),
        (
            1,
            {"memory": "stream", "stream_gib": 1e300},
            "stream_gib: expected a number, found 1e+300",
        ),
        (1, {"mesh": "data:²"}, "mesh: expected data:N,model:M"),
        (1, {"mesh": "data:2"}, "expected 2 devices, found 1 x cpu; --simulated_devices=2"),
        (1, {"mesh": "data:4096", "simulated_devices": 64}, "expected 4096 devices, found 64"),
        (2, {"simulated_devices": 65}, "simulated_devices"),
        (1, {"card": 0, "mesh": "data:2"}, "card: a process with one card has no mesh"),
        (
            1,
            {"coordinator": "here", "num_processes": 1, "process_id": 0},
            "coordinator: expected host:port or auto, found 'here'",
        ),
        (
            1,
            {"memory": "stream", "coordinator": "here:1"},
            "memory: stream runs in one process, found the coordinator here:1",
        ),
        (1, {"dataset": "../math"}, "dataset: expected a plain name, found '../math'"),
        (1, {"dataset": ""}, "dataset: one file belongs to one dataset, found []"),
        (1, {"prompt": "Solve it."}, "prompt: expected chat or a text with {question}"),
        (1, {"mesh": "rows:2"}, "mesh: expected data:N,model:M"),
        (2, {"alpah": 0.3}, "Unknown command line flag 'alpah'"),
        (2, {"numerics": "float8"}, "numerics"),
    ]
    for number, (code, changes, said) in enumerate(cases):
        workdir = tmp_path / str(number)
        done = run(workdir, **({"alpha": 0.3} | changes))
        assert done.code == code, (changes, done)
        assert said in done.error, (changes, done)
        assert not any("report:" in line for line in done.stdout)
        # The rows of a sound file may be kept, whole, with the models' names; nothing else is left.
        found, rows = saved(workdir), workdir / "toy/math/all_correct.jsonl"
        if found:
            assert found == {"toy/math/all_correct.jsonl", "toy/math/checkpoint_files.json"}, (
                changes
            )
            assert rows.read_bytes() == RESPONSES.read_bytes()


def test_a_model_with_a_nan_fails_its_side_alone_and_no_report_is_made(run, tmp_path):
    from safetensors.numpy import load_file, save_file

    model = tmp_path / "nan"
    shutil.copytree(CHECKPOINTS / "toy_qwen_rl", model)
    tensors = load_file(model / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].copy()
    tensors[name][2, 3] = np.nan
    save_file(tensors, model / "model.safetensors")
    done = run(tmp_path / "out", rl_checkpoint=model, alpha=0.3)
    assert done.code == 1
    (error,) = [line for line in done.stderr if line.startswith("error: ")]
    assert name in error
    assert str(model) in error
    assert not any("Traceback" in line for line in done.stderr)
    names = {Path(name).name for name in saved(tmp_path / "out")}
    assert names == {
        "all_correct.jsonl", "cell.json", "losses_base.json", "results_toy_math_base_cut0.3.npz",
        "fidelity_plan.json", "effects_base.npz", "logit_difference_base.npz", "base_on_rl_text.npz",
        "checkpoint_files.json",
    }  # fmt: skip
