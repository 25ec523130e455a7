r"""Post-train a tiny model: one loop for SFT, GRPO, PPO, DPO and online DPO.

    python -m experiments.posttrain.train --algorithm=grpo --start=DIR --output=DIR --seed=0

Without --start, training begins from random weights of the family's architecture (SFT only). The
output directory receives log.jsonl (one line a round; every `--checkpoint_every` rounds with the
held-out accuracy), checkpoints/ (Orbax, the whole training state) and, at the end, model/ (Hugging
Face format). A killed run continues from its last checkpoint and ends with the same weights.
"""

import dataclasses
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from converters.adapter_base import base_of
from converters.adapter_config import is_adapter
from converters.checkpoint import save_tree
from converters.load import load_checkpoint
from converters.save import save_hf
from eap_jax.config import ModelConfig
from eap_jax.transformer import init_parameters
from experiments.arithmetic.tokenizer import build_tokenizer, save_tokenizer
from experiments.binary import run_main
from experiments.errors import InputError
from experiments.posttrain import low_rank, rollouts
from experiments.posttrain.algorithms import Minibatch, initial_state, prepare, update
from experiments.posttrain.recipe import ALGORITHMS, Recipe
from experiments.posttrain.resume import check, claim, restore, settings_of
from experiments.posttrain.source import Source
from experiments.posttrain.task import TASKS, Task
from experiments.posttrain.trained import Trained
from experiments.responses.tokenization import load_tokenizer
from experiments.study.hub import local_checkpoint

_PROBE_SEED = 7_000_000  # development problems of the training split, for the curves in the log
_PROBE_PROBLEMS = 192


def family_config(tokenizer) -> ModelConfig:
    """The architecture of every tiny model: a 4-layer Llama of about 0.2 million parameters."""
    return ModelConfig(
        vocab_size=len(tokenizer),
        num_layers=4,
        d_model=64,
        d_ff=160,
        num_heads=4,
        num_kv_heads=4,
        head_dim=16,
        norm_eps=1e-6,
        rope_theta=10000.0,
    )


def train(
    recipe: Recipe,
    start: Path | None,
    output: Path,
    checkpoint_every: int,
    task: Task = TASKS["arithmetic"],
) -> Path:
    """Run or continue one training.

    Args:
      recipe: the settings.
      start: checkpoint to start from (with `recipe.rank` perhaps a LoRA folder that an earlier
        training made, whose factors are trained on), or None for random weights of the tiny family.
      output: directory of this run; continues what is there if its recipe is the same.
      checkpoint_every: rounds between checkpoints.
      task: what is trained on.

    Returns:
      directory of the final model; with `recipe.rank` a LoRA folder.

    Raises:
      InputError: the output belongs to a run with other settings, or the settings do not fit.
    """
    if recipe.algorithm == "online_dpo" and checkpoint_every % recipe.pool_rounds:
        raise InputError(
            f"checkpoint_every: expected a multiple of pool_rounds {recipe.pool_rounds}, so that a "
            f"resumed run samples the same pairs, found {checkpoint_every}"
        )
    if start is None and (recipe.algorithm != "sft" or recipe.rank):
        what = recipe.algorithm if recipe.algorithm != "sft" else "training of low-rank factors"
        raise InputError(f"start: {what} needs a trained model to start from")
    settings = settings_of(recipe, start, task)
    check(output, settings)
    folder = output / "model"
    if folder.exists():
        return folder
    training = _begin(recipe, start, output, task)
    # Only now: a start that does not fit leaves no directory behind.
    claim(output, settings, start)
    _run_rounds(training, checkpoint_every)
    return folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Training:
    """A training at work: its task, its model, and the trained tree that it began with."""

    task: Task
    model: Trained
    tokenizer: Any
    reference: dict
    base: Path | None
    output: Path


def _begin(recipe: Recipe, start: Path | None, output: Path, task: Task) -> _Training:
    if start is None:
        tokenizer = build_tokenizer()
        config = family_config(tokenizer)
        trained = init_parameters(config, jax.random.key(recipe.seed))
        frozen = base = None
    else:
        tokenizer = load_tokenizer(start)
        base = base_of(start) if recipe.rank and is_adapter(start) else start
        checkpoint = load_checkpoint(base, dtype="float32")
        config, trained, frozen = checkpoint.config, checkpoint.params, None
        if recipe.rank:
            low_rank.check_names(base)
            frozen = trained
            if base == start:
                key = jax.random.key(recipe.seed)
                trained = low_rank.initial_factors(frozen, recipe.rank, key)
            else:
                trained = low_rank.read_factors(start, config, recipe.rank, recipe.alpha)
        unknown = len(tokenizer) - config.vocab_size
        if unknown > 0:
            raise InputError(
                f"{start}: expected a tokenizer of at most {config.vocab_size} tokens, as the model "
                f"has, found {len(tokenizer)}"
            )
    return _Training(
        task=task,
        model=Trained(recipe=recipe, config=config, frozen=frozen),
        tokenizer=tokenizer,
        # The state is donated to every update; the reference is used in all rounds.
        reference=jax.tree.map(np.asarray, trained),
        base=base,
        output=output,
    )


