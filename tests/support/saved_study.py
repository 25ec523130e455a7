"""Run directories as a finished study leaves them, made from given scores without any model."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import toys

from eap_jax.sharding import make_mesh
from experiments import manifest, store
from experiments.responses.published_format import format_rows, row_of
from experiments.scoring.cells import Cell, cell_name
from experiments.scoring.selection import select
from experiments.statistics import cell_metrics
from experiments.study.opened import OpenStudy
from experiments.study.pairs import Pair, pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

TOKENIZER = Path(__file__).resolve().parents[2] / "experiments" / "checkpoints" / "tiny_start"
PAIR = dataclasses.replace(pair_of("start", "grown", "toy"), method="GRPO")


def rows(samples: int, seed: int = 0) -> list:
    """Responses of both models, all of which the published rule selects."""
    draw = np.random.default_rng(seed)
    found = []
    for idx in range(samples):
        fields = {"idx": 10 * idx, "question": f"What is {idx} + 1?", "gt": str(idx + 1)}
        for side in toys.SIDES:
            prompt, answer = (
                draw.integers(3, 60, 8),
                draw.integers(3, 60, int(draw.integers(9, 12))),
            )
            fields |= {
                f"{side}_prompt_tokens": prompt.tolist(),
                f"{side}_answer_tokens": answer.tolist(),
                f"{side}_answer_tokens_range": [8, 8 + len(answer)],
            }
        found.append(row_of(fields))
    return found


def save_study(
    workdir: Path,
    base_nWR: np.ndarray,
    rl_nWR: np.ndarray,
    *,
    pair: Pair = PAIR,
    rules: tuple[Rule, ...] = (Rule(alpha=0.3),),
    checkpoint: Path = TOKENIZER,
) -> Path:
    """A study of `math` whose cells all have the given scores; returns its directory."""
    study = Study(
        pair=pair, workdir=workdir, datasets=("math",), rules=rules, command="python -m toy"
    )
    layers = (base_nWR.shape[1] - 1) // 2
    config = dataclasses.replace(toys.ZOO["multi-head"].config, num_layers=layers)
    opened = OpenStudy(
        study=study,
        checkpoints=dict.fromkeys(toys.SIDES, checkpoint),
        configs=dict.fromkeys(toys.SIDES, config),
        hashes={"base": "0" * 64, "rl": "1" * 64},
        answer_dtypes=dict.fromkeys(toys.SIDES, "float32"),
        mesh=make_mesh(""),
    )
    given = rows(len(base_nWR))
    store.write_text(study.directory / "math" / "all_correct.jsonl", format_rows(given))
    cells = []
    for rule in rules:
        suffix = "".join(f"_{name}{value}" for name, value in rule.unusual)
        cell = Cell(
            dataset="math",
            rule=rule,
            selection=select(given, rule),
            directory=store.cell_directory(study.directory / "math", rule.alpha, suffix),
        )
        idx = [row.fields["idx"] for row in cell.selection.rows]
        assert len(idx) == len(base_nWR), cell_name("math", rule)
        store.write_json(cell.directory / "cell.json", {"rows": idx})
        for side, scores_nWR in zip(toys.SIDES, (base_nWR, rl_nWR), strict=True):
            path = store.results_path(cell.directory, pair.series, "math", side, rule.alpha)
            store.write_results(path, scores_nWR)
            losses = np.linspace(0.1, 0.2, len(base_nWR)).tolist()
            store.write_json(
                cell.directory / f"losses_{side}.json", {"health": 2e-6, "losses": losses}
            )
        cell_metrics.measure_cell(opened, cell)
        cells.append(cell)
    manifest.write(opened, cells, 1.5)
    return study.directory


def save_answers(directory: Path, side: str, verdicts: list[bool]) -> None:
    """One generated and graded answer a verdict, as `experiments.responses.generated` saves them."""
    lines = [
        {
            "idx": idx, "question": "q", "gt": "1", "solution": None, "prompt_tokens": [3],
            "answer_tokens": [4], "text": "1", "pred": "1", "score": score,
        }
        for idx, score in enumerate(verdicts)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    store.write_text(directory / "math" / f"responses_{side}.jsonl", text)
