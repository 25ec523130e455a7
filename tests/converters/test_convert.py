"""The conversion binary: the same bits there and back, whole or nothing, one line for bad input."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tracemalloc
import types
from pathlib import Path

import hf_folder
import ml_dtypes
import numpy as np
import pytest
import toys
from binaries import REPOSITORY

from converters import checkpoint, convert, staging
from converters.binary import guarded
from converters.errors import CheckpointError

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"]
TIED = toys.ZOO["window 7, tied head"]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
INDEX = "model.safetensors.index.json"


def write_source(folder: Path, toy: toys.Toy = TOY, **options) -> dict[str, np.ndarray]:
    """A checkpoint with tokenizer files; returns its tensors."""
    state = hf_folder.write_toy(folder, toy, toys.random_params(toy.config), **options)
    for name in COMPANIONS:
        (folder / name).write_text(json.dumps({"this is": name}))
    return state


def tree_of(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder, files with their bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def tensors_of(folder: Path) -> dict:
    """Dtype, shape and bytes of every tensor of a folder's safetensors files."""
    return {
        name: entry
        for file in folder.glob("*.safetensors")
        for name, entry in hf_folder.read_raw(file).items()
    }


def run(*arguments: str | Path) -> subprocess.CompletedProcess:
    """The binary in a process of its own."""
    command = [sys.executable, "-m", "converters.convert", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)


def forked(processes, *arguments: str) -> subprocess.CompletedProcess:
    """The same from the server, which has imported most of it."""
    done = processes.run("converters.convert", *arguments)
    streams = ("".join(f"{line}\n" for line in lines) for lines in (done.stdout, done.stderr))
    return subprocess.CompletedProcess([], done.code, *streams)


@pytest.mark.parametrize(
    ("toy", "dtype", "shards"),
    [
        *((TOY, dtype, shards) for dtype in DTYPES for shards in (1, 3)),
        (TIED, "float32", 1),
        (TIED, "bfloat16", 3),
    ],
)
def test_there_and_back_gives_the_same_bits(toy, dtype, shards, tmp_path):
    write_source(tmp_path / "hf", toy, dtype=DTYPES[dtype], shards=shards, torch_dtype=dtype)
    convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
    convert.to_hf(tmp_path / "orbax", tmp_path / "back")
    expected = tensors_of(tmp_path / "hf")
    assert len(expected) == len(toys.hf_state(toy.config, toys.random_params(toy.config)))
    assert tensors_of(tmp_path / "back") == expected
    names = {"config.json", *COMPANIONS}
    assert {p.name for p in (tmp_path / "orbax").iterdir()} == names | {"ends", "blocks"}
    assert {p.name for p in (tmp_path / "back").iterdir()} == names | {"model.safetensors"}
    for name in names:
        content = (tmp_path / "hf" / name).read_bytes()
        assert (tmp_path / "orbax" / name).read_bytes() == content
        assert (tmp_path / "back" / name).read_bytes() == content


def test_tensors_of_several_dtypes_keep_their_own(tmp_path):
    state = write_source(tmp_path / "hf")
    kinds = list(DTYPES.values())
    mixed = {n: t.astype(kinds[k % 3]) for k, (n, t) in enumerate(sorted(state.items()))}
    hf_folder.write_weights(tmp_path / "hf", mixed)
    convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
    convert.to_hf(tmp_path / "orbax", tmp_path / "back")
    found = tensors_of(tmp_path / "back")
    assert found == tensors_of(tmp_path / "hf")
    assert len({dtype for dtype, _, _ in found.values()}) == 3


def test_bits_that_compare_equal_stay_different(tmp_path):
    """Minus zero and the smallest subnormal numbers are kept as they are."""
    state = write_source(tmp_path / "hf")
    state["model.norm.weight"][:4] = [-0.0, 0.0, 1e-45, -1e-45]
    hf_folder.write_weights(tmp_path / "hf", state)
    convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
    convert.to_hf(tmp_path / "orbax", tmp_path / "back")
    assert tensors_of(tmp_path / "back") == tensors_of(tmp_path / "hf")


