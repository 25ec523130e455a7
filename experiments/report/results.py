"""What figures, tables and the report are made from: measured cells and the study they belong to.

Plain data, filled from a run directory's files by `gather`. A cell is one pair, dataset and rule of
selection, that is alpha and the rule's variant: two stacks of score matrices over the same questions,
their rows, and the statistics of their comparison.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from eap_jax.attribution import Estimator, not_measurable
from eap_jax.graph import num_layers_of
from experiments.scoring.selection import Step
from experiments.statistics.against_control import AgainstControl
from experiments.statistics.bootstrap import Interval
from experiments.statistics.compare import Comparison
from experiments.statistics.concentration import Concentration
from experiments.statistics.metrics import METRICS, Metric
from experiments.statistics.model_text import Split
from experiments.statistics.sensitivity import Sensitivity
from experiments.statistics.views import View
from experiments.store import Effects


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellResult:
    """One measured cell.

    Attributes:
      pair: key of the pair.
      dataset: name of the question set.
      alpha: counted share of the mean answer length.
      estimator: what made the scores.
      variant: other settings of the selection that are not the published ones, as text.
      base_nWR, rl_nWR: scores [n, W, 4L+1], float, finite; same question at the same place.
      rows: the n selected rows in that order: question, idx, gt and
        {side}_prompt_tokens, {side}_answer_tokens.
      t_cut: counted answer tokens.
      funnel: rows left at each step of the selection and why.
      one_range: of an entropy of a histogram, the comparison on one range for both models.
      base_losses_n, rl_losses_n: loss of each sample in nats a token, or None.
      comparisons: by metric key; a metric that was not measured is absent.
      edge_low_WR, edge_high_WR: 95 % interval of each edge's mean difference, or None.
      faithfulness: by side what faithfulness.json holds, see `fidelity.faithfulness`; empty where no
        circuit was run.
      published: values of the paper for this cell, (base, rl) by metric key.
      decode: token ids to text, or None where no tokenizer is at hand.
      rl_decode: the same of rl's tokenizer; None: that of `decode`.
      effects: exact effects by side, empty where no edge was cut.
      fidelity: what fidelity.json holds, by side; empty where no edge was cut.
      views: every metric in every view, see `statistics.views`.
      median_ratios: median over questions of rl / base, by metric key.
      where_loss_is: by side, see `statistics.concentration`; both empty where not measured.
      identical_texts: share of the questions in which both models have one counted text, or None
        where that was not saved.
      model_text: by metric key and `LOSS`, the change split into model and text; empty where all
        texts are the same or were not scored crosswise.

    Raises:
      ValueError: shapes do not fit together, or a score is not finite.
    """

    pair: str
    dataset: str
    alpha: float
    base_nWR: np.ndarray
    rl_nWR: np.ndarray
    rows: Sequence[Mapping[str, Any]]
    t_cut: int
    funnel: Sequence[Step]
    comparisons: Mapping[str, Comparison]
    one_range: Mapping[str, Comparison] = dataclasses.field(default_factory=dict)
    base_losses_n: np.ndarray | None = None
    rl_losses_n: np.ndarray | None = None
    edge_low_WR: np.ndarray | None = None
    edge_high_WR: np.ndarray | None = None
    faithfulness: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    published: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    decode: Callable[[Sequence[int]], str] | None = None
    rl_decode: Callable[[Sequence[int]], str] | None = None
    variant: str = ""
    estimator: Estimator = "eap"
    effects: Mapping[str, Effects] = dataclasses.field(default_factory=dict)
    fidelity: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    views: Sequence[View] = ()
    median_ratios: Mapping[str, float] = dataclasses.field(default_factory=dict)
    where_loss_is: Mapping[str, Concentration] = dataclasses.field(default_factory=dict)
    identical_texts: float | None = None
    model_text: Mapping[str, Split] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        shape = self.base_nWR.shape
        if len(shape) != 3 or self.rl_nWR.shape != shape or len(self.rows) != shape[0]:
            raise ValueError(
                f"{self.name}: expected one row and two matrices a sample, found {len(self.rows)} "
                f"rows, base {shape} and rl {self.rl_nWR.shape}"
            )
        num_layers_of(*shape[1:])
        if not (np.isfinite(self.base_nWR).all() and np.isfinite(self.rl_nWR).all()):
            raise ValueError(f"{self.name}: expected finite scores, found a NaN or an infinity")
        if (self.edge_low_WR is None) != (self.edge_high_WR is None):
            raise ValueError(f"{self.name}: an edge interval has two ends, found one")
        for ends_WR in (self.edge_low_WR, self.edge_high_WR):
            if ends_WR is not None and ends_WR.shape != shape[1:]:
                raise ValueError(
                    f"{self.name}: edge intervals: expected {shape[1:]}, found {ends_WR.shape}"
                )
        for losses_n in (self.base_losses_n, self.rl_losses_n):
            if losses_n is not None and len(losses_n) != shape[0]:
                raise ValueError(f"{self.name}: losses: expected {shape[0]}, found {len(losses_n)}")

    @property
    def name(self) -> str:
        """`pair, dataset, alpha 0.1, delta 0.4`: how the cell is named to readers."""
        return f"{self.pair}, {self.dataset}, alpha {self.choice}"

    @property
    def choice(self) -> str:
        """`0.1`, or `0.1, delta 0.4`: alpha and what else is unusual of the selection."""
        return f"{self.alpha:g}, {self.variant}" if self.variant else f"{self.alpha:g}"

    @property
    def num_layers(self) -> int:
        """L."""
        return num_layers_of(*self.base_nWR.shape[1:])

    @property
    def not_measurable(self) -> tuple[tuple[int, int], ...]:
        """Edges (writer, reader) whose scores of 0 say nothing, see `attribution.not_measurable`."""
        return not_measurable(self.estimator, self.num_layers)

    @property
    def num_samples(self) -> int:
        """n."""
        return len(self.base_nWR)

    @property
    def base_WR(self) -> np.ndarray:
        """Mean base scores over the questions, float64 [W, R]."""
        return self.base_nWR.mean(axis=0, dtype=np.float64)

    @property
    def rl_WR(self) -> np.ndarray:
        """Mean rl scores over the questions, float64 [W, R]."""
        return self.rl_nWR.mean(axis=0, dtype=np.float64)

    @property
    def measured(self) -> list[tuple[Metric, Comparison]]:
        """The comparisons with their metrics, in the order of `METRICS`."""
        return [(m, self.comparisons[m.key]) for m in METRICS if m.key in self.comparisons]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairInfo:
    """Who is compared: names or paths of the two models, how the second was made, and their size."""

    key: str
    base: str
    rl: str
    method: str
    size: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HealthFigure:
    """One check of the run itself.

    Attributes:
      name, value: what was measured and its value, as text.
      expected: what a sound run shows, in words.
      sound: whether it does; None where there is no bar.
    """

    name: str
    value: str
    expected: str
    sound: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of right answers of one model on one question set (the paper's table 4)."""

    pair: str
    dataset: str
    side: Literal["base", "rl"]
    right: int
    total: int
    interval: Interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyResult:
    """Everything the report of a study shows.

    Attributes:
      pairs: the compared models, by key.
      cells: measured cells, in the order in which they are shown.
      command: what the user typed.
      versions: of the packages and the project, by name.
      hashes: of checkpoints and inputs, by name.
      settings: further facts of the run (device, numerics, time, ...), by name.
      health: checks of the run.
      accuracies: of the models, where answers were graded.
      sensitivities: of the metrics to free choices, where measured.
      against_control: arms against the control, where a sweep has one.

    Raises:
      ValueError: there is no cell, or a cell's pair is not described.
    """

    pairs: Sequence[PairInfo]
    cells: Sequence[CellResult]
    command: str
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    health: Sequence[HealthFigure] = ()
    accuracies: Sequence[Accuracy] = ()
    sensitivities: Sequence[Sensitivity] = ()
    against_control: Sequence[AgainstControl] = ()

    def __post_init__(self):
        if not self.cells:
            raise ValueError("study: expected at least one cell, found none")
        known = {pair.key for pair in self.pairs}
        for cell in self.cells:
            if cell.pair not in known:
                raise ValueError(f"study: {cell.name}: expected one of the pairs {sorted(known)}")


def comparisons_of(cells: Sequence[CellResult], metric: Metric) -> list[Comparison]:
    """One metric's comparisons in the cells in which it was measured."""
    return [cell.comparisons[metric.key] for cell in cells if metric.key in cell.comparisons]
