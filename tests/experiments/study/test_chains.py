"""A chain is named or listed; mistakes are one line."""

import pytest

from experiments.errors import InputError
from experiments.study.chains import find_chain
from experiments.study.pairs import CHAT, PAIRS


@pytest.mark.parametrize("key", ["tulu3", "olmo2", "olmo3"])
def test_a_registered_chain_is_its_registered_pairs(key):
    found = find_chain([key])
    assert (found.name, found.labels) == (key, ("sft", "dpo", "rl"))
    keys = [f"{key}_sft_dpo", f"{key}_dpo_rl", f"{key}_sft_rl"]
    assert list(found.pairs) == [(0, 1), (1, 2), (0, 2)]
    assert list(found.pairs.values()) == [PAIRS[name] for name in keys]
    assert found.checkpoints == (
        PAIRS[keys[0]].base, PAIRS[keys[0]].rl, PAIRS[keys[1]].rl,
    )  # fmt: skip
    changed = find_chain([key], max_new_tokens=7)
    assert {pair.max_new_tokens for pair in changed.pairs.values()} == {7}


def test_own_checkpoints_are_named_after_their_folders(tmp_path):
    for name in ("sft", "dpo", "rl"):
        (tmp_path / name).mkdir()
    given = [f"{tmp_path}/sft", f"{tmp_path}/dpo/", f"{tmp_path}/rl", "owner/model.gguf"]
    found = find_chain(given, prompt=CHAT, max_new_tokens=9)
    assert found.labels == ("sft", "dpo", "rl", "model")
    assert found.name == "sft_dpo_rl_model"
    assert [pair.key for pair in found.pairs.values()] == [
        "sft_to_dpo", "dpo_to_rl", "sft_to_rl", "rl_to_model", "sft_to_model",
    ]  # fmt: skip
    for (before, after), pair in found.pairs.items():
        assert (pair.base, pair.rl, pair.method) == (given[before], given[after], "not stated")
        assert (pair.prompt, pair.max_new_tokens) == (CHAT, 9)


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (("a/final", "b/final"), ("1_final", "2_final")),
        (("a/x_to", "a/y", "a/x"), ("1_x_to", "2_y", "3_x")),
    ],
)
def test_labels_that_would_be_mistaken_are_numbered(given, labels):
    found = find_chain(given)
    assert found.labels == labels
    keys = [pair.key for pair in found.pairs.values()]
    assert len(set(keys)) == len(keys)


def test_a_long_chain_has_a_name_that_a_folder_can_have():
    found = find_chain([f"owner/checkpoint-{step:05}" for step in range(40)])
    assert found.name == "checkpoint-00000_to_checkpoint-00039_of_40"
    assert len(found.pairs) == 39 + 38


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "chain: expected one of tulu3, .*, or at least two checkpoints .*, found none"),
        (["one/model"], "chain: expected .* at least two checkpoints .*, found 'one/model'"),
        (["tulu3", ""], "chain: expected .* at least two checkpoints .*, found 'tulu3,'"),
        (["a/b", "c/d", "a/b"], "chain: expected each checkpoint once, found a/b twice$"),
    ],
)
def test_what_is_no_chain_is_one_line(given, said):
    with pytest.raises(InputError, match=said) as error:
        find_chain(given)
    assert "\n" not in str(error.value)


def test_one_folder_under_two_names_is_one_checkpoint(tmp_path):
    (tmp_path / "sft").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "sft")
    with pytest.raises(InputError, match=r"found .*/sft twice, the second time as .*/link"):
        find_chain([str(tmp_path / "sft"), "owner/dpo", str(tmp_path / "link")])


def test_a_prompt_without_a_place_for_the_question_is_an_error():
    with pytest.raises(InputError, match="prompt: expected chat or a text with {question}"):
        find_chain(["tulu3"], prompt="Solve")
