"""Files are whole or absent, equal data gives equal bytes, and settings guard their results."""

import json
import math
import os
import time

import numpy as np
import pytest
import toys

from experiments import store
from experiments.errors import InputError


def scores(samples=3, num_layers=2, seed=0):
    shape = (samples, 1 + 2 * num_layers, 1 + 4 * num_layers)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def broken_write(monkeypatch):
    """The disk is full when the data should reach it."""

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    store.write_json(path, {"old": 1})
    before = path.read_bytes()
    broken_write(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        store.write_json(path, {"new": 2})
    with pytest.raises(OSError, match="No space left"):
        store.write_results(tmp_path / "never.npz", scores())
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_readers_see_the_old_or_the_new_file_never_a_part(tmp_path, monkeypatch):
    """At the moment of renaming, the new file is complete under another name."""
    path = tmp_path / "a.json"
    store.write_text(path, "old")
    seen = []
    rename = os.fsync

    def watch(number):
        rename(number)
        others = [name for name in os.listdir(tmp_path) if name != "a.json"]
        seen.append((path.read_text(), [(tmp_path / name).read_text() for name in others]))

    monkeypatch.setattr(os, "fsync", watch)
    with path.open() as reader:
        store.write_text(path, "new and longer")
        assert reader.read() == "old", "an open file was written over"
    assert seen == [("old", ["new and longer"])]
    assert path.read_text() == "new and longer"


def test_result_files_are_plain_numpy_and_equal_bytes_at_any_time(tmp_path, monkeypatch):
    scores_nWR = scores()
    store.write_results(tmp_path / "one.npz", scores_nWR)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3e7)
    store.write_results(tmp_path / "two.npz", scores_nWR.copy())
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"scores", "all_scores"}
        np.testing.assert_array_equal(arrays["all_scores"], scores_nWR)
        assert arrays["scores"].shape == scores_nWR.shape[1:]
        expected = scores_nWR.astype(np.float64).sum(axis=0) / len(scores_nWR)
        np.testing.assert_allclose(arrays["scores"], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("series", toys.SERIES)
def test_golden_result_files_are_read_and_ours_have_their_keys_shapes_and_types(
    tmp_path, precision, series
):
    for side in toys.SIDES:
        for alpha in toys.ALPHAS:
            name = f"results_{series}_math_{side}_cut{alpha}.npz"
            golden = toys.GOLDEN / "results" / precision / name
            ours = store.results_path(tmp_path, series, "math", side, alpha)
            assert ours.name == name
            read_nWR = store.read_results(golden)
            assert read_nWR.dtype == np.float32
            store.write_results(ours, read_nWR)
            with np.load(golden) as expected, np.load(ours) as found:
                assert set(found.files) == set(expected.files)
                for key in expected.files:
                    assert found[key].shape == expected[key].shape
                    assert found[key].dtype == expected[key].dtype
                np.testing.assert_array_equal(found["all_scores"], expected["all_scores"])
                # The program divides one running sum by N, and holds it in its own precision.
                scale = np.abs(expected["scores"]).max()
                tolerance = 1e-6 if precision == "float32" else 1e-2
                np.testing.assert_allclose(
                    found["scores"], expected["scores"], atol=tolerance * scale
                )


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"scores": scores()[0]}, "expected the key all_scores, found ['scores']"),
        ({"scores": scores(), "all_scores": scores()}, "scores: expected 2 axes of floats"),
        (
            {"scores": scores()[0], "all_scores": scores()[0]},
            "all_scores: expected 3 axes of floats, found float32 (5, 9)",
        ),
        (
            {"scores": np.ones((5, 9), int), "all_scores": scores()},
            "scores: expected 2 axes of floats, found int64",
        ),
        (
            {"scores": scores()[0, :, :5], "all_scores": scores()},
            "expected scores of one sample's shape, found (5, 5) and all_scores (3, 5, 9)",
        ),
        (
            {"scores": scores()[0, :4], "all_scores": scores()[:, :4]},
            "[1+2L, 4L+1] entries, found [4, 9]",
        ),
        ({"scores": scores()[0], "all_scores": scores()[:0]}, "all_scores (0, 5, 9)"),
    ],
)
def test_result_files_that_do_not_fit_are_refused(tmp_path, arrays, said):
    path = tmp_path / "results.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError) as error:
        store.read_results(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_named_with_its_place(tmp_path, value):
    bad_nWR = scores()
    bad_nWR[2, 1, 4] = value
    np.savez(tmp_path / "results.npz", scores=scores()[0], all_scores=bad_nWR)
    with pytest.raises(InputError, match=rf"all_scores: .* found {value} at \(2, 1, 4\)"):
        store.read_results(tmp_path / "results.npz")


def test_files_that_are_no_arrays_are_refused_and_never_unpickled(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        store.read_results(tmp_path / "none.npz")
    store.write_results(tmp_path / "cut.npz", scores())
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "objects.npz", scores=np.array([{}]), all_scores=scores())
    np.save(tmp_path / "single.npy", scores())
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    for name in ("cut", "text", "empty", "objects", "single"):
        with pytest.raises(InputError, match=f"{name}.npz: expected an npz file of arrays"):
            store.read_results(tmp_path / f"{name}.npz")


def test_json_holds_null_for_what_is_not_finite(tmp_path):
    path = tmp_path / "deep" / "er" / "a.json"
    store.write_json(path, {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf}, "d": "三"})
    text = path.read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, [None, 1.5]], "b": {"c": None}, "d": "三",
    }  # fmt: skip
    assert store.read_json(path) == json.loads(text)


