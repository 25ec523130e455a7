"""Where training data comes from: the data source D of each algorithm.

Every function is deterministic in (seed, round), so a resumed run sees the data it would have seen.
"""

import dataclasses
import random

import jax
import numpy as np

from eap_jax.config import ModelConfig
from eap_jax.generation import Sampling, generate
from experiments.arithmetic.problems import Problem, draw_problem, draw_style
from experiments.grading.grade import grade
from experiments.posttrain.objectives import Responses

# Longest worked answer of the task with its stop token, and longest worked text that is read; both
# checked by a test. A sampled response that rambles past it on a long prompt is cut there.
MAX_NEW_TOKENS = 46
MAX_LENGTH = 80
_DECODED_TOGETHER = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Sampled and graded responses.

    Attributes:
      prompts: token ids, one list a response.
      responses: token ids, one list a response.
      rewards_B: 1.0 for a right answer, else 0.0.
      worked_B: whether the response writes running results.
    """

    prompts: list[list[int]]
    responses: list[list[int]]
    rewards_B: np.ndarray
    worked_B: np.ndarray


def demonstrations(tokenizer, seed: int, round_number: int, count: int) -> tuple[list, list]:
    """Prompts and demonstrated responses of `count` fresh training problems, as token ids."""
    rng = random.Random(f"demonstrations-{seed}-{round_number}")
    problems = [draw_problem(rng, "train") for _ in range(count)]
    prompts = tokenizer([p.prompt for p in problems])["input_ids"]
    responses = tokenizer([p.solution(draw_style(rng, p)) for p in problems])["input_ids"]
    return prompts, [[*response, tokenizer.eos_token_id] for response in responses]


def sample_rollouts(
    params: dict,
    config: ModelConfig,
    tokenizer,
    *,
    seed: int,
    round_number: int,
    num_prompts: int,
    group_size: int,
    temperature: float,
) -> Rollouts:
    """Responses of a model to fresh training problems, `group_size` to each, groups adjacent."""
    rng = random.Random(f"prompts-{seed}-{round_number}")
    problems = [draw_problem(rng, "train") for _ in range(num_prompts)]
    problems = [problem for problem in problems for _ in range(group_size)]
    prompts = tokenizer([problem.prompt for problem in problems])["input_ids"]
    sampling = Sampling(
        max_new_tokens=MAX_NEW_TOKENS,
        stop_tokens=(tokenizer.eos_token_id,),
        temperature=temperature,
    )
    key = jax.random.fold_in(jax.random.key(seed), round_number)
    keys = jax.random.split(key, len(prompts))
    responses = generate(
        params,
        prompts,
        config=config,
        sampling=sampling,
        key=keys,
        rows=_DECODED_TOGETHER,
        limits=[min(MAX_NEW_TOKENS, MAX_LENGTH + 1 - len(prompt)) for prompt in prompts],
    )
    return _graded(problems, prompts, responses, tokenizer)


def greedy_responses(params, config, tokenizer, problems: list[Problem]) -> Rollouts:
    """Greedy responses to given problems, graded."""
    prompts = tokenizer([problem.prompt for problem in problems])["input_ids"]
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, stop_tokens=(tokenizer.eos_token_id,))
    responses = generate(params, prompts, config=config, sampling=sampling)
    return _graded(problems, prompts, responses, tokenizer)


def preference_pairs(rollouts: Rollouts, group_size: int) -> tuple[list, list]:
    """One (chosen, rejected) pair from each group that holds both a right and a wrong response.

    Returns:
      prompts and responses in the order chosen, rejected, chosen, rejected, ...; the first right
      and the first wrong response of each group, so the choice favours no length or style.
    """
    prompts, responses = [], []
    for first in range(0, len(rollouts.responses), group_size):
        rewards = rollouts.rewards_B[first : first + group_size]
        if 0 < rewards.sum() < group_size:
            for index in (first + int(rewards.argmax()), first + int(rewards.argmin())):
                prompts.append(rollouts.prompts[index])
                responses.append(rollouts.responses[index])
    return prompts, responses


def pack(prompts: list[list[int]], responses: list[list[int]]) -> Responses:
    """Prompts and responses as one padded batch of MAX_LENGTH + 1 tokens a row.

    Raises:
      ValueError: a text is longer.
    """
    tokens_BT = np.zeros((len(prompts), MAX_LENGTH + 1), np.int32)
    mask_BT = np.zeros((len(prompts), MAX_LENGTH), np.float32)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        text = prompt + response
        if len(text) > MAX_LENGTH + 1:
            raise ValueError(
                f"text {row}: expected at most {MAX_LENGTH + 1} tokens, found {len(text)}"
            )
        tokens_BT[row, : len(text)] = text
        mask_BT[row, len(prompt) - 1 : len(text) - 1] = 1
    return Responses(tokens_BT=tokens_BT, mask_BT=mask_BT)


def _graded(problems, prompts, responses, tokenizer) -> Rollouts:
    texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
    verdicts = [
        grade(text, problem.answer).correct for text, problem in zip(texts, problems, strict=True)
    ]
    return Rollouts(
        prompts=prompts,
        responses=responses,
        rewards_B=np.asarray(verdicts, np.float32),
        worked_B=np.asarray(["=" in text for text in texts]),
    )
