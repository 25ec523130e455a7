"""One pair of models through all stages: the library behind `experiments.run`.

    questions -> responses -> rows both got right -> selection -> scores -> metrics -> report

Every stage reads and writes the files of store.py and is skipped where its file exists, so a killed
run continues where it stopped, and any stage can be replaced by another program's file.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from transformers import AutoTokenizer

from converters.hf_config import read_config
from converters.loading import Checkpoint, checkpoint_hash, load_checkpoint
from eap_jax.config import ModelConfig
from eap_jax.generation import Sampling
from eap_jax.graph import num_edges
from eap_jax.sharding import make_mesh, parameter_shardings
from experiments import answers, manifest, measures, report, store
from experiments.errors import InputError
from experiments.numerics import Numerics, use_numerics, weight_dtype
from experiments.pairs import Pair
from experiments.questions import load_questions
from experiments.responses import (
    SIDES,
    Row,
    Side,
    check_vocabulary,
    format_rows,
    read_rows,
    row_of,
)
from experiments.scoring import score_texts
from experiments.selection import Rule, Selection, select, truncate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Settings of a study of one pair.

    Attributes:
      pair: the models; `base` and `rl` are directories.
      workdir: results go to workdir/pair.key.
      datasets: names of question sets.
      rules: one selection rule an alpha.
      responses: published-format file that replaces questions and generation, or None.
      data_dir: local question files, or None.
      num_questions: most questions asked of each dataset, or None for all.
      numerics, mesh, batch_tokens: see numerics.py, sharding.py and batching.py.
      batch_answers: answers decoded together.
      command: what the user typed, for the manifest.
    """

    pair: Pair
    workdir: Path
    datasets: tuple[str, ...]
    rules: tuple[Rule, ...]
    responses: Path | None = None
    data_dir: Path | None = None
    num_questions: int | None = None
    numerics: Numerics = "float32"
    mesh: str = ""
    batch_tokens: int = 2048
    batch_answers: int = 64
    command: str = ""

    @property
    def directory(self) -> Path:
        """Where the pair's results are."""
        return self.workdir / self.pair.key

    def checkpoint(self, side: Side) -> Path:
        """Directory of one side's model."""
        return Path(self.pair.base if side == "base" else self.pair.rl)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One dataset and alpha: the rows that count and where the results go."""

    dataset: str
    rule: Rule
    selection: Selection
    directory: Path


def run_study(study: Study, say: Callable[[str], None] = print) -> Path:
    """Run or continue a study.

    Args:
      study: the settings.
      say: receives one line for each fact that a user should see.

    Returns:
      path of the report.

    Raises:
      InputError, CheckpointError: an input does not fit; nothing is half-written.
    """
    begin = time.perf_counter()
    use_numerics(study.numerics)
    configs = {side: _read_config(study, side) for side in SIDES}
    _check_comparable(study, configs)
    mesh = make_mesh(study.mesh)
    device = f"{mesh.devices.size} x {mesh.devices.flat[0].device_kind}"
    say(f"device: {device}; dtype: {weight_dtype(study.numerics)}; numerics: {study.numerics}")
    layers = configs["base"].num_layers
    say(f"graph: {layers} layers, {num_edges(layers):,} edges")
    hashes = {side: checkpoint_hash(study.checkpoint(side)) for side in SIDES}

    loaded = _Models(study, mesh)
    cells = []
    for dataset in study.datasets:
        rows = _rows(study, dataset, loaded, hashes)
        for side in SIDES:
            check_vocabulary(rows, side, configs[side].vocab_size, study.responses or dataset)
        cells += [_plan(study, dataset, rule, rows, hashes, say) for rule in study.rules]
    for side in SIDES:
        for cell in cells:
            _score(study, cell, side, loaded, mesh, say)
    results = [measures.measure(study, cell) for cell in cells]
    manifest.write(study, configs, hashes, device, time.perf_counter() - begin)
    return report.write_report(study.directory, results)


class _Models:
    """Loads a side's model when it is first needed and holds one side at a time."""

    def __init__(self, study: Study, mesh: jax.sharding.Mesh):
        self._study, self._mesh = study, mesh
        self._side: Side | None = None
        self._checkpoint: Checkpoint | None = None

    def load(self, side: Side) -> Checkpoint:
        if side != self._side:
            self._checkpoint = None  # frees the other side's weights first
            path = self._study.checkpoint(side)
            shardings = parameter_shardings(read_config(path), self._mesh)
            dtype = weight_dtype(self._study.numerics)
            self._checkpoint = load_checkpoint(path, dtype=dtype, shardings=shardings)
            self._side = side
        return self._checkpoint


def _read_config(study: Study, side: Side) -> ModelConfig:
    path = study.checkpoint(side)
    if not path.is_dir():
        raise InputError(
            f"{side} checkpoint {path}: no such directory; pass a local checkpoint with "
            f"--{side}_checkpoint=DIR"
        )
    return read_config(path)