def test_pickle_weights_convert_to_the_bits_of_safetensors(tmp_path, torch):
    state = write_source(tmp_path / "safe", dtype=np.float16)
    shutil.copytree(tmp_path / "safe", tmp_path / "pickle")
    (tmp_path / "pickle" / "model.safetensors").unlink()
    tensors = {name: torch.from_numpy(tensor.copy()) for name, tensor in state.items()}
    torch.save(tensors, tmp_path / "pickle" / "pytorch_model.bin")
    convert.to_orbax(tmp_path / "pickle", tmp_path / "orbax")
    convert.to_hf(tmp_path / "orbax", tmp_path / "back")
    assert tensors_of(tmp_path / "back") == tensors_of(tmp_path / "safe")


def test_a_tied_copy_and_old_buffers_are_left_behind(tmp_path):
    state = write_source(tmp_path / "hf", TIED)
    more = {
        "lm_head.weight": state["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32),
    }
    expected = tensors_of(tmp_path / "hf")
    hf_folder.write_weights(tmp_path / "hf", state | more)
    convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
    convert.to_hf(tmp_path / "orbax", tmp_path / "back")
    assert tensors_of(tmp_path / "back") == expected


def test_one_layer_is_in_memory_at_a_time(tmp_path):
    toy = toys.toy_of("llama", num_layers=24, d_ff=2048)
    state = write_source(tmp_path / "hf", toy)
    total = sum(tensor.nbytes for tensor in state.values())
    layer = total / toy.config.num_layers
    del state
    tracemalloc.start()
    try:
        convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert layer < peak < 8 * layer


def test_a_conversion_that_fails_at_the_last_layer_leaves_nothing(tmp_path):
    state = write_source(tmp_path / "hf")
    state["model.layers.1.mlp.down_proj.weight"][-1, -1] = np.inf
    hf_folder.write_weights(tmp_path / "hf", state)
    before = tree_of(tmp_path)
    with pytest.raises(CheckpointError, match="expected finite values"):
        convert.to_orbax(tmp_path / "hf", tmp_path / "new" / "orbax")
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left on device")])
def test_a_conversion_that_is_interrupted_leaves_nothing(error, tmp_path, monkeypatch):
    write_source(tmp_path / "hf")
    convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
    before = tree_of(tmp_path)
    save_tree, load_block, seen = checkpoint.save_tree, checkpoint.load_block, []

    def save(path, tree):
        seen.append(path)
        if len(seen) == 2:
            raise error
        save_tree(path, tree)

    def load(directory, config, layer, shardings=None):
        if layer == 1:
            raise error
        return load_block(directory, config, layer, shardings)

    monkeypatch.setattr(checkpoint, "save_tree", save)
    monkeypatch.setattr(checkpoint, "load_block", load)
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind):
        convert.to_orbax(tmp_path / "hf", tmp_path / "again")
    assert len(seen) == 2
    with pytest.raises(kind):
        convert.to_hf(tmp_path / "orbax", tmp_path / "back")
    assert tree_of(tmp_path) == before


LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))  # a write fails, as at a full quota
runpy.run_module("converters.convert", run_name="__main__")
"""


@pytest.mark.parametrize("source", ["hf", "orbax"])
def test_a_write_that_fails_is_an_error_and_leaves_nothing(source, tmp_path):
    write_source(tmp_path / "hf")
    convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
    before = tree_of(tmp_path)
    argv = [f"--checkpoint={tmp_path / source}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *argv, *(["--to_hf"] * (source == "orbax"))],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot be written" in line
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize("source", ["hf", "orbax"])
def test_a_disk_without_room_is_told_before_anything_is_written(source, tmp_path, monkeypatch):
    write_source(tmp_path / "hf")
    convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
    before = tree_of(tmp_path)
    weights = sum(len(entry[2]) for entry in tensors_of(tmp_path / "hf").values())
    usage = types.SimpleNamespace(total=10**9, used=0, free=weights - 1)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: usage)
    call = convert.to_orbax if source == "hf" else convert.to_hf
    with pytest.raises(CheckpointError, match=rf"room on the disk, found {weights - 1:,}$"):
        call(tmp_path / source, tmp_path / "new" / "out")
    assert tree_of(tmp_path) == before
    if source == "hf":
        usage.free = weights
        call(tmp_path / source, tmp_path / "new" / "out")


KILLED = """
import os, signal, sys
from pathlib import Path
from converters import checkpoint, convert
save_tree = checkpoint.save_tree
def save(path, tree):
    save_tree(path, tree)
    if path.name == "000":
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_tree = save
convert.to_orbax(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_conversion_has_no_output_and_can_be_started_again(tmp_path):
    write_source(tmp_path / "hf")
    command = [sys.executable, "-c", KILLED, tmp_path / "hf", tmp_path / "orbax"]
    killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} == {"hf", ".orbax.partial"}
    convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
    assert {path.name for path in tmp_path.iterdir()} == {"hf", "orbax"}, "the remains are gone"
    assert not list((tmp_path / "orbax").rglob(".lock"))
    convert.to_hf(tmp_path / "orbax", tmp_path / "back")
    assert tensors_of(tmp_path / "back") == tensors_of(tmp_path / "hf")


