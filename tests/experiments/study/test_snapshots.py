"""A training's snapshots: steps are numbers, step 0 is the start, mistakes are one line."""

from pathlib import Path

import pytest

from experiments.errors import InputError
from experiments.study.pairs import CHAT, PAIRS
from experiments.study.snapshots import find_snapshots, folder_above


def training(folder: Path, *names: str) -> str:
    for name in names:
        (folder / "snapshots" / name).mkdir(parents=True)
    return str(folder)


@pytest.mark.parametrize("key", ["tiny_grpo", "tiny_sft"])
def test_an_embedded_model_brings_its_start_its_prompt_and_its_method(key):
    found = find_snapshots(key)
    assert (found.name, found.start) == (key, PAIRS[key].base)
    assert list(found.pairs) == [8, 16, 24, 32, 40, 48, 56]
    for step, pair in found.pairs.items():
        assert pair.key == pair.series == f"{key}_step{step}"
        assert (pair.base, pair.prompt) == (PAIRS[key].base, PAIRS[key].prompt)
        assert pair.method == PAIRS[key].method
        assert Path(pair.rl) == Path(PAIRS[key].rl) / "snapshots" / f"{step:05}"


def test_steps_are_ordered_as_numbers_and_step_0_is_the_start(tmp_path):
    along = training(tmp_path / "mine", "step10", "checkpoint-9", "0", "100", ".cache")
    (tmp_path / "mine" / "snapshots" / "notes.txt").write_text("not a snapshot")
    found = find_snapshots(along, prompt=CHAT, max_new_tokens=7)
    assert list(found.pairs) == [9, 10, 100]
    assert found.name == "mine"
    assert found.start == f"{along}/snapshots/0"
    assert {pair.base for pair in found.pairs.values()} == {found.start}
    assert {(pair.prompt, pair.max_new_tokens) for pair in found.pairs.values()} == {(CHAT, 7)}


def test_step_0_is_never_compared_with_a_start_that_was_given(tmp_path):
    """It is the start, perhaps stored in fewer bits."""
    found = find_snapshots(training(tmp_path, "0", "5"), "elsewhere")
    assert (found.start, list(found.pairs)) == ("elsewhere", [5])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), r"with a folder snapshots/ of checkpoints named by their step, .* which has no .*"),
        (("final", "8"), r"final: expected a name that ends with the step, such as 00008"),
        (("8", "008"), r"expected each step once, found step 8 twice: 008 and 8"),
        (("8",), r"start: expected --start=DIR, the checkpoint that .* or a snapshot of step 0"),
        (("0",), r"snapshots: expected a folder for each snapshot, .* found only step 0"),
    ],
)
def test_a_folder_that_is_no_training_is_one_line(tmp_path, names, said):
    with pytest.raises(InputError, match=said) as error:
        find_snapshots(training(tmp_path / "mine", *names))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("along", ["", "tiny_ppo", "deepseek_math", "no/such/folder"])
def test_what_has_no_snapshots_is_told_what_was_expected(along):
    with pytest.raises(InputError, match="along: expected tiny_grpo, tiny_sft or a directory with"):
        find_snapshots(along)


def test_a_prompt_without_a_place_for_the_question_is_an_error():
    with pytest.raises(InputError, match="prompt: expected chat or a text with {question}"):
        find_snapshots("tiny_grpo", prompt="Solve")


def test_only_a_snapshot_has_a_folder_above(tmp_path):
    assert folder_above(tmp_path / "mine" / "snapshots" / "00008") == tmp_path / "mine"
    assert folder_above(tmp_path / "mine" / "00008") is None
