"""The weights reader against files written from the format's definition and by torch."""

import json
import os
import pickle
import sys
from pathlib import Path

import hf_folder
import ml_dtypes
import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.hf_weights import open_weights
from converters.weight_files import write_index

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
INDEX = "model.safetensors.index.json"


def random_state(dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 5), "b.weight": (4,), "c": (2, 2, 3), "d": (1,), "e": (7, 1)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def assert_reads(folder: Path, state: dict[str, np.ndarray]) -> None:
    """The reader gives these names, shapes, dtypes and bits."""
    with open_weights(folder) as reader:
        assert sorted(reader.names) == sorted(state)
        for name, tensor in state.items():
            assert reader.shape(name) == tensor.shape
            assert reader.dtype(name) == tensor.dtype
            found = reader.read(name)
            assert isinstance(found, np.ndarray)
            assert found.dtype == tensor.dtype
            assert found.shape == tensor.shape
            assert found.tobytes() == tensor.tobytes()


def refusal(folder: Path) -> str:
    """The one line that a folder is refused with."""
    with pytest.raises(CheckpointError) as error:
        open_weights(folder)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_safetensors_are_read_bit_for_bit(tmp_path, shards, dtype):
    state = random_state(DTYPES[dtype])
    hf_folder.write_weights(tmp_path, state, shards=shards)
    assert_reads(tmp_path, state)


def test_bits_are_those_of_the_formats_definition(tmp_path):
    values = np.array([[1.5, -2.0], [0.25, 65504.0]], "<f2")
    header = {
        "low": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]},
        "half": {"dtype": "F16", "shape": [2, 2], "data_offsets": [6, 14]},
    }
    low = np.array([0x3F80, 0xC000, 0x3E80], "<u2")  # 1, -2, 0.25: the upper halves of float32
    path = tmp_path / "model.safetensors"
    hf_folder.write_raw(path, header, low.tobytes() + values.tobytes())
    with open_weights(tmp_path) as reader:
        np.testing.assert_array_equal(reader.read("low").astype(np.float32), [1, -2, 0.25])
        np.testing.assert_array_equal(reader.read("half"), values)