def _check_comparable(study: Study, configs: dict[str, ModelConfig]) -> None:
    for name in ("num_layers", "vocab_size"):
        base, rl = (getattr(configs[side], name) for side in SIDES)
        if base != rl:
            raise InputError(
                f"{study.pair.rl}: {name}: expected {base} as in {study.pair.base}, found {rl}; the "
                "two models have different graphs or vocabularies and cannot be compared"
            )


def _rows(study: Study, dataset: str, loaded: _Models, hashes: dict[str, str]) -> list[Row]:
    """Rows of a dataset: from the responses file, or generated and graded."""
    directory = study.directory / dataset
    path = directory / "all_correct.jsonl"
    if study.responses is not None:
        rows = read_rows(study.responses)
        _keep_rows(path, rows)
        return rows
    questions = load_questions(dataset, data_dir=study.data_dir)[: study.num_questions]
    stops = {side: _stop_tokens(study, side) for side in SIDES}
    settings = {
        "checkpoints": hashes,
        "prompt": study.pair.prompt,
        "max_new_tokens": study.pair.max_new_tokens,
        "stop_tokens": stops,
        "numerics": study.numerics,
    }
    store.claim(directory / "answers.json", settings)
    given = {}
    for side in SIDES:
        saved = directory / f"responses_{side}.jsonl"
        if len(answers.read_answers(saved)) >= len(questions):
            given[side] = answers.select_answers(saved, questions)
            continue
        tokenizer = AutoTokenizer.from_pretrained(study.checkpoint(side), local_files_only=True)
        given[side] = answers.answer_questions(
            loaded.load(side),
            tokenizer,
            questions,
            study.pair.prompt,
            sampling=Sampling(
                max_new_tokens=study.pair.max_new_tokens, stop_tokens=stops[side]
            ),
            path=saved,
            batch_size=study.batch_answers,
            description=f"{dataset} {side}: answer",
        )
    rows = [row_of(fields) for fields in answers.both_right(given["base"], given["rl"])]
    _keep_rows(path, rows)
    return rows


def _keep_rows(path: Path, rows: list[Row]) -> None:
    """Save the rows beside the results, or check that the saved ones are the same."""
    text = format_rows(rows)
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise InputError(f"{path}: holds other responses; choose another --workdir")
        return
    store.write_text(path, text)


def _stop_tokens(study: Study, side: Side) -> tuple[int, ...]:
    """End-of-sequence ids from generation_config.json or config.json."""
    for name in ("generation_config.json", "config.json"):
        path = study.checkpoint(side) / name
        if path.exists():
            stop = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            if stop is not None:
                return tuple(stop) if isinstance(stop, list) else (stop,)
    raise InputError(f"{study.checkpoint(side)}: config.json: expected eos_token_id, found none")


def _plan(study, dataset, rule, rows, hashes, say) -> Cell:
    """Select a cell's rows and claim its directory."""
    selection = select(rows, rule)
    funnel = ", ".join(f"{step.name} {step.rows}" for step in selection.steps)
    say(f"{dataset}, alpha {rule.alpha:g}: {funnel}; {selection.cut} answer tokens counted")
    directory = store.cell_directory(study.directory / dataset, rule.alpha)
    settings: dict[str, Any] = {
        "rule": dataclasses.asdict(rule),
        "numerics": study.numerics,
        "checkpoints": hashes,
        "rows": [row.fields.get("idx") for row in selection.rows],
        "cut": selection.cut,
    }
    store.claim(directory / "cell.json", settings)
    return Cell(dataset=dataset, rule=rule, selection=selection, directory=directory)


def _score(study, cell: Cell, side: Side, loaded: _Models, mesh, say) -> None:
    """Score one side of a cell unless its file exists."""
    path = store.results_path(
        cell.directory, study.pair.series, cell.dataset, side, cell.rule.alpha
    )
    extra = cell.directory / f"losses_{side}.json"
    if not path.exists() or not extra.exists():
        texts = [truncate(row, side, cell.selection.cut) for row in cell.selection.rows]
        found = score_texts(
            loaded.load(side),
            texts,
            numerics=study.numerics,
            batch_tokens=study.batch_tokens,
            mesh=mesh,
            description=f"{cell.dataset} {cell.rule.alpha:g} {side}: attribute",
        )
        store.write_json(
            extra, {"health": found.health, "losses": [float(x) for x in found.losses_n]}
        )
        store.write_results(path, found.scores_nWR)
    health = store.read_json(extra)["health"]
    say(
        f"{cell.dataset}, alpha {cell.rule.alpha:g}, {side}: column-sum health "
        f"{float('nan') if health is None else health:.1e}"
    )
