r"""Greedy accuracy of a tiny model on held-out questions, by difficulty.

    python -m experiments.posttrain.evaluate --checkpoint=experiments/checkpoints/tiny_grpo

Prints one line a difficulty and, last, one JSON object with all figures.
"""

import json
from pathlib import Path
from typing import NoReturn

import numpy as np
import scipy.stats
from absl import flags
from tqdm import tqdm

from converters.load import load_checkpoint
from experiments.binary import run_main
from experiments.errors import InputError
from experiments.posttrain import rollouts
from experiments.posttrain.task import TASKS, Task
from experiments.responses.tokenization import load_tokenizer
from experiments.study.hub import local_checkpoint

TEST_SEED = 0
_BATCH = 128


def evaluate(
    checkpoint: Path,
    questions: int | None = None,
    seed: int = TEST_SEED,
    task: Task = TASKS["arithmetic"],
) -> dict:
    """Accuracy, share of worked answers and mean response length on held-out questions.

    Args:
      checkpoint: a model that knows the task's prompt.
      questions: how many, each difficulty in turn; None: the task's own number.
      seed: of the questions.
      task: whose questions.

    Returns:
      {"questions", "accuracy", "worked", "length" (tokens), "by_difficulty": {name: accuracy},
      "intervals": {"all" or name: exact (Clopper-Pearson) 95 % interval of that accuracy}}.

    Raises:
      InputError: the tokenizer does not know the task's words.
    """
    loaded = load_checkpoint(checkpoint, dtype="float32")
    tokenizer = load_tokenizer(checkpoint)
    problems = task.draw_many(seed, questions or task.test_questions, "test")
    unknown = tokenizer.unk_token_id
    if unknown is not None and any(unknown in ids for ids in task.prompts(tokenizer, problems)):
        raise InputError(
            f"{checkpoint}: expected a tokenizer that knows the task {task.name}, found unknown words"
        )
    right, worked, lengths = [], [], []
    with tqdm(total=len(problems), desc="evaluate", unit="question", delay=5) as progress:
        for first in range(0, len(problems), _BATCH):
            part = problems[first : first + _BATCH]
            greedy = rollouts.greedy_responses(task, loaded.params, loaded.config, tokenizer, part)
            right.append(greedy.rewards_B)
            worked.append(greedy.worked_B)
            lengths += [len(response) for response in greedy.responses]
            progress.update(len(part))
    right = np.concatenate(right)
    kinds = np.asarray([problem.difficulty for problem in problems])
    by_kind = {kind: right[kinds == kind] for kind in task.difficulties if (kinds == kind).any()}
    return {
        "questions": len(problems),
        "accuracy": round(float(right.mean()), 4),
        "worked": round(float(np.concatenate(worked).mean()), 4),
        "length": round(float(np.mean(lengths)), 2),
        "by_difficulty": {kind: round(float(of.mean()), 4) for kind, of in by_kind.items()},
        "intervals": {kind: _interval(of) for kind, of in ({"all": right} | by_kind).items()},
    }


def _interval(right: np.ndarray) -> list[float]:
    found = scipy.stats.binomtest(int(right.sum()), len(right)).proportion_ci()
    return [round(float(found.low), 4), round(float(found.high), 4)]


def main(_) -> None:
    figures = evaluate(
        local_checkpoint(flags.FLAGS.checkpoint),
        questions=flags.FLAGS.questions,
        seed=flags.FLAGS.seed,
        task=TASKS[flags.FLAGS.task],
    )
    for kind, accuracy in figures["by_difficulty"].items():
        low, high = figures["intervals"][kind]
        print(f"{kind}: {accuracy:.1%} ({low:.1%} to {high:.1%})")
    print(json.dumps(figures))


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_string("checkpoint", None, "A model that was trained on the task.", required=True)
    flags.DEFINE_enum("task", "arithmetic", list(TASKS), "Whose questions.")
    flags.DEFINE_integer(
        "questions", None, "Held-out questions; none: the task's own number.", lower_bound=1
    )
    flags.DEFINE_integer("seed", TEST_SEED, "Seed of the questions.")


def run() -> NoReturn:
    """The program."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