def test_a_file_is_named_for_every_tensor(tmp_path):
    hf_folder.write_weights(tmp_path, random_state(), shards=2)
    weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    with open_weights(tmp_path) as reader:
        assert {name: reader.file_of(name) for name in reader.names} == {
            name: tmp_path / file for name, file in weight_map.items()
        }


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts memory as Linux tells it")
def test_one_tensor_is_read_without_its_neighbours(tmp_path):
    large = 2**30
    header = {
        "large": {"dtype": "F32", "shape": [large // 4], "data_offsets": [0, large]},
        "small": {"dtype": "F32", "shape": [2], "data_offsets": [large, large + 8]},
    }
    path = tmp_path / "model.safetensors"
    hf_folder.write_raw(path, header, b"")
    with path.open("r+b") as file:  # a hole: nothing is on the disk
        file.seek(large, os.SEEK_END)
        file.write(np.array([3, 4], "<f4").tobytes())
    before = resident_bytes()
    with open_weights(tmp_path) as reader:
        assert reader.shape("large") == (large // 4,)
        assert reader.dtype("large") == np.float32
        np.testing.assert_array_equal(reader.read("small"), [3, 4])
        assert resident_bytes() - before < large // 8


def test_a_shard_may_be_a_link_as_in_the_hubs_cache(tmp_path):
    state = random_state()
    hf_folder.write_weights(tmp_path / "blobs", state, shards=2)
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (folder / file.name).symlink_to(Path("..") / "blobs" / file.name)
    assert_reads(folder, state)


def test_a_whole_file_comes_before_an_index_and_safetensors_before_pickle(tmp_path):
    first, second = random_state(), {"other": np.ones(3, np.float32)}
    hf_folder.write_weights(tmp_path, first, shards=2)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert_reads(tmp_path, first)
    hf_folder.write_weights(tmp_path, second)
    assert_reads(tmp_path, second)


def test_a_folder_without_weights_is_named(tmp_path):
    message = refusal(tmp_path)
    assert message.startswith(str(tmp_path))
    for name in ("model.safetensors", INDEX, "pytorch_model.bin"):
        assert name in message


@pytest.mark.parametrize("keep", ["nothing", "half the length", "half the header", "half the data"])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_truncated_file_is_named(tmp_path, shards, keep):
    hf_folder.write_weights(tmp_path, random_state(), shards=shards)
    path = sorted(tmp_path.glob("*.safetensors"))[-1]
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    cuts = {
        "nothing": 0,
        "half the length": 4,
        "half the header": 8 + header // 2,
        "half the data": (8 + header + len(content)) // 2,
    }
    path.write_bytes(content[: cuts[keep]])
    assert refusal(tmp_path).startswith(f"{path}: not a whole safetensors file: ")


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": ONE}, bytes(8)),  # more data than the header speaks of
        ({"a": ONE | {"shape": [2]}}, bytes(4)),
        ({"a": ONE, "b": ONE}, bytes(4)),  # two tensors in one place
        ({"a": ONE | {"data_offsets": [4, 8]}}, bytes(8)),
        ({"a": ONE | {"dtype": "F33"}}, bytes(4)),
        ('{"a": ' + json.dumps(ONE), bytes(4)),
        (
            '{"a": '
            + json.dumps(ONE)
            + ', "a": '
            + json.dumps(ONE | {"data_offsets": [4, 8]})
            + "}",
            bytes(8),
        ),
    ],
    ids=["long", "short", "overlap", "gap", "dtype", "cut JSON", "a name twice"],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, header, data):
    path = tmp_path / "model.safetensors"
    hf_folder.write_raw(path, {"a": ONE}, bytes(4))
    open_weights(tmp_path)
    hf_folder.write_raw(path, header, data)
    assert refusal(tmp_path).startswith(f"{path}: not a whole safetensors file: ")


@pytest.mark.parametrize("code", ["F64", "I64", "I8", "BOOL", "U16"])
def test_a_dtype_that_is_no_weight_is_named(tmp_path, code):
    size = {"F64": 8, "I64": 8, "I8": 1, "BOOL": 1, "U16": 2}[code]
    header = {"odd": {"dtype": code, "shape": [3], "data_offsets": [0, 3 * size]}}
    path = tmp_path / "model.safetensors"
    hf_folder.write_raw(path, header, bytes(3 * size))
    with open_weights(tmp_path) as reader, pytest.raises(CheckpointError) as error:
        reader.dtype("odd")
    assert str(error.value) == (f"{path}: tensor odd: expected dtype F32, F16, BF16, found {code}")


def test_a_missing_shard_is_named(tmp_path):
    hf_folder.write_weights(tmp_path, random_state(), shards=3)
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    lost.unlink()
    message = refusal(tmp_path)
    assert message.startswith(str(tmp_path / INDEX))
    assert lost.name in message
    assert "missing" in message


def test_a_shard_that_is_a_folder_is_refused(tmp_path):
    hf_folder.write_weights(tmp_path, random_state(), shards=2)
    path = sorted(tmp_path.glob("*.safetensors"))[0]
    path.unlink()
    path.mkdir()
    assert refusal(tmp_path).startswith(str(path))


@pytest.mark.parametrize(
    "file",
    [
        "../outside/model.safetensors",
        "{outside}/model.safetensors",
        "inside/model.safetensors",
        "./model-1.safetensors",
        "inside/../model-1.safetensors",
        "..",
        ".",
        "",
        None,
        3,
        ["model-1.safetensors"],
    ],
)
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, file):
    """The file it names is there and whole: the name alone is the reason."""
    folder, outside = tmp_path / "checkpoint", tmp_path / "outside"
    state = {"a": np.ones(2, np.float32)}
    for place in (outside, folder / "inside"):
        hf_folder.write_weights(place, state)
    hf_folder.write_weights(folder, state)
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    file = file.format(outside=outside) if isinstance(file, str) else file
    hf_folder.write_index(folder, {"a": file})
    message = refusal(folder)
    assert message.startswith(f"{folder / INDEX}: weight_map: a: ")
    assert repr(file) in message
    assert "inside the folder" in message


@pytest.mark.parametrize("weight_map", [None, {}, [], "model.safetensors"])
def test_an_index_without_a_map_is_refused(tmp_path, weight_map):
    hf_folder.write_index(tmp_path, weight_map)
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / INDEX}: weight_map")


def test_a_broken_index_is_refused(tmp_path):
    hf_folder.write_weights(tmp_path, random_state(), shards=2)
    (tmp_path / INDEX).write_text('{"weight_map": {')
    assert refusal(tmp_path).startswith(f"{tmp_path / INDEX}: expected JSON")


def test_a_tensor_in_two_shards_is_refused_with_both_named(tmp_path):
    hf_folder.write_weights(tmp_path, random_state(), shards=2)
    first, second = sorted(tmp_path.glob("*.safetensors"))
    doubled = next(iter(hf_folder.read_raw(first)))
    tensors = {name: random_state()[name] for name in hf_folder.read_raw(second)}
    hf_folder.write_weights(tmp_path / "new", tensors | {doubled: random_state()[doubled]})
    (tmp_path / "new" / "model.safetensors").replace(second)
    assert refusal(tmp_path) == f"{second}: tensor {doubled} is also in {first.name}"