def test_json_files_that_are_absent_or_broken_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none.json: no such file"):
        store.read_json(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"a": 1,')
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    for name in ("cut", "bytes"):
        with pytest.raises(InputError, match=f"{name}.json: expected JSON, found"):
            store.read_json(tmp_path / f"{name}.json")


def test_a_directory_belongs_to_the_settings_that_claimed_it(tmp_path):
    path = tmp_path / "cell.json"
    settings = {"alpha": 0.3, "rows": (1, 2), "nothing": math.nan}
    settings |= {"chat": {"a": 1, "bos": 3, "end": 9}}
    store.claim(path, settings)
    written = path.read_bytes()
    store.claim(path, dict(reversed(settings.items())) | {"rows": [1, 2]})  # order is no setting
    for change, said in (
        ({"alpha": 0.5}, "alpha: expected 0.5, found 0.3"),
        ({"rows": (2, 1)}, "rows: expected [2, 1], found [1, 2]"),
        ({"more": 1}, "more: expected 1, found None"),
        # Of several the first by name, and inside it likewise.
        ({"rows": (), "alpha": 0.5}, "alpha: expected 0.5, found 0.3"),
        ({"chat": {"end": 8, "bos": 2, "a": 1}}, "chat.bos: expected 2, found 3"),
    ):
        with pytest.raises(InputError) as error:
            store.claim(path, settings | change)
        assert f"{path}: holds results of other settings: {said}" in str(error.value)
        assert "--workdir" in str(error.value)
    assert path.read_bytes() == written
    path.write_text("[1]")
    with pytest.raises(InputError, match=r"cell.json: expected settings by name, found list"):
        store.claim(path, settings)


def test_places_of_files_are_the_published_names(tmp_path):
    cell = store.cell_directory(tmp_path / "math", 0.03)
    assert cell == tmp_path / "math" / "cut0.03"
    path = store.results_path(cell, "nvidia-qwen", "math", "rl", 0.03)
    assert path == cell / "results_nvidia-qwen_math_rl_cut0.03.npz"
    assert store.cell_directory(tmp_path, 0.3, "_delta0.1") == tmp_path / "cut0.3_delta0.1"


def test_what_is_written_comes_back_with_nan_for_null_and_tuples_for_lists(tmp_path):
    path = tmp_path / "data.json"
    written = {"metric": "m", "base": 1.5, "ends": (math.nan, 2.0), "rows": [{"rl": math.nan}]}
    store.write_json(path, written)
    found = store.restored(store.read_json(path))
    assert (found["metric"], found["base"], found["ends"][1]) == ("m", 1.5, 2.0)
    assert isinstance(found["ends"], tuple)
    assert math.isnan(found["ends"][0])
    assert math.isnan(found["rows"][0]["rl"])


def test_effects_belong_to_rows_of_the_scores_and_come_back_as_they_are(tmp_path):
    effects_mWR, path = scores(samples=2), tmp_path / "effects_rl.npz"
    effects_mWR[0, 1, 4] = math.nan  # not cut
    store.write_arrays(path, effects=effects_mWR, rows=np.array([0, 2]))
    found = store.read_effects(path, (3, 5, 9))
    np.testing.assert_array_equal(found.effects_mWR, effects_mWR)
    assert found.rows_m.tolist() == [0, 2]
    infinite_mWR = np.where(np.isnan(effects_mWR), np.inf, effects_mWR)
    for effects, rows, said in (
        (effects_mWR, [0, 3], "expected rows from 0 to 2 and no infinity, found rows 0 to 3"),
        (effects_mWR, [-1, 2], "expected rows from 0 to 2 and no infinity, found rows -1 to 2"),
        (infinite_mWR, [0, 2], "expected rows from 0 to 2 and no infinity"),
        (effects_mWR, [0.0, 2.0], r"expected effects \[m, 5, 9\] of m rows, found .* and float64"),
        (effects_mWR, [0], r"of m rows, found float32 \(2, 5, 9\) and int64 \(1,\)"),
        (effects_mWR[:0], np.zeros(0, int), r"of m rows, found float32 \(0, 5, 9\)"),
        (effects_mWR[:, :4], [0, 2], r"of m rows, found float32 \(2, 4, 9\)"),
    ):
        store.write_arrays(path, effects=effects, rows=np.array(rows))
        with pytest.raises(InputError, match=f"^{path}: .*{said}"):
            store.read_effects(path, (3, 5, 9))
