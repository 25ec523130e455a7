r"""Greedy accuracy of a tiny model on held-out questions, by difficulty.

    python -m experiments.posttrain.evaluate --checkpoint=experiments/checkpoints/tiny_grpo

Prints one line a difficulty and, last, one JSON object with all figures.
"""

import json
from pathlib import Path
from typing import NoReturn

import numpy as np
from absl import flags

from converters.load import load_checkpoint
from experiments.arithmetic.problems import DIFFICULTIES, draw_problems
from experiments.arithmetic.tokenizer import build_tokenizer
from experiments.binary import run_main
from experiments.errors import InputError
from experiments.posttrain import rollouts

TEST_SEED = 0
TEST_QUESTIONS = 500
_BATCH = 128


def evaluate(checkpoint: Path, questions: int = TEST_QUESTIONS, seed: int = TEST_SEED) -> dict:
    """Accuracy, share of worked answers and mean response length on held-out questions.

    Args:
      checkpoint: a model of the tiny family.
      questions: how many, a third of each difficulty.
      seed: of the questions.

    Returns:
      {"questions", "accuracy", "worked", "length" (tokens), "by_difficulty": {name: accuracy}}.

    Raises:
      InputError: the model has another vocabulary than the tiny family.
    """
    loaded = load_checkpoint(checkpoint, dtype="float32")
    tokenizer = build_tokenizer()
    if loaded.config.vocab_size != len(tokenizer):
        raise InputError(
            f"{checkpoint}: expected the tiny family's vocabulary of {len(tokenizer)} tokens, "
            f"found {loaded.config.vocab_size}"
        )
    problems = draw_problems(seed, questions, "test")
    right, worked, lengths = [], [], []
    for first in range(0, questions, _BATCH):
        part = problems[first : first + _BATCH]
        greedy = rollouts.greedy_responses(loaded.params, loaded.config, tokenizer, part)
        right.append(greedy.rewards_B)
        worked.append(greedy.worked_B)
        lengths += [len(response) for response in greedy.responses]
    right = np.concatenate(right)
    kinds = np.asarray([problem.difficulty for problem in problems])
    return {
        "questions": questions,
        "accuracy": round(float(right.mean()), 4),
        "worked": round(float(np.concatenate(worked).mean()), 4),
        "length": round(float(np.mean(lengths)), 2),
        "by_difficulty": {
            kind: round(float(right[kinds == kind].mean()), 4)
            for kind in DIFFICULTIES
            if (kinds == kind).any()
        },
    }


def main(_) -> None:
    figures = evaluate(
        Path(flags.FLAGS.checkpoint), questions=flags.FLAGS.questions, seed=flags.FLAGS.seed
    )
    for kind, accuracy in figures["by_difficulty"].items():
        print(f"{kind}: {accuracy:.1%}")
    print(json.dumps(figures))


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_string("checkpoint", None, "A model of the tiny family.", required=True)
    flags.DEFINE_integer("questions", TEST_QUESTIONS, "Held-out questions.", lower_bound=1)
    flags.DEFINE_integer("seed", TEST_SEED, "Seed of the questions.")


def run() -> NoReturn:
    """The program."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