def _run_rounds(training: _Training, checkpoint_every: int) -> None:
    task, model, recipe = training.task, training.model, training.model.recipe
    source = Source(task, model, training.tokenizer, training.reference)
    begun = initial_state(recipe, model.config, jax.tree.map(jnp.asarray, training.reference))
    state, first_round = restore(training.output, begun)
    probe = task.draw_many(_PROBE_SEED, min(task.probe, _PROBE_PROBLEMS), "train")
    progress = tqdm(
        range(first_round, recipe.rounds),
        initial=first_round,
        total=recipe.rounds,
        desc=recipe.algorithm,
    )
    with open(training.output / "log.jsonl", "a") as log:
        if first_round == 0:
            line = {"round": 0} | _probe(training, state["params"], probe)
            log.write(json.dumps(line) + "\n")
            log.flush()
        for number in progress:
            begin = time.perf_counter()
            data = source.round_data(state["params"], number)
            minibatches = prepare(task, model, state, training.reference, data)
            kl = _divergence(minibatches)
            for minibatch in minibatches:
                state, figures = update(state, minibatch, model)
            line = {"round": number + 1}
            line |= {name: round(float(value), 6) for name, value in figures.items()}
            line["seconds"] = round(time.perf_counter() - begin, 3)
            if (rewards := data[2]) is not None:
                line |= {"reward": round(float(rewards.mean()), 6), "kl": round(kl, 6)}
                progress.set_postfix(reward=line["reward"])
            if (number + 1) % checkpoint_every == 0 or number + 1 == recipe.rounds:
                line |= _probe(training, state["params"], probe)
            log.write(json.dumps(line) + "\n")
            log.flush()
            if (number + 1) % checkpoint_every == 0 and number + 1 < recipe.rounds:
                save_tree(training.output / "checkpoints" / f"{number + 1:05d}", state)
    if recipe.rank:
        low_rank.save_adapter(
            training.output / "model", model.config, state["params"],
            alpha=recipe.alpha, base=str(training.base.resolve()), dtype="float32",
        )  # fmt: skip
    else:
        save_model(training.output / "model", model.config, state["params"], training.tokenizer)


def save_model(directory: Path, config: ModelConfig, params: dict, tokenizer) -> None:
    """Write a model with its tokenizer in Hugging Face format, float32."""
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    staging = directory.with_name(directory.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    save_hf(staging, config, params, extra=ids | {"bos_token_id": tokenizer.bos_token_id})
    if tokenizer.get_vocab() == build_tokenizer().get_vocab():
        save_tokenizer(staging)
    else:
        tokenizer.save_pretrained(staging)
    staging.rename(directory)


def _probe(training: _Training, trained: dict, problems: list) -> dict:
    """Greedy accuracy, share of worked answers and mean length on the development problems."""
    greedy = rollouts.greedy_responses(
        training.task,
        training.model.whole(trained),
        training.model.config,
        training.tokenizer,
        problems,
    )
    return {
        "accuracy": round(float(greedy.rewards_B.mean()), 6),
        "worked": round(float(greedy.worked_B.mean()), 6),
        "greedy_length": round(float(np.mean([len(r) for r in greedy.responses])), 3),
    }


def _divergence(minibatches: list[Minibatch]) -> float:
    """Mean log-ratio of policy to reference on the sampled tokens: an estimate of the KL, nats."""
    parts = [part for minibatch in minibatches for part in minibatch]
    if parts[0].old_BJ is None:
        return math.nan
    total = sum(float(((p.old_BJ - p.reference_BJ) * p.mask_BJ).sum()) for p in parts)
    return total / sum(float(p.mask_BJ.sum()) for p in parts)


_FLAGS = {field.name: field for field in dataclasses.fields(Recipe)}


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_enum("algorithm", None, ALGORITHMS, "How to train.", required=True)
    flags.DEFINE_string("output", None, "Directory of this run.", required=True)
    flags.DEFINE_string("start", None, "Checkpoint to start from; none: random weights (sft).")
    flags.DEFINE_integer("checkpoint_every", 10, "Rounds between checkpoints.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of data and sampling.")
    flags.DEFINE_integer("rounds", 100, "Rounds of training.", lower_bound=1)
    flags.DEFINE_float("temperature", 1.0, "Sampling temperature of the responses.", lower_bound=0)
    flags.DEFINE_enum("task", "arithmetic", list(TASKS), "What to train on.")
    for name, field in _FLAGS.items():
        if name in ("algorithm", "seed", "rounds", "temperature"):
            continue
        define = flags.DEFINE_integer if field.type is int else flags.DEFINE_float
        define(name, field.default, f"Recipe: {name}.")


def main(_) -> None:
    try:
        recipe = Recipe(**{name: getattr(flags.FLAGS, name) for name in _FLAGS})
    except ValueError as error:
        raise InputError(str(error)) from None
    start = flags.FLAGS.start
    if start is not None:
        start = local_checkpoint(start, label="start", advice="pass a local one with --start=DIR")
    model = train(
        recipe,
        start,
        Path(flags.FLAGS.output),
        flags.FLAGS.checkpoint_every,
        TASKS[flags.FLAGS.task],
    )
    print(f"model: {model}")


def run() -> NoReturn:
    """The program."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