def test_two_conversions_to_one_output_do_not_mix(tmp_path):
    write_source(tmp_path / "hf")
    with staging.staged(tmp_path / "orbax") as first:
        (first / "mine").write_text("kept")
        with pytest.raises(CheckpointError, match=r"orbax: another program is writing it$"):
            convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
        assert (first / "mine").read_text() == "kept"
    assert [path.name for path in (tmp_path / "orbax").iterdir()] == ["mine"]


def test_a_second_program_at_the_moment_of_renaming_finds_it_taken(tmp_path, monkeypatch):
    """Just before and just after: the finished folder stays as it was written."""
    rename, refused = Path.rename, []

    def watched(self, target):
        for moment in ("before", "after"):
            if moment == "after":
                rename(self, target)
            with pytest.raises(CheckpointError) as error, staging.staged(target):
                pytest.fail("two programs wrote one output")
            refused.append(str(error.value))

    with staging.staged(tmp_path / "out") as folder:
        (folder / "mine").write_text("kept")
        monkeypatch.setattr(Path, "rename", watched)
    assert refused[0].endswith("out: another program is writing it")
    assert refused[1].endswith("out: exists already; choose another output")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("there", ["folder", "empty folder", "file"])
def test_an_output_that_exists_is_refused_and_not_touched(there, back, tmp_path):
    write_source(tmp_path / "hf")
    convert.to_orbax(tmp_path / "hf", tmp_path / "orbax")
    output = tmp_path / "out"
    if there == "file":
        output.write_text("kept")
    else:
        output.mkdir()
    if there == "folder":
        (output / "config.json").write_text("kept")
    before = tree_of(tmp_path)
    source, call = ("orbax", convert.to_hf) if back else ("hf", convert.to_orbax)
    with pytest.raises(CheckpointError) as error:
        call(tmp_path / source, output)
    assert str(error.value) == f"{output}: exists already; choose another output"
    assert tree_of(tmp_path) == before


