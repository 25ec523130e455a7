"""Free choices: each row is the metric under the setting that it names."""

import numpy as np

from eap_jax import metrics
from experiments.statistics.metrics import METRICS
from experiments.statistics.sensitivity import Sensitivity, sensitivities


def test_sensitivities_are_the_metrics_under_other_settings(sides):
    base, rl = sides
    rows = sensitivities(base, rl, cell="c", bins=(50, 100), samples=(10, 12, 50))
    found = {(row.metric, row.choice): (row.base, row.rl) for row in rows}
    assert len(found) == len(rows) == 2 + 2 + 2 * len(METRICS)
    assert all(isinstance(row, Sensitivity) and row.cell == "c" for row in rows)
    complexity = metrics.complexity
    key = "information_complexity"
    assert found[key, "50 bins"] == (complexity(base, bins=50), complexity(rl, bins=50))
    own = found[key, "own range on each side"]
    assert own == found[key, "100 bins"] == found[key, "all 12 samples"]
    widest = max(np.abs(base).max(), np.abs(rl).max())
    shared = (complexity(base, upper=widest), complexity(rl, upper=widest))
    assert found[key, "one range for both"] == shared
    diversity = found["sample_diversity", "10 samples"]
    assert diversity == (metrics.diversity(base[:10]), metrics.diversity(rl[:10]))
