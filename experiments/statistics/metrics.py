"""The metrics of a study: all that is known of each stands in one object, `METRICS` lists them.

No other file knows a metric's key. To add a metric, add its object here; tables, tests, figures and
the report go over `METRICS`. The formulas of the paper's metrics: `eap_jax.metrics`.

Axes: n questions, m = 2n matrices of both models (first those of base), W writers, R readers.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from eap_jax import metrics as formulas
from experiments.statistics.bootstrap import Interval
from experiments.statistics.functionals import (
    Functional,
    Mean,
    PairMean,
    PooledEntropy,
    correlations,
    entries_of,
    histogram_shares,
)
from experiments.statistics.paired_tests import (
    Changes,
    changes_of_correlation,
    changes_of_surprise,
    changes_of_values,
)

Direction = Literal["rises", "falls"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeChoices:
    """What the paper leaves open in the definition of its metrics.

    Attributes:
      support_WR: entries that count, see `eap_jax.metrics`; not for the output edges. None: all.
      bins: of the histograms of the entropies.
      upper: end of the histogram's range where all entries count; None: the largest |W| of the
        matrices given, as published.
      output_upper: the same for the output edges.
    """

    support_WR: np.ndarray | None = None
    bins: int = 100
    upper: float | None = None
    output_upper: float | None = None

    def with_one_range(self, base_nWR: np.ndarray, rl_nWR: np.ndarray) -> "FreeChoices":
        """The same with ends that are not set at the largest |W| of both models' matrices."""
        sides = (np.asarray(base_nWR), np.asarray(rl_nWR))
        output_sides = [side_nWR[:, :, -1:] for side_nWR in sides]
        return dataclasses.replace(
            self,
            upper=self.upper or _largest(sides, self.support_WR),
            output_upper=self.output_upper or _largest(output_sides, None),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """A figure of the paper that shows one metric in every cell: file name and title here."""

    name: str
    title: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: its names, its meaning, and how it is computed, resampled and tested.

    Attributes:
      key: its name in files.
      label: full name for readers.
      short: name in the paper's table, or of that kind.
      brief: one or two words, the heading of a narrow column.
      unit: of its values; empty for a pure number.
      meaning: one plain clause.
      paper: direction after online RL in the paper; None where the paper does not say.
      value: of score matrices [n, W, R]; NaN where it is not defined. Raises ValueError, see
        `eap_jax.metrics`.
      functional: the same metric as a function of the questions' weights. Asked for only where
        `value` is finite. Histograms keep the range of the matrices given.
      changes: each question's change from base to rl, of matrices [m, W, R]; see `paired_tests`.
      domain: smallest and largest possible value.
      in_table: whether it stands in the paper's table 1, so that it is one of the paper's signs.
      figure: the paper's figure of it, if any.
      histogram: whether it is the entropy of a histogram, whose range is a free choice: such a
        metric is compared on one range for both models too.
      histogram_tried: whether `sensitivity` tries other bins and ranges of its histogram.
    """

    key: str
    label: str
    short: str
    brief: str
    unit: str
    meaning: str
    paper: Direction | None
    value: Callable[[np.ndarray, FreeChoices], float]
    functional: Callable[[np.ndarray, FreeChoices], Functional]
    changes: Callable[[np.ndarray, FreeChoices], Changes]
    domain: Callable[[FreeChoices], Interval]
    in_table: bool = False
    figure: PaperFigure | None = None
    histogram: bool = False
    histogram_tried: bool = False


def _largest(sides, support_WR: np.ndarray | None) -> float | None:
    """Largest |W| of both sides; None, which takes any range, if all are zero or one is NaN."""
    ends = [float(np.abs(entries_of(side_nWR, support_WR)).max()) for side_nWR in sides]
    return max(ends) if np.isfinite(ends).all() and max(ends) > 0 else None


def _shares(scores_nWR: np.ndarray, choices: FreeChoices) -> np.ndarray:
    """Histogram of each question's |W|, as shares [n, bins]."""
    entries_nE = entries_of(scores_nWR, choices.support_WR)
    return histogram_shares(entries_nE, choices.bins, choices.upper)


def _output_shares(scores_nWR: np.ndarray, choices: FreeChoices) -> np.ndarray:
    """Histogram of each question's |W| in the logits column, as shares [n, bins]."""
    return histogram_shares(scores_nWR[:, :, -1], choices.bins, choices.output_upper)


_INTENSITY = Metric(
    key="activation_intensity",
    label="Activation intensity",
    short="Act.Intens.",
    brief="intensity",
    unit="",
    meaning="the sensitivity of the loss to the connections, on average",
    paper="rises",
    value=lambda scores_nWR, choices: formulas.intensity(scores_nWR, choices.support_WR),
    functional=lambda scores_nWR, choices: Mean(
        values_n=formulas.intensity_per_sample(scores_nWR, choices.support_WR)
    ),
    changes=lambda both_sWR, choices: changes_of_values(
        formulas.intensity_per_sample(both_sWR, choices.support_WR)
    ),
    domain=lambda choices: (0.0, math.inf),
    in_table=True,
)
_COMPLEXITY = Metric(
    key="information_complexity",
    label="Information complexity",
    short="Info.Complex.",
    brief="complexity",
    unit="nats",
    meaning="how varied the strengths of the connections are",
    paper="rises",
    value=lambda scores_nWR, choices: formulas.complexity(
        scores_nWR, choices.support_WR, bins=choices.bins, upper=choices.upper
    ),
    functional=lambda scores_nWR, choices: PooledEntropy(shares_nU=_shares(scores_nWR, choices)),
    changes=lambda both_sWR, choices: changes_of_surprise(_shares(both_sWR, choices)),
    domain=lambda choices: (0.0, math.log(choices.bins)),
    in_table=True,
    histogram=True,
    histogram_tried=True,
)
_KURTOSIS = Metric(
    key="distribution_kurtosis",
    label="Distribution kurtosis",
    short="Dist.Kurt.",
    brief="kurtosis",
    unit="",
    meaning="how much a few extreme connections stand out from the rest",
    paper="falls",
    value=lambda scores_nWR, choices: formulas.kurtosis(scores_nWR, choices.support_WR),
    functional=lambda scores_nWR, choices: Mean(
        values_n=formulas.kurtosis_per_sample(scores_nWR, choices.support_WR)
    ),
    changes=lambda both_sWR, choices: changes_of_values(
        formulas.kurtosis_per_sample(both_sWR, choices.support_WR)
    ),
    domain=lambda choices: (-2.0, math.inf),
    in_table=True,
)
_DIVERSITY = Metric(
    key="sample_diversity",
    label="Inter-sample diversity",
    short="Diversity",
    brief="diversity",
    unit="",
    meaning="how differently the network is used from one question to the next",
    paper="rises",
    value=lambda scores_nWR, choices: formulas.diversity(scores_nWR, choices.support_WR),
    functional=lambda scores_nWR, choices: PairMean(
        matrix_nn=correlations(entries_of(scores_nWR, choices.support_WR))
    ),
    changes=lambda both_sWR, choices: changes_of_correlation(
        entries_of(both_sWR, choices.support_WR)
    ),
    domain=lambda choices: (0.0, 2.0),
    figure=PaperFigure(
        name="figure_3a_diversity",
        title="Change of diversity in every comparison (figure 3a of the paper)",
    ),
)
_OUTPUT_ENTROPY = Metric(
    key="output_edge_entropy",
    label="Output-edge entropy",
    short="Out.Entropy",
    brief="output entropy",
    unit="nats",
    meaning="how varied the strengths of the connections into the output are",
    paper="rises",
    value=lambda scores_nWR, choices: formulas.output_entropy(
        scores_nWR, bins=choices.bins, upper=choices.output_upper
    ),
    functional=lambda scores_nWR, choices: PooledEntropy(
        shares_nU=_output_shares(scores_nWR, choices)
    ),
    changes=lambda both_sWR, choices: changes_of_surprise(_output_shares(both_sWR, choices)),
    domain=lambda choices: (0.0, math.log(choices.bins)),
    figure=PaperFigure(
        name="figure_3b_output_entropy",
        title="Change of output-edge entropy (figure 3b of the paper)",
    ),
    histogram=True,
)

_STRENGTH_ENTROPY = Metric(
    key="strength_entropy",
    label="Strength entropy",
    short="Str.Entropy",
    brief="strength entropy",
    unit="nats",
    meaning="how evenly a question's strength is spread over the connections, whatever its scale: "
    "the entropy of |W| / sum |W|",
    paper=None,
    value=lambda scores_nWR, choices: formulas.entropy_of_strengths(scores_nWR, choices.support_WR),
    functional=lambda scores_nWR, choices: Mean(
        values_n=formulas.entropy_of_strengths_per_sample(scores_nWR, choices.support_WR)
    ),
    changes=lambda both_sWR, choices: changes_of_values(
        formulas.entropy_of_strengths_per_sample(both_sWR, choices.support_WR)
    ),
    domain=lambda choices: (0.0, math.inf),
)

METRICS: tuple[Metric, ...] = (
    _INTENSITY, _COMPLEXITY, _KURTOSIS, _DIVERSITY, _OUTPUT_ENTROPY, _STRENGTH_ENTROPY,
)  # fmt: skip
TABLE_METRICS = tuple(metric for metric in METRICS if metric.in_table)
HISTOGRAM_METRICS = tuple(metric for metric in METRICS if metric.histogram)
METRIC_BY_KEY: Mapping[str, Metric] = {metric.key: metric for metric in METRICS}
