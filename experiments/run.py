r"""Compare two models edge by edge: the whole study of one pair.

    python -m experiments.run                      the embedded pair, on a CPU, offline
    python -m experiments.run --pair=tiny_ppo --alpha=0.1,0.3,0.5
    python -m experiments.run --base_checkpoint=DIR --rl_checkpoint=DIR --responses=all_correct.jsonl
    python -m experiments.run --base_checkpoint=DIR --rl_checkpoint=DIR --dataset=mine \
        --questions=mine.jsonl --question_field=problem --answer_field=result --prompt=chat

    python -m experiments.run --plan --pair=deepseek_math --device=h100 --mesh=data:2

Results go to WORKDIR/PAIR; a killed run continues where it stopped. Last line: report: <path>
"""

import dataclasses
from pathlib import Path
from typing import NoReturn

from absl import flags

from converters.adapter_config import is_adapter
from experiments import study_flags
from experiments.binary import run_main
from experiments.errors import InputError
from experiments.grid import run_grid
from experiments.responses.questions import DATASETS
from experiments.study.cards import card_of
from experiments.study.pairs import CHAT, DEFAULT_PAIR, OWN_PROMPT, PAIRS, Pair, find_pair, pair_of
from experiments.study.printed_plan import print_forecast


def main(_) -> int:
    f = flags.FLAGS
    imported = None
    if (f.base_responses is None) != (f.rl_responses is None):
        raise InputError("--base_responses and --rl_responses go together")
    if f.base_responses is not None:
        imported = {"base": Path(f.base_responses), "rl": Path(f.rl_responses)}
    if f.responses and imported:
        raise InputError("--responses and --base_responses contradict each other")
    _check_sources()
    datasets = f.dataset
    if datasets is None and (f.responses or imported):
        datasets = ["responses"]
    if (f.responses or imported or f.questions) and len(datasets or ()) != 1:
        raise InputError(f"dataset: one file belongs to one dataset, found {datasets}")
    questions = {
        "file": f.questions, "question_field": f.question_field, "answer_field": f.answer_field,
    }  # fmt: skip
    if f.device is not None and not f.plan:
        raise InputError("device: only --plan is made for devices that are not here")
    card = card_of(f.device) if f.device is not None else None
    chosen = study_flags.studies(
        "experiments.run", [_pair()], datasets, questions, f.responses, imported, card
    )
    chosen = [dataclasses.replace(study, adapter_base=f.base) for study in chosen]
    if f.plan:
        fits = [print_forecast(study, card) for study in chosen]
        return 0 if all(fits) else 1
    outcome = run_grid(chosen)
    for path in outcome.reports:
        print(f"report: {path}")
    return study_flags.report_failures(outcome.failures)


def _check_sources() -> None:
    """Questions and responses come from one place each.

    Raises:
      InputError: two flags contradict each other, or one is empty.
    """
    f = flags.FLAGS
    given = ("questions", "data_dir", "responses", "base_responses", "rl_responses")
    for name in (*given, "question_field", "answer_field"):
        value = getattr(f, name)
        if value is not None and not value.strip():
            raise InputError(
                f"{name}: expected a {'field' if 'field' in name else 'path'}, found none"
            )
    if f.questions and f.data_dir:
        raise InputError(
            "--questions and --data_dir contradict each other: give one file, or a folder of data sets"
        )
    for name in ("questions", "data_dir", "question_field", "answer_field"):
        if f.responses and getattr(f, name):
            raise InputError(
                f"--responses and --{name} contradict each other: the responses hold their questions"
            )
    if f.data_dir and f.base_responses and not f.dataset:
        raise InputError("data_dir: --dataset names the questions that the answers belong to")


def _pair() -> Pair:
    """The registered pair or the two checkpoints, with the prompt and limit of the flags."""
    f = flags.FLAGS
    if (f.base_checkpoint is None) != (f.rl_checkpoint is None):
        raise InputError("--base_checkpoint and --rl_checkpoint go together")
    if f.base_checkpoint is None:
        pair = find_pair(f.pair or DEFAULT_PAIR)
    else:
        pair = pair_of(f.base_checkpoint, f.rl_checkpoint, f.pair)
    sides = (f.base_checkpoint, f.rl_checkpoint)
    if f.base is not None and not any(side and is_adapter(side) for side in sides):
        raise InputError("base: expected an adapter's folder as a checkpoint, found none")
    if f.prompt is not None and f.prompt != CHAT and "{question}" not in f.prompt:
        raise InputError(f"prompt: expected {CHAT} or a text with {{question}}, found {f.prompt!r}")
    given = {"prompt": f.prompt, "max_new_tokens": f.max_new_tokens, "method": f.method}
    return dataclasses.replace(pair, **{k: v for k, v in given.items() if v is not None})


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_string("pair", None, f"One of {', '.join(PAIRS)}; default {DEFAULT_PAIR}.")
    flags.DEFINE_string(
        "base_checkpoint", None, "Model before post-training: directory, .gguf file or Hub id."
    )
    flags.DEFINE_string("rl_checkpoint", None, "Model after post-training: directory or Hub id.")
    flags.DEFINE_string(
        "base",
        None,
        "Base of a checkpoint that is an adapter, where its record does not lead to it.",
    )
    flags.DEFINE_string("method", None, "How the second was made: GRPO, DPO, ...")
    flags.DEFINE_string(
        "prompt", None,
        f"Text with {{question}}, or {CHAT}: the tokenizer's chat template; default: the pair's, "
        f"for checkpoints of your own {PAIRS[OWN_PROMPT].prompt!r}.",
    )  # fmt: skip
    flags.DEFINE_integer("max_new_tokens", None, "Longest generated answer.", lower_bound=1)
    flags.DEFINE_list("dataset", None, f"Some of {', '.join(DATASETS)}; default: the pair's.")
    flags.DEFINE_string(
        "questions", None, "One file or folder of questions, instead of the dataset's."
    )
    flags.DEFINE_string(
        "question_field", None, "Name of the question's field in it; Body+Question joins two."
    )
    flags.DEFINE_string("answer_field", None, "Name of the right answer's field in it.")
    flags.DEFINE_string("responses", None, "Both models' right answers (all_correct.jsonl).")
    flags.DEFINE_string("base_responses", None, "One model's answers by another program (jsonl).")
    flags.DEFINE_string("rl_responses", None, "The other model's.")
    flags.DEFINE_bool("plan", False, "Only print what the study needs of each device.")
    flags.DEFINE_string(
        "device", None, "plan: a GPU that need not be here: h100, a100, h200 or GiB."
    )
    study_flags.define_flags()


def run() -> NoReturn:
    """The console script eap-run."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
