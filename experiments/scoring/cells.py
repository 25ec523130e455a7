"""One cell of a study, a dataset and a selection rule: what counts, and both sides' scores."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from converters.stored import StoredWeights
from eap_jax.batching import Text
from eap_jax.objective import Objective, self_entropy
from experiments import store
from experiments.responses.published_format import Row
from experiments.responses.shared_ids import SharedIds, embeddings_of
from experiments.scoring.memory import check_length
from experiments.scoring.score import Scores, score_streamed, score_texts
from experiments.scoring.selection import Selection, select, truncate
from experiments.study.distributed import agreed, mirror
from experiments.study.numerics import weight_dtype
from experiments.study.opened import OpenStudy, Say
from experiments.study.pairs import SIDES, Side
from experiments.study.rule import Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One dataset and rule: the rows that count and where the results go."""

    dataset: str
    rule: Rule
    selection: Selection
    directory: Path

    @property
    def name(self) -> str:
        """How the cell is named to the user."""
        return cell_name(self.dataset, self.rule)

    @property
    def group(self) -> str:
        """Cells of one group differ in alpha only: the same rows in the same order."""
        return self.dataset + _suffix(self.rule)


def cell_name(dataset: str, rule: Rule) -> str:
    """`gsm8k, alpha 0.3`, with every setting that is not the published one."""
    return ", ".join(filter(None, [dataset, f"alpha {rule.alpha:g}", rule.variant]))


def plan_cell(
    opened: OpenStudy,
    dataset: str,
    rule: Rule,
    rows: list[Row],
    say: Say,
    *,
    ids: SharedIds | None = None,
) -> Cell:
    """Select a cell's rows and claim its directory.

    Args:
      opened, dataset, rule: the study and the cell.
      rows: that both models answered correctly.
      say: receives one line for each fact that a user should see.
      ids: what both models' ids are; None: only the lengths of their embeddings are looked at.

    Raises:
      InputError: no row is left, a text is longer than `ModelConfig.longest_text` or has an id that is
        not the same to both models, or the directory holds results of other settings.
    """
    selection, ids = select(rows, rule), ids or embeddings_of(opened)
    for side in SIDES:
        for row in selection.rows:
            place = f"{cell_name(dataset, rule)}: {side}: row {row.fields.get('idx')}"
            text = truncate(row, side, selection.cut)
            check_length(text, opened.configs[side], place)
            advice = "a smaller --alpha counts less of the answers"
            ids.check((*text.tokens, *text.targets), side, f"{place}: counted text", advice)
    funnel = ", ".join(f"{step.name} {step.rows}" for step in selection.steps)
    say(f"{cell_name(dataset, rule)}: {funnel}; {selection.cut} answer tokens counted")
    directory = store.cell_directory(opened.study.directory / dataset, rule.alpha, _suffix(rule))
    settings: dict[str, Any] = {
        "rule": dataclasses.asdict(rule),
        "numerics": opened.study.numerics,
        "estimator": opened.study.estimator,
        "checkpoints": opened.hashes,
        "rows": [row.fields.get("idx") for row in selection.rows],
        "cut": selection.cut,
    }
    mirror(directory / "cell.json")
    store.claim(directory / "cell.json", settings)
    return Cell(dataset=dataset, rule=rule, selection=selection, directory=directory)


def results_path(opened: OpenStudy, cell: Cell, side: Side) -> Path:
    """The cell's score file of one side."""
    return store.results_path(
        cell.directory, opened.study.pair.series, cell.dataset, side, cell.rule.alpha
    )


def is_scored(opened: OpenStudy, cell: Cell, side: Side) -> bool:
    """Whether one side of a cell is done; its scores are written last."""
    return results_path(opened, cell, side).exists()


def score_cells(opened: OpenStudy, cells: list[Cell], side: Side) -> None:
    """Attribute all edges on one side's counted texts and save the scores that are not saved yet.

    Args:
      opened: the study.
      cells: of one group, so their texts are prefixes of one another and share the forward pass.
      side: whose model and texts.
    """
    missing = {cell.directory for cell in cells if not agreed(is_scored(opened, cell, side))}
    if not missing:
        return
    # All cells are scored again, saved or not: with other cuts beside it a cell would round
    # differently, and a killed run would not end with the arrays of a whole one.
    for cell, scores in zip(cells, scores_of(opened, cells, side), strict=True):
        if cell.directory not in missing:
            continue
        store.write_json(
            cell.directory / f"losses_{side}.json",
            {
                "health": scores.health,
                # Kinds of readers that it leaves out, where there are any.
                **(
                    {"health_without": list(raw)} if (raw := opened.configs[side].raw_reads) else {}
                ),
                "losses": _floats(scores.losses_n),
                "gradient_norms": _floats(scores.gradient_norms_n),
                # Mean over questions of each counted token's part: they sum to the mean loss.
                "positions": _floats(
                    scores.loss_parts_nJ[:, : cell.selection.cut].mean(axis=0, dtype=np.float64)
                ),
            },
        )
        store.write_results(results_path(opened, cell, side), scores.scores_nWR)


def scores_of(
    opened: OpenStudy,
    cells: list[Cell],
    side: Side,
    *,
    texts: list[Text] | None = None,
    objective: Objective = self_entropy,
    doing: str = "attribute",
) -> list[Scores]:
    """Attribute all edges on one side's counted texts, in memory or streamed as the study says.

    Args:
      opened, cells, side: see `score_cells`.
      texts: others that this side's model reads instead, with the cells' cuts.
      objective: what is differentiated.
      doing: what the progress bar says.

    Returns:
      one `Scores` a cell.
    """
    texts, study = counted_texts(cells, side) if texts is None else texts, opened.study
    common = {
        "cuts": tuple(cell.selection.cut for cell in cells),
        "numerics": study.numerics,
        "batch_tokens": study.batch_tokens,
        "objective": objective,
        "estimator": study.estimator,
        "description": f"{longest_of(cells).name}, {side}: {doing}",
        "first_warning": lambda: opened.first_warning("scores"),
    }
    if study.stream_bytes is None:
        return score_texts(opened.load(side), texts, mesh=opened.mesh, **common)
    dtype = weight_dtype(study.numerics)
    with StoredWeights(opened.checkpoints[side], dtype=dtype) as weights:
        return score_streamed(weights, texts, kept_bytes=study.stream_bytes, **common)


def longest_of(cells: list[Cell]) -> Cell:
    """Of cells of one group that which counts most: the others' texts are prefixes of its texts."""
    return max(cells, key=lambda cell: cell.selection.cut)


def counted_texts(cells: list[Cell], side: Side) -> list[Text]:
    """One side's texts of a group, as far as any of its cells counts them."""
    longest = longest_of(cells).selection
    return [truncate(row, side, longest.cut) for row in longest.rows]


def groups(cells: list[Cell]) -> list[list[Cell]]:
    """Cells by `Cell.group`, in order."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.group, []).append(cell)
    return list(found.values())


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in values]


def _suffix(rule: Rule) -> str:
    return "".join(f"_{name}{value}" for name, value in rule.unusual)
