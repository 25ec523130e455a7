"""The data sources of post-training: graded, cut to the buffers, and paired without favour."""

import jax
import numpy as np
import pytest

from eap_jax.transformer import init_parameters
from experiments.arithmetic import problems
from experiments.arithmetic.tokenizer import build_tokenizer
from experiments.posttrain import rollouts
from experiments.posttrain.task import TASKS
from experiments.posttrain.train import family_config

TASK = TASKS["arithmetic"]


@pytest.fixture(scope="module")
def rambling():
    """Responses of random weights at temperature 1: hardly any finds the stop token."""
    tokenizer = build_tokenizer()
    config = family_config(tokenizer)
    params = init_parameters(config, jax.random.key(0))
    found = rollouts.sample_rollouts(
        TASK, params, config, tokenizer, seed=3, round_number=1, num_prompts=160, group_size=2,
        temperature=1.0,
    )  # fmt: skip
    return tokenizer, found


def test_rambling_responses_are_cut_to_the_tasks_limit(rambling):
    _, found = rambling
    assert max(map(len, found.responses)) == TASK.max_new_tokens


def test_only_responses_count_each_token_at_the_place_before_it(rambling):
    _, found = rambling
    packed = rollouts.pack(found.prompts, found.responses, 8)
    texts = [p + r for p, r in zip(found.prompts, found.responses, strict=True)]
    widths = packed.tokens_BT.shape[1], packed.mask_BJ.shape[1]
    longest = max(map(len, texts)) - 1, max(map(len, found.responses))
    for width, length in zip(widths, longest, strict=True):
        assert width % 8 == 0
        assert width - length in range(8)
    for row, (text, prompt) in enumerate(zip(texts, found.prompts, strict=True)):
        assert packed.tokens_BT[row, : len(text) - 1].tolist() == text[:-1]
        assert not packed.tokens_BT[row, len(text) - 1 :].any()
        counted = packed.mask_BJ[row] > 0
        assert packed.mask_BJ[row].tolist() == sorted(packed.mask_BJ[row], reverse=True)
        assert packed.targets_BJ[row, counted].tolist() == text[len(prompt) :]
        places = packed.positions_BJ[row, counted]
        assert places.tolist() == list(range(len(prompt) - 1, len(text) - 1))


def test_groups_share_a_prompt_and_differ_in_their_responses(rambling):
    _, found = rambling
    first, second = found.prompts[::2], found.prompts[1::2]
    assert first == second
    pairs = zip(found.responses[::2], found.responses[1::2], strict=True)
    assert sum(a != b for a, b in pairs) > 150


def test_demonstrations_are_the_tasks_own_solutions():
    tokenizer = build_tokenizer()
    prompts, responses = rollouts.demonstrations(TASK, tokenizer, seed=2, round_number=5, count=40)
    for prompt, response in zip(prompts, responses, strict=True):
        text = tokenizer.decode(prompt)
        assert text.startswith("Question: ")
        assert text.endswith("\nAnswer:")
        assert response[-1] == tokenizer.eos_token_id
        answer = tokenizer.decode(response[:-1])
        numbers = [int(word) for word in text.replace(".", " ").split() if word.isdigit()]
        assert answer.startswith((f" {numbers[0]} ", " The answer is \\boxed{"))
    again = rollouts.demonstrations(TASK, tokenizer, seed=2, round_number=5, count=40)
    assert (prompts, responses) == again
    assert rollouts.demonstrations(TASK, tokenizer, seed=2, round_number=6, count=40)[0] != prompts


def test_pairs_hold_the_first_right_and_the_first_wrong_response_of_mixed_groups():
    found = rollouts.Rollouts(
        prompts=[[1]] * 3 + [[2]] * 3 + [[3]] * 3,
        responses=[[10], [11], [12], [20], [21], [22], [30], [31], [32]],
        rewards_B=np.asarray([0, 1, 1, 1, 1, 1, 1, 0, 0], np.float32),
        worked_B=np.zeros(9, bool),
    )
    prompts, responses = rollouts.preference_pairs(found, group_size=3)
    assert prompts == [[1], [1], [3], [3]]
    assert responses == [[11], [10], [30], [31]]


def test_test_split_is_graded_by_recount():
    """Right answers in both styles are rewarded, a wrong one is not."""
    tokenizer = build_tokenizer()
    drawn = problems.draw_problems(4, 3, "test")
    texts = [drawn[0].solution("worked"), drawn[1].solution("short"),
             f" The answer is \\boxed{{{int(drawn[2].answer) + 1}}}."]  # fmt: skip
    graded = rollouts._graded(
        drawn, [[]] * 3, [tokenizer(text)["input_ids"] for text in texts], tokenizer
    )
    assert graded.rewards_B.tolist() == [1.0, 1.0, 0.0]
    assert graded.worked_B.tolist() == [True, False, False]
