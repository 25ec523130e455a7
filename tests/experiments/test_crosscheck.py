"""The crosscheck binary agrees with the paper's program where it should, and only there."""

import re
import shutil

import numpy as np
import pytest
import toys

CHECKPOINT = toys.GOLDEN / "checkpoints" / "toy_qwen_base"
RESPONSES = toys.GOLDEN / "responses" / "qwen" / "math" / "all_correct.jsonl"
LAST_LINE = re.compile(r"relative error (\d\.\de[-+]\d\d), tolerance (\S+): (agree|disagree)")


def golden(precision="float32"):
    return toys.GOLDEN / "results" / precision / "results_qwen_math_base_cut0.3.npz"


@pytest.fixture
def crosscheck(processes):
    def run(**changes):
        flags = {
            "reference_npz": golden(), "checkpoint": CHECKPOINT, "responses": RESPONSES,
            "side": "base", "alpha": 0.3,
        } | changes  # fmt: skip
        argv = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        return processes.run("experiments.crosscheck", *argv)

    return run


def verdict(done):
    found = LAST_LINE.fullmatch(done.stdout[-1])
    assert found, done.stdout
    return float(found[1]), float(found[2]), found[3]


def test_a_published_file_agrees_and_exits_with_0(crosscheck):
    done = crosscheck()
    error, tolerance, word = verdict(done)
    assert (done.code, word, tolerance) == (0, "agree", 1e-5)
    assert error <= 1e-5
    assert done.stdout[-1].endswith("tolerance 1e-05: agree")
    assert "15 samples" in done.stdout[0]


def test_the_bfloat16_file_agrees_in_published_numerics(crosscheck):
    done = crosscheck(reference_npz=golden("bfloat16"), numerics="published")
    error, tolerance, word = verdict(done)
    assert (done.code, word, tolerance) == (0, "agree", 0.1)
    assert 1e-4 < error <= 0.1


def test_a_tampered_entry_disagrees_by_its_own_size_and_exits_with_1(crosscheck, tmp_path):
    with np.load(golden()) as arrays:
        scores_WR, all_nWR = arrays["scores"], arrays["all_scores"].copy()
    change = 1e-3 * np.linalg.norm(all_nWR)
    all_nWR[3, 0, 0] += change
    np.savez(tmp_path / "tampered.npz", scores=scores_WR, all_scores=all_nWR)
    done = crosscheck(reference_npz=tmp_path / "tampered.npz", tolerance=2.5e-4)
    error, tolerance, word = verdict(done)
    assert (done.code, word, tolerance) == (1, "disagree", 2.5e-4)
    assert error == pytest.approx(change / np.linalg.norm(all_nWR), rel=0.06)


def test_mistakes_end_in_one_line_that_names_the_place(crosscheck, tmp_path):
    lines = RESPONSES.read_text().splitlines()
    lines[4] = lines[4][:80]
    (tmp_path / "broken.jsonl").write_text("\n".join(lines))
    outside = RESPONSES.read_text().replace(
        '"base_answer_tokens": [41,', '"base_answer_tokens": [61,'
    )
    (tmp_path / "outside.jsonl").write_text(outside)
    with np.load(golden()) as arrays:
        np.savez(tmp_path / "few.npz", scores=arrays["scores"], all_scores=arrays["all_scores"][:9])
    shutil.copytree(CHECKPOINT, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for code, changes, said in (
        (1, {"reference_npz": tmp_path / "none.npz"}, "none.npz: no such file"),
        (
            1,
            {"reference_npz": tmp_path / "few.npz"},
            "few.npz: all_scores: expected (15, 7, 13) for this model and selection, "
            "found (9, 7, 13)",
        ),
        (1, {"responses": tmp_path / "broken.jsonl"}, "broken.jsonl: line 5: "),
        (
            1,
            {"responses": tmp_path / "outside.jsonl"},
            "outside.jsonl: idx 0: base_answer_tokens: expected ids below the vocabulary size 61",
        ),
        (1, {"checkpoint": tmp_path / "nowhere"}, "nowhere: no such checkpoint directory"),
        (1, {"checkpoint": tmp_path / "cut"}, "cut/model.safetensors"),
        (1, {"alpha": 1.5}, "alpha: expected a number in (0, 1], found 1.5"),
        (1, {"delta": 0, "beta": 1, "gamma": 1}, "no row is left"),
        (2, {"side": "left"}, "side"),
        (2, {"alpha": "much"}, "alpha"),
        (2, {"reference_npz": None}, "reference_npz"),
        (2, {"sides": "base"}, "Unknown command line flag 'sides'"),
    ):
        done = crosscheck(**changes)
        assert done.code == code, (changes, done)
        assert said in done.error, changes
        assert not done.stdout or code == 1
