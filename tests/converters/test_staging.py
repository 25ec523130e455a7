"""A staged folder appears whole or not at all, and replaces nothing."""

import jax
import ml_dtypes
import numpy as np
import pytest
import toys

from converters.errors import CheckpointError
from converters.staging import staged

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"]
TIED = toys.ZOO["window 7, tied head"]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
INDEX = "model.safetensors.index.json"


def assert_same(found: dict, expected: dict) -> None:
    """Same tree, shapes, dtypes and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == wanted.dtype
        assert leaf.shape == wanted.shape
        assert np.asarray(leaf).tobytes() == wanted.tobytes()


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(CheckpointError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_staged_folder_appears_when_all_went_well(tmp_path):
    target = tmp_path / "some" / "where" / "out"
    with staged(target) as staging:
        (staging / "a").write_text("b")
        assert not target.exists()
        assert staging.parent == target.parent  # a rename inside one file system
    assert (target / "a").read_text() == "b"
    assert [p.name for p in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_staged_folder_leaves_nothing_when_something_failed(error, tmp_path):
    def fail():
        with staged(tmp_path / "some" / "where" / "out") as staging:
            (staging / "a").write_text("b")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["folder", "file", "broken link"])
def test_a_staged_folder_does_not_replace_anything(there, tmp_path):
    target = tmp_path / "out"
    if there == "folder":
        target.mkdir()
    elif there == "file":
        target.write_text("kept")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="out: exists already"), staged(target):
        pytest.fail("entered")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_staged_folder_gives_way_to_one_that_appeared_meanwhile(tmp_path):
    def lose():
        with staged(tmp_path / "out") as staging:
            (staging / "a").write_text("b")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").write_text("kept")

    with pytest.raises(OSError, match="out"):
        lose()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["theirs"]


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_staged_folder_needs_a_name_of_its_own(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="exists already"), staged(name):
        pytest.fail("entered")
    assert list(tmp_path.iterdir()) == []
