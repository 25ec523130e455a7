"""What is no whole GGUF file ends in one line, quickly, and without a large allocation."""

import struct
import time
import tracemalloc

import gguf
import gguf_model
import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.gguf_file import is_gguf, supported
from converters.gguf_header import read_header
from converters.load import load_checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file with a tokenizer, as bytes."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    gguf_model.write(path, kind="Q8_0", tokenizer=gguf_model.add_tokenizer)
    return path.read_bytes()


def refusal(path, content: bytes) -> str:
    """The one line that a file of these bytes ends in."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_the_header_is_what_ggufs_own_reader_finds(whole, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(whole)
    reader, found = gguf.GGUFReader(path), read_header(path)
    expected = {
        key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")
    }
    assert found.metadata == expected
    assert set(found.tensors) == {tensor.name for tensor in reader.tensors}
    for tensor in reader.tensors:
        entry = found.tensors[tensor.name]
        assert entry.shape == tuple(reversed(tensor.shape.tolist()))
        assert (entry.kind, entry.offset) == (tensor.tensor_type.name, tensor.data_offset)
        assert entry.row_bytes * int(np.prod(entry.shape[:-1])) == tensor.n_bytes


def test_a_file_that_ends_anywhere_is_refused(whole, tmp_path):
    header = len(whole) - 10**5
    for length in [0, 3, 4, 8, 20, *range(24, min(header, 6000), 37), len(whole) - 1]:
        assert "whole" in refusal(tmp_path / "cut.gguf", whole[:length]) or length < 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda b: b"GGML" + b[4:],
            "expected a GGUF file, which begins with b'GGUF', found b'GGML'",
        ),
        (lambda b: b[:4] + struct.pack("<I", 1) + b[8:], "version 2 or 3, little endian, found 1"),
        (lambda b: b[:4] + struct.pack(">I", 3) + b[8:], "little endian, found 50331648"),
        (lambda b: b[:8] + struct.pack("<Q", 2**60) + b[16:], "tensors: expected as many as"),
        (lambda b: b[:16] + struct.pack("<Q", 2**60) + b[24:], "keys: expected as many as"),
        (lambda b: b[:24] + struct.pack("<Q", 2**62) + b[32:], "a key: expected as many as"),
    ],
)
def test_broken_beginnings_are_named_at_once(change, said, whole, tmp_path):
    content = change(whole)
    tracemalloc.start()
    start = time.process_time()
    message = refusal(tmp_path / "broken.gguf", content)
    taken, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert said in message
    assert taken < 1
    assert peak < 2**22


@pytest.mark.parametrize("place", [b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type"])
def test_a_list_that_claims_more_than_the_file_holds_is_refused(place, whole, tmp_path):
    # After the key: type of the value (a list), type of its members, their number.
    at = whole.index(place) + len(place) + 8
    broken = whole[:at] + struct.pack("<Q", 2**61) + whole[at + 8 :]
    assert f"{place.decode()}: expected as many as" in refusal(tmp_path / "m.gguf", broken)


def test_types_that_are_no_weights_are_refused_by_name(whole, tmp_path):
    name = b"blk.0.ffn_up.weight"
    at = whole.index(name) + len(name) + 4 + 16
    for number, said in ((9999, "found number 9999"), (26, "found I32"), (28, "found F64")):
        broken = whole[:at] + struct.pack("<I", number) + whole[at + 4 :]
        # Wider numbers would lie beyond the end otherwise.
        assert said in refusal(tmp_path / "m.gguf", broken + bytes(2**20))


@pytest.mark.parametrize("kind", gguf_model.KINDS)
def test_every_type_that_gguf_dequantises_is_supported(kind):
    assert supported(kind)
    assert not any(map(supported, ("I8", "I64", "F64", "unheard of")))


def test_random_damage_is_an_error_line_or_a_model(whole, tmp_path):
    """Nothing but the one exception leaves the reader, whichever byte of the header is wrong."""
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(150):
        content = bytearray(whole)
        content[rng.integers(4, 4000)] = rng.integers(256)
        path = tmp_path / "damaged.gguf"
        path.write_bytes(content)
        try:
            assert read_header(path).tensors
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
def test_values_that_are_not_finite_are_refused_by_their_place(value, kind, tmp_path):
    path = tmp_path / "model.gguf"
    gguf_model.write(path, kind=kind)
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_up.weight")
    content = bytearray(path.read_bytes())
    dtype = np.float32 if kind == "F32" else np.float16  # the scale of Q8_0 comes first
    bad = np.array(value, dtype).tobytes()
    content[tensor.data_offset : tensor.data_offset + len(bad)] = bad
    message = refusal(path, bytes(content))
    assert "mlp.up_proj.weight: expected finite values, found" in message
    assert message.endswith("at (0, 0)")


def test_only_files_of_the_suffix_are_taken_for_this_format(tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "model.bin").write_bytes(b"GGUF")
    (tmp_path / "model.GGUF").write_bytes(b"")
    assert not is_gguf(tmp_path / "folder.gguf")
    assert not is_gguf(tmp_path / "model.bin")
    assert not is_gguf(tmp_path / "missing.gguf")
    assert is_gguf(tmp_path / "model.GGUF")
