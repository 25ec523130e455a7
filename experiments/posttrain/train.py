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
from typing import NoReturn

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from converters.checkpoint import load_tree, save_tree
from converters.load import checkpoint_hash, load_checkpoint
from converters.save import save_hf
from eap_jax.config import ModelConfig
from eap_jax.transformer import init_parameters
from experiments.arithmetic.problems import draw_problems
from experiments.arithmetic.tokenizer import build_tokenizer, save_tokenizer
from experiments.binary import run_main
from experiments.errors import InputError
from experiments.posttrain import rollouts
from experiments.posttrain.algorithms import (
    ALGORITHMS,
    Recipe,
    Source,
    initial_state,
    prepare,
    update,
)

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


def train(recipe: Recipe, start: Path | None, output: Path, checkpoint_every: int) -> Path:
    """Run or continue one training.

    Args:
      recipe: the settings.
      start: Hugging Face checkpoint to start from, or None for random weights.
      output: directory of this run; continues what is there if its recipe is the same.
      checkpoint_every: rounds between checkpoints.

    Returns:
      directory of the final model.

    Raises:
      InputError: the output belongs to a run with other settings, or the settings do not fit.
    """
    if recipe.algorithm == "online_dpo" and checkpoint_every % recipe.pool_rounds:
        raise InputError(
            f"checkpoint_every: expected a multiple of pool_rounds {recipe.pool_rounds}, so that a "
            f"resumed run samples the same pairs, found {checkpoint_every}"
        )
    tokenizer = build_tokenizer()
    if start is None:
        if recipe.algorithm != "sft":
            raise InputError(f"start: {recipe.algorithm} needs a trained model to start from")
        config = family_config(tokenizer)
        params = init_parameters(config, jax.random.key(recipe.seed))
    else:
        checkpoint = load_checkpoint(start, dtype="float32")
        config, params = checkpoint.config, checkpoint.params
        if config.vocab_size != len(tokenizer):
            raise InputError(
                f"{start}: expected the tiny family's vocabulary of {len(tokenizer)} tokens, "
                f"found {config.vocab_size}"
            )
    _claim(output, recipe, start)
    model = output / "model"
    if model.exists():
        return model
    state, first_round = _restore(output, initial_state(recipe, config, params))
    _run_rounds(recipe, config, tokenizer, params, state, first_round, output, checkpoint_every)
    return model


def _run_rounds(recipe, config, tokenizer, reference, state, first_round, output, checkpoint_every):
    source = Source(recipe, config, tokenizer, reference)
    probe = draw_problems(_PROBE_SEED, _PROBE_PROBLEMS, "train")
    # The state is donated to every update; the reference is used in all rounds.
    reference = jax.tree.map(np.asarray, reference)
    progress = tqdm(
        range(first_round, recipe.rounds),
        initial=first_round,
        total=recipe.rounds,
        desc=recipe.algorithm,
    )
    with open(output / "log.jsonl", "a") as log:
        if first_round == 0:
            line = {"round": 0} | _probe(state["params"], config, tokenizer, probe)
            log.write(json.dumps(line) + "\n")
        for number in progress:
            begin = time.perf_counter()
            prompts, responses, rewards = source.round_data(state["params"], number)
            batches = prepare(recipe, config, state, reference, prompts, responses, rewards)
            kl = _divergence(batches)
            for batch in batches:
                state, figures = update(state, batch, recipe=recipe, config=config)
            line = {"round": number + 1}
            line |= {name: round(float(value), 6) for name, value in figures.items()}
            line["seconds"] = round(time.perf_counter() - begin, 3)
            if rewards is not None:
                line |= {"reward": round(float(rewards.mean()), 6), "kl": round(kl, 6)}
                progress.set_postfix(reward=line["reward"])
            if (number + 1) % checkpoint_every == 0 or number + 1 == recipe.rounds:
                line |= _probe(state["params"], config, tokenizer, probe)
            log.write(json.dumps(line) + "\n")
            log.flush()
            if (number + 1) % checkpoint_every == 0 and number + 1 < recipe.rounds:
                save_tree(output / "checkpoints" / f"{number + 1:05d}", state)
    save_model(output / "model", config, state["params"])


def save_model(directory: Path, config: ModelConfig, params: dict, dtype: str = "float32") -> None:
    """Write a tiny model with its tokenizer in Hugging Face format."""
    tokenizer = build_tokenizer()
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    staging = directory.with_name(directory.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    save_hf(staging, config, params, dtype=dtype, extra=ids | {"bos_token_id": None})
    save_tokenizer(staging)
    staging.rename(directory)


def _probe(params, config, tokenizer, problems) -> dict:
    """Greedy accuracy, share of worked answers and mean length on the development problems."""
    greedy = rollouts.greedy_responses(params, config, tokenizer, problems)
    return {
        "accuracy": round(float(greedy.rewards_B.mean()), 6),
        "worked": round(float(greedy.worked_B.mean()), 6),
        "greedy_length": round(float(np.mean([len(r) for r in greedy.responses])), 3),
    }


def _divergence(batches) -> float:
    """Mean log-ratio of policy to reference on the sampled tokens: an estimate of the KL, nats."""
    if batches[0].old_BT is None:
        return math.nan
    total = sum(float(((b.old_BT - b.reference_BT) * b.mask_BT).sum()) for b in batches)
    return total / sum(float(b.mask_BT.sum()) for b in batches)


def _claim(output: Path, recipe: Recipe, start: Path | None) -> None:
    """Write the run's settings, or check that the directory is this run's."""
    settings = dataclasses.asdict(recipe) | {
        "start_sha256": None if start is None else checkpoint_hash(start),
    }
    path = output / "recipe.json"
    if path.exists():
        found = json.loads(path.read_text())
        found.pop("start_directory")
        if found != settings:
            changed = sorted(k for k in settings | found if settings.get(k) != found.get(k))
            raise InputError(
                f"{path}: the directory holds a run with other settings ({', '.join(changed)}); "
                "choose another --output"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    settings["start_directory"] = None if start is None else str(start)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def _restore(output: Path, state: dict) -> tuple[dict, int]:
    """The last checkpoint's state and round, or the given state and 0; trims the log to match."""
    saved = sorted(p for p in (output / "checkpoints").glob("*") if p.name.isdigit())
    first_round = int(saved[-1].name) if saved else 0
    if saved:
        state = load_tree(saved[-1], state)
    log = output / "log.jsonl"
    if log.exists():
        lines = log.read_text().splitlines()
        whole = [line for line in lines if saved and line.endswith("}")]
        kept = [line for line in whole if json.loads(line)["round"] <= first_round]
        log.write_text("".join(line + "\n" for line in kept))
    return state, first_round


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
    for name, field in _FLAGS.items():
        if name in ("algorithm", "seed", "rounds", "temperature"):
            continue
        define = flags.DEFINE_integer if field.type is int else flags.DEFINE_float
        define(name, field.default, f"Recipe: {name}.")


def main(_) -> None:
    recipe = Recipe(**{name: getattr(flags.FLAGS, name) for name in _FLAGS})
    start = None if flags.FLAGS.start is None else Path(flags.FLAGS.start)
    model = train(recipe, start, Path(flags.FLAGS.output), flags.FLAGS.checkpoint_every)
    print(f"model: {model}")


def run() -> NoReturn:
    """The program."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
