"""What a model is trained on: problems to draw, how they are asked, and how long answers may be."""

import dataclasses
import random
from collections.abc import Callable
from typing import Protocol

from experiments.arithmetic import problems, word_problems
from experiments.arithmetic.problems import Split, Style


class Problem(Protocol):
    """One question with its solutions, as the two generators of `experiments.arithmetic` draw it."""

    question: str
    difficulty: str

    @property
    def answer(self) -> str:
        """The right answer as plain text."""

    def solution(self, style: Style) -> str:
        """A demonstration, as it follows the prompt, without a stop token."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of problem.

    Attributes:
      name: on the command line.
      draw: one problem of a split, of a random difficulty.
      draw_many: seed, count, split -> that many different problems, difficulties in turn.
      draw_style: the style of one demonstration.
      prompt: text with the place `{question}`; a pair that is trained on the task has the same.
      difficulties: their names.
      max_new_tokens: limit of a sampled answer; the longest demonstration fits.
      width_step: texts, and responses by themselves, are padded to multiples of so many tokens.
      probe: development problems that the training log asks for now and then.
      test_questions: held-out problems of an evaluation.
    """

    name: str
    draw: Callable[[random.Random, Split], Problem]
    draw_many: Callable[[int, int, Split], list[Problem]]
    draw_style: Callable[[random.Random, Problem], Style]
    prompt: str
    difficulties: tuple[str, ...]
    max_new_tokens: int
    width_step: int
    probe: int
    test_questions: int

    def prompts(self, tokenizer, drawn: list[Problem]) -> list[list[int]]:
        """Token ids of the problems' prompts."""
        return _ids(tokenizer, [self.prompt.format(question=p.question) for p in drawn])

    def solutions(self, tokenizer, texts: list[str]) -> list[list[int]]:
        """Token ids of demonstrations, each with its stop token."""
        return [[*ids, tokenizer.eos_token_id] for ids in _ids(tokenizer, texts)]


def _ids(tokenizer, texts: list[str]) -> list[list[int]]:
    # A prompt's special tokens stand in its text.
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


TASKS = {
    task.name: task
    for task in (
        Task(
            name="arithmetic",
            draw=problems.draw_problem,
            draw_many=problems.draw_problems,
            draw_style=problems.draw_style,
            prompt=problems.PROMPT,
            difficulties=problems.DIFFICULTIES,
            max_new_tokens=46,
            width_step=48,
            probe=192,
            test_questions=500,
        ),
        Task(
            name="word_problems",
            draw=word_problems.draw_problem,
            draw_many=word_problems.draw_problems,
            draw_style=word_problems.draw_style,
            prompt=word_problems.PROMPT,
            difficulties=word_problems.DIFFICULTIES,
            max_new_tokens=72,
            width_step=16,
            probe=96,
            test_questions=300,
        ),
    )
}