def test_an_index_that_contradicts_its_shards_is_refused(tmp_path):
    hf_folder.write_weights(tmp_path, random_state(), shards=2)
    first, second = sorted(tmp_path.glob("*.safetensors"))
    weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    moved = next(name for name, file in weight_map.items() if file == first.name)
    hf_folder.write_index(tmp_path, weight_map | {moved: second.name})
    message = refusal(tmp_path)
    assert message.startswith(f"{second}: expected tensor {moved}")
    assert message.endswith(first.name)
    hf_folder.write_index(tmp_path, weight_map | {"ghost": second.name})
    message = refusal(tmp_path)
    assert message.startswith(f"{second}: expected tensor ghost")
    assert message.endswith("no shard")


def test_a_written_index_is_read_as_it_was_meant(tmp_path):
    hf_folder.write_weights(tmp_path, random_state(), shards=2)
    path = tmp_path / INDEX
    weight_map = json.loads(path.read_text())["weight_map"]
    path.unlink()
    write_index(path, weight_map, 1234)
    assert json.loads(path.read_text()) == {
        "metadata": {"total_size": 1234},
        "weight_map": weight_map,
    }
    assert_reads(tmp_path, random_state())


def torch_state(torch, state: dict[str, np.ndarray]):
    """The same tensors in torch, by value."""
    names = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16"}
    return {
        name: torch.tensor(tensor.astype(np.float32).tolist()).to(
            getattr(torch, names.get(tensor.dtype, "bfloat16"))
        )
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_weights_are_read_bit_for_bit(tmp_path, torch, dtype, zipped):
    state, path = random_state(DTYPES[dtype]), tmp_path / "pytorch_model.bin"
    torch.save(torch_state(torch, state), path, _use_new_zipfile_serialization=zipped)
    assert_reads(tmp_path, state)


def test_sharded_pickle_weights_are_read(tmp_path, torch):
    state = random_state()
    halves = [{n: state[n] for n in sorted(state)[k::2]} for k in range(2)]
    weight_map = {}
    for number, half in enumerate(halves):
        file = f"pytorch_model-{number}.bin"
        torch.save(torch_state(torch, half), tmp_path / file)
        weight_map |= dict.fromkeys(half, file)
    hf_folder.write_index(tmp_path, weight_map, "pytorch_model.bin.index.json")
    assert_reads(tmp_path, state)
    torch.save(torch_state(torch, state), tmp_path / "pytorch_model-1.bin")
    assert "is also in pytorch_model-0.bin" in refusal(tmp_path)


def test_views_and_parameters_are_read_by_value(tmp_path, torch):
    matrix = torch.arange(6.0).reshape(2, 3)
    saved = {"view": matrix.T, "parameter": torch.nn.Parameter(matrix)}
    torch.save(saved, tmp_path / "pytorch_model.bin")
    assert_reads(
        tmp_path,
        {
            "view": np.array([[0, 3], [1, 4], [2, 5]], np.float32),
            "parameter": np.array([[0, 1, 2], [3, 4, 5]], np.float32),
        },
    )


def test_a_pickled_dtype_that_is_no_weight_is_named(tmp_path, torch):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"odd": torch.zeros(2, dtype=torch.float64)}, path)
    with open_weights(tmp_path) as reader, pytest.raises(CheckpointError) as error:
        reader.dtype("odd")
    assert str(error.value).startswith(f"{path}: tensor odd: expected dtype float32")
    assert str(error.value).endswith("found float64")


class Malicious:
    """Unpickling it would run code."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, torch, zipped):
    path, target = tmp_path / "pytorch_model.bin", tmp_path / "it ran"
    content = {"a": torch.zeros(2), "b": Malicious(target)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path)
    assert message.startswith(f"{path}: not a loadable weights file: ")
    assert "touch" in message or "getattr" in message  # what it asked for
    assert not target.exists()
    # The same file does run code where nobody guards against it.
    torch.load(path, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path, torch, protocol):
    path, target = tmp_path / "pytorch_model.bin", tmp_path / "it ran"
    path.write_bytes(pickle.dumps(Malicious(target), protocol=protocol))
    assert refusal(tmp_path).startswith(f"{path}: not a loadable weights file: ")
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists()


@pytest.mark.parametrize("content", ["list", "nested", "number", "unnamed", "cut"])
def test_a_pickle_of_anything_but_named_tensors_is_refused(tmp_path, torch, content):
    path = tmp_path / "pytorch_model.bin"
    tensor = torch.zeros(2)
    contents = {
        "list": [tensor],
        "nested": {"model": {"a": tensor}},
        "number": {"a": tensor, "epoch": 3},
        "unnamed": {0: tensor},
        "cut": {"a": tensor},
    }
    torch.save(contents[content], path)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    assert refusal(tmp_path).startswith(f"{path}: ")


def test_pickle_weights_without_torch_ask_for_it(tmp_path, monkeypatch):
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)  # what an import finds where it is missing
    message = refusal(tmp_path)
    assert "pytorch_model.bin" in message
    assert "pip install torch" in message