def test_the_binary_converts_there_and_back(tmp_path):
    write_source(tmp_path / "hf", dtype=ml_dtypes.bfloat16, shards=2)
    there, back = tmp_path / "parent" / "orbax", tmp_path / "back"
    done = run(f"--checkpoint={tmp_path / 'hf'}", f"--output={there}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"converted: {there}"
    done = run(f"--checkpoint={there}", f"--output={back}", "--to_hf")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"converted: {back}"
    assert tensors_of(back) == tensors_of(tmp_path / "hf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "hf", "parent"]
    assert [p.name for p in (tmp_path / "parent").iterdir()] == ["orbax"]


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"vocab_size": 61,')


def change_config(**changes):
    def change(folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(data | changes))

    return change


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def sharded(folder: Path) -> list[Path]:
    state = toys.hf_state(TOY.config, toys.random_params(TOY.config))
    (folder / "model.safetensors").unlink()
    hf_folder.write_weights(folder, state, shards=2)
    return sorted(folder.glob("*.safetensors"))


def missing_shard(folder: Path) -> None:
    sharded(folder)[1].unlink()


def foreign_shard(folder: Path) -> None:
    first, _ = sharded(folder)
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    shutil.copyfile(first, folder.parent / "outside.safetensors")
    outside = {n: "../outside.safetensors" for n, file in weight_map.items() if file == first.name}
    hf_folder.write_index(folder, weight_map | outside)


def doubled(folder: Path) -> None:
    first, second = sharded(folder)
    shutil.copyfile(first, second)


def change_tensor(name: str, change):
    def write(folder: Path) -> None:
        state = toys.hf_state(TOY.config, toys.random_params(TOY.config))
        tensor = change(state[name])
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
        hf_folder.write_weights(folder, state)

    return write


def nan_at_the_end(tensor: np.ndarray) -> np.ndarray:
    tensor = tensor.copy()
    tensor.flat[-1] = np.nan
    return tensor


def unexpected(folder: Path) -> None:
    state = toys.hf_state(TOY.config, toys.random_params(TOY.config))
    hf_folder.write_weights(folder, state | {"odd.weight": np.ones(2, np.float32)})


def converted_already(folder: Path) -> None:
    (folder / "ends").mkdir()


def pickle_that_runs_code(folder: Path) -> None:
    pytest.importorskip("torch")  # without it no pickle is opened at all
    no_weights(folder)
    content = {"a": Runs(folder.parent / "it ran")}
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content, protocol=2))


class Runs:
    """Unpickling it would make a folder."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


DOWN = "model.layers.1.mlp.down_proj.weight"
BAD = {
    "no folder": (no_folder, ["{source}: no such checkpoint directory"]),
    "no config": (no_config, ["{source}/config.json: no such file"]),
    "broken config": (broken_config, ["{source}/config.json: expected JSON", "line 1"]),
    "unknown key": (change_config(rope_colour="red"), ["config.json", "rope_colour", "red"]),
    "unsupported architecture": (
        change_config(architectures=["GPT2LMHeadModel"]),
        ["config.json: architectures: expected one of LlamaForCausalLM", "'GPT2LMHeadModel'"],
    ),
    "unsupported rope": (
        change_config(rope_scaling={"rope_type": "ntk", "factor": 2.0}),
        ["config.json: rope_scaling: expected rope type", "'ntk'"],
    ),
    "contradicting rope": (
        change_config(rope_scaling={"rope_type": "linear", "type": "llama3", "factor": 2.0}),
        ["config.json: rope_scaling", "'linear'", "'llama3'"],
    ),
    "unsupported activation": (change_config(hidden_act="relu"), ["hidden_act", "'relu'"]),
    "no weights": (no_weights, ["{source}: expected model.safetensors", "found none"]),
    "truncated": (truncated, ["{source}/model.safetensors: not a whole safetensors file"]),
    "missing shard": (missing_shard, ["{source}/" + INDEX, "00002-of-00002", "missing"]),
    "shard outside": (foreign_shard, ["{source}/" + INDEX, "'../outside.safetensors'"]),
    "tensor in two shards": (doubled, ["{source}/model-00002-of-00002", "is also in model-00001"]),
    "missing tensor": (
        change_tensor(DOWN, lambda tensor: None),
        ["{source}: 1 missing tensor: " + DOWN],
    ),
    "unexpected tensor": (unexpected, ["{source}: 1 unexpected tensor: odd.weight"]),
    "wrong shape": (
        change_tensor(DOWN, lambda tensor: tensor.T),
        ["{source}/model.safetensors: tensor " + DOWN, "shape (36, 44), found (44, 36)"],
    ),
    "wrong dtype": (
        change_tensor(DOWN, lambda tensor: tensor.astype(np.float64)),
        ["{source}/model.safetensors: tensor " + DOWN, "dtype F32, F16, BF16, found F64"],
    ),
    "NaN": (
        change_tensor(DOWN, nan_at_the_end),
        ["{source}/model.safetensors: tensor " + DOWN, "finite values, found nan at (35, 43)"],
    ),
    "converted already": (converted_already, ["{source}: is a converted checkpoint already"]),
    "pickle that runs code": (
        pickle_that_runs_code,
        ["{source}/pytorch_model.bin: not a loadable weights file: ", "mkdir"],
    ),
}  # fmt: skip


def run_here(monkeypatch, capsys, *, to_hf=False, **flags) -> subprocess.CompletedProcess:
    """The binary's main in this process: the same streams and exit code, a second faster."""
    monkeypatch.setattr(
        convert.flags, "FLAGS", types.SimpleNamespace(**{"base": None, "to_hf": to_hf} | flags)
    )
    code = guarded(convert.main)([])
    streams = capsys.readouterr()
    return subprocess.CompletedProcess([], code, streams.out, streams.err)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_ends_in_one_line_and_writes_nothing(
    case, tmp_path, monkeypatch, capsys, processes
):
    spoil, words = BAD[case]
    source, output = tmp_path / "hf", tmp_path / "new" / "orbax"
    write_source(source)
    spoil(source)
    before = tree_of(tmp_path)
    runs = [run_here(monkeypatch, capsys, checkpoint=str(source), output=str(output))]
    paths = (f"--checkpoint={source}", f"--output={output}")
    if case in ("broken config", "truncated", "NaN"):
        runs.append(forked(processes, *paths))
    if case == "pickle that runs code":  # torch reads it, which the server does not find
        runs.append(run(*paths))
    for done in runs:
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {source}")
        assert [word for word in words if word.format(source=source) not in line] == []
        assert tree_of(tmp_path) == before


