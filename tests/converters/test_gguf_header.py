"""A model split into several GGUF files is that in one; a part that is missing or wrong is named."""

import shutil

import gguf
import gguf_model
import jax
import numpy as np
import pytest

from converters.convert import to_hf
from converters.errors import CheckpointError
from converters.gguf_file import is_gguf
from converters.gguf_header import part_names, read_header
from converters.load import checkpoint_hash, load_checkpoint
from experiments.responses.tokenization import load_tokenizer


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of a model as one file and as several, with its tokenizer."""
    folder = tmp_path_factory.mktemp("split")
    for split in (0, 8):
        gguf_model.write(
            folder / "model.gguf", kind="Q8_0", tokenizer=gguf_model.add_tokenizer, split=split
        )
    return folder


@pytest.fixture
def parts(written, tmp_path):
    """Copies of the parts, the first one first."""
    return [
        shutil.copy(path, tmp_path / path.name) for path in sorted(written.glob("model-*.gguf"))
    ]


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_split_model_is_that_of_one_file(written, parts, tmp_path):
    assert len(parts) == 3
    first, one = parts[0], written / "model.gguf"
    assert is_gguf(first)
    found, expected = load_checkpoint(first), load_checkpoint(one)
    assert found.config == expected.config
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    header = read_header(first)
    assert list(header.parts) == parts
    assert {tensor.path for tensor in header.tensors.values()} == set(parts)
    text = "12!1"
    assert load_tokenizer(first)(text)["input_ids"] == load_tokenizer(one)(text)["input_ids"]
    to_hf(first, tmp_path / "hf")
    back = load_checkpoint(tmp_path / "hf").params
    jax.tree.map(np.testing.assert_array_equal, back, expected.params)


def test_the_hash_is_of_all_parts(parts):
    before = checkpoint_hash(parts[0])
    content = parts[2].read_bytes()
    parts[2].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert checkpoint_hash(parts[0]) != before


def test_the_tables_are_those_that_ggufs_own_reader_finds(parts):
    header = read_header(parts[0])
    for path in parts:
        for tensor in gguf.GGUFReader(path).tensors:
            entry = header.tensors[tensor.name]
            assert (entry.path, entry.offset) == (path, tensor.data_offset)


def test_a_part_that_is_missing_cut_off_or_another_is_named(parts):
    first, second, third = parts
    name = str(second)
    assert f"{second}: is a later part of a split model; pass the first, {first}" in refusal(second)
    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    assert refusal(first).startswith(f"{name}: ")
    second.write_bytes(third.read_bytes())
    assert f"{name}: split.no: expected 1, found 2" in refusal(first)
    second.unlink()
    assert refusal(first) == f"{name}: no such file, of the 3 parts of a split model"
    second.write_bytes(content)
    renamed = first.rename(first.with_name("another.gguf"))
    said = refusal(renamed)
    assert "split.count: expected 3 files named NAME-00001-of-00003.gguf and so on" in said


def test_a_part_of_another_split_is_refused(parts, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    gguf_model.write(folder / "model.gguf", split=12)
    (other,) = folder.glob("*-00002-*.gguf")
    parts[1].write_bytes(other.read_bytes())
    assert "split.count: expected 3, found 2" in refusal(parts[0])


def test_names_of_all_parts_follow_from_one():
    assert part_names("q4/model.Q4-00002-of-00003.gguf") == [
        f"q4/model.Q4-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    ]
    assert part_names("q4/model.gguf") == ["q4/model.gguf"]
