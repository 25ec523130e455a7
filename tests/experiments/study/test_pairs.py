"""The registry holds the paper's pairs as published, and names any other pair safely."""

import pytest
import toys

from converters.hf_config import read_config
from eap_jax.graph import num_edges
from experiments.errors import InputError
from experiments.study.pairs import CHAT, DEFAULT_PAIR, PAIRS, find_pair, pair_of

# REFERENCE: key, series, base, rl, method, longest answer.
PUBLISHED = [
    ("deepseek_math", "deepseek", "deepseek-ai/deepseek-math-7b-instruct",
     "deepseek-ai/deepseek-math-7b-rl", "GRPO", 4096),
    ("mistral", "mistral", "peiyi9979/mistral-7b-sft", "peiyi9979/math-shepherd-mistral-7b-rl",
     "PPO", 4096),
    ("distilled_qwen", "nvidia-qwen", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
     "nvidia/AceReason-Nemotron-7B", "GRPO", 32768),
    ("qwen25", "qwen", "RLHFlow/Qwen2.5-7B-SFT", "RLHFlow/Qwen2.5-7B-DPO", "DPO", 8192),
]  # fmt: skip
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."


@pytest.mark.parametrize("row", PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_published_pairs_are_registered_as_published(row):
    pair = find_pair(row[0])
    found = (pair.key, pair.series, pair.base, pair.rl, pair.method, pair.max_new_tokens)
    assert found == row
    assert pair.datasets == ("gsm8k", "math", "college_math")


def test_prompts_are_the_published_ones():
    def prompt(key):
        return find_pair(key).prompt.replace("{question}", "1+1?")

    step_by_step = f"User: 1+1?\n{BOXED}\n\nAssistant:"
    assert prompt("deepseek_math") == prompt("distilled_qwen") == step_by_step
    assert prompt("mistral") == "[INST] 1+1?[/INST]"
    chatml = [("system", BOXED), ("user", "1+1?")]
    expected = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in chatml)
    assert prompt("qwen25") == expected + "<|im_start|>assistant\n"


def test_every_prompt_holds_its_question_once():
    """The paper's and the embedded pairs have texts of their own, no chat template."""
    texts = {key: pair.prompt for key, pair in PAIRS.items() if pair.prompt != CHAT}
    assert all(text.count("{question}") == 1 for text in texts.values())
    assert all(
        key.startswith(("tulu3_", "olmo2_", "olmo3_")) for key in PAIRS.keys() - texts.keys()
    )


def test_keys_are_the_pairs_own_and_series_are_distinct():
    assert all(key == pair.key for key, pair in PAIRS.items())
    assert len({pair.series for pair in PAIRS.values()}) == len(PAIRS)


def test_embedded_pairs_share_one_start_and_one_graph():
    embedded = [pair for key, pair in PAIRS.items() if key.startswith("tiny_")]
    assert find_pair(DEFAULT_PAIR) in embedded
    assert len({pair.base for pair in embedded}) == 1
    assert len({pair.rl for pair in embedded}) == len(embedded) >= 4
    shapes = {read_config(name) for pair in embedded for name in (pair.base, pair.rl)}
    assert len(shapes) == 1
    assert num_edges(shapes.pop().num_layers) > 0


def test_an_unknown_pair_is_refused_with_the_known_ones():
    with pytest.raises(InputError) as error:
        find_pair("tiny_grop")
    assert "found 'tiny_grop'" in str(error.value)
    assert all(key in str(error.value) for key in PAIRS)


def test_two_checkpoints_are_a_pair_named_after_them():
    pair = pair_of("models/one", "models/two/")
    assert (pair.key, pair.series, pair.base, pair.rl) == ("one_two", "one_two", "models/one",
                                                           "models/two/")  # fmt: skip
    assert pair.method == "not stated", "nothing is claimed of unknown models"


def test_local_copies_of_a_registered_pair_keep_its_prompt_and_series():
    pair = pair_of("a", "b", "qwen25")
    known = find_pair("qwen25")
    assert (pair.base, pair.rl) == ("a", "b")
    assert (pair.key, pair.series, pair.prompt) == (known.key, known.series, known.prompt)
    assert (pair.method, pair.max_new_tokens) == (known.method, known.max_new_tokens)


@pytest.mark.parametrize("key", ["a/b", "../out", "..", "/tmp/x"])
def test_a_name_cannot_leave_the_run_directory(key):
    with pytest.raises(InputError, match="pair: expected a plain name"):
        pair_of("a", "b", key)


def test_golden_checkpoints_make_a_pair():
    folder = toys.GOLDEN / "checkpoints"
    pair = pair_of(str(folder / "toy_qwen_base"), str(folder / "toy_qwen_rl"))
    assert pair.key == "toy_qwen_base_toy_qwen_rl"
    assert pair_of(pair.base, pair.rl, "mine").key == "mine"