@pytest.mark.parametrize("case", ["HF folder", "layer missing", "array cut", "output exists"])
def test_a_bad_way_back_ends_in_one_line_and_writes_nothing(case, tmp_path, monkeypatch, capsys):
    source, output = tmp_path / "orbax", tmp_path / "back"
    write_source(tmp_path / "hf")
    if case == "HF folder":
        source = tmp_path / "hf"
    else:
        convert.to_orbax(tmp_path / "hf", source)
    if case == "layer missing":
        shutil.rmtree(source / "blocks" / "001")
    elif case == "array cut":
        files = [path for path in (source / "ends" / "embed").rglob("*") if path.is_file()]
        large = max(files, key=lambda path: path.stat().st_size)
        large.write_bytes(large.read_bytes()[:100])
    elif case == "output exists":
        output.mkdir()
    words = {
        "HF folder": f"error: {source}: expected a converted (Orbax) checkpoint, found no ends/",
        "layer missing": f"error: {source}/blocks: expected 2 layers as in config.json, missing",
        "array cut": f"error: {source}/ends/embed: not a readable Orbax checkpoint: ",
        "output exists": f"error: {output}: exists already",
    }
    before = tree_of(tmp_path)
    if case == "array cut":
        done = run(f"--checkpoint={source}", f"--output={output}", "--to_hf")
    else:
        paths = {"checkpoint": str(source), "output": str(output)}
        done = run_here(monkeypatch, capsys, to_hf=True, **paths)
    assert done.returncode == 1
    assert done.stdout == ""
    # Where arrays are cut, Orbax may add what its other reads met while they were abandoned.
    lines = done.stderr.splitlines()[: 1 if case == "array cut" else None]
    assert len(lines) == 1
    assert lines[0].startswith(words[case])
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--checkpoint", "--output"]),
        (["--checkpoint={hf}", "--output={out}", "--chekpoint=a"], ["'chekpoint'"]),
        (["--checkpoint={hf}", "--output={out}", "--to_hf=maybe"], ["to_hf", "maybe"]),
        (["--checkpoint={hf}", "--output={out}", "more"], ["unexpected argument 'more'"]),
    ],
)
def test_the_binary_refuses_a_bad_flag_with_code_2(arguments, words, tmp_path, processes):
    write_source(tmp_path / "hf")
    before = tree_of(tmp_path)
    places = {"hf": tmp_path / "hf", "out": tmp_path / "out"}
    done = forked(processes, *(argument.format(**places) for argument in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert [word for word in words if word not in line] == []
    assert tree_of(tmp_path) == before


def test_the_binary_tells_its_flags():
    done = run("--help")
    assert done.returncode == 0
    for flag in ("--checkpoint", "--output", "to_hf"):
        assert flag in done.stdout
