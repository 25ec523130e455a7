"""Where training data comes from: the data source D of each algorithm.

Every function is deterministic in (seed, round), so a resumed run sees the data it would have seen.
"""

import dataclasses
import random

import jax
import numpy as np

from eap_jax.config import ModelConfig
from eap_jax.generation import Sampling, generate
from experiments.grading.grade import grade
from experiments.posttrain.objectives import Responses
from experiments.posttrain.task import Problem, Task

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


def demonstrations(
    task: Task, tokenizer, seed: int, round_number: int, count: int
) -> tuple[list, list]:
    """Prompts and demonstrated responses of `count` fresh training problems, as token ids."""
    rng = random.Random(f"demonstrations-{seed}-{round_number}")
    problems = [task.draw(rng, "train") for _ in range(count)]
    texts = [problem.solution(task.draw_style(rng, problem)) for problem in problems]
    return task.prompts(tokenizer, problems), task.solutions(tokenizer, texts)


def sample_rollouts(
    task: Task,
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
    problems = [task.draw(rng, "train") for _ in range(num_prompts)]
    problems = [problem for problem in problems for _ in range(group_size)]
    prompts = task.prompts(tokenizer, problems)
    sampling = Sampling(
        max_new_tokens=task.max_new_tokens,
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
    )
    return _graded(problems, prompts, responses, tokenizer)


def greedy_responses(
    task: Task, params: dict, config: ModelConfig, tokenizer, problems: list[Problem]
) -> Rollouts:
    """Greedy responses to given problems, graded."""
    prompts = task.prompts(tokenizer, problems)
    sampling = Sampling(max_new_tokens=task.max_new_tokens, stop_tokens=(tokenizer.eos_token_id,))
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


def pack(prompts: list[list[int]], responses: list[list[int]], step: int) -> Responses:
    """Prompts and responses as one padded batch; the widths of texts and of responses are multiples of
    `step`, so that a training compiles few shapes."""
    texts = [prompt + response[:-1] for prompt, response in zip(prompts, responses, strict=True)]
    length = _rounded_up(max(map(len, texts)), step)
    width = _rounded_up(max(map(len, responses)), step)
    tokens_BT = np.zeros((len(texts), length), np.int32)
    positions_BJ, targets_BJ = np.zeros((2, len(texts), width), np.int32)
    mask_BJ = np.zeros((len(texts), width), np.float32)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        tokens_BT[row, : len(texts[row])] = texts[row]
        first = len(prompt) - 1  # its logits predict the response's first token
        positions_BJ[row, : len(response)] = np.arange(first, first + len(response))
        targets_BJ[row, : len(response)] = response
        mask_BJ[row, : len(response)] = 1
    return Responses(
        tokens_BT=tokens_BT, positions_BJ=positions_BJ, targets_BJ=targets_BJ, mask_BJ=mask_BJ
    )


def _rounded_up(length: int, step: int) -> int:
    return -(-length // step) * step


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
