"""The paper's numbers stand under this project's keys."""

from experiments.report import published
from experiments.statistics.metrics import TABLE_METRICS


def test_table_1_is_the_papers():
    assert published.cell_values("mistral", "math", 0.3) == {
        "activation_intensity": (4.49e-4, 4.92e-4),
        "information_complexity": (4.13e-2, 2.86e-1),
        "distribution_kurtosis": (335, 265),
    }
    found = published.cell_values("qwen25", "college_math", 0.3)
    assert found["activation_intensity"] == (4.76e-4, 4.69e-4)


def test_every_heading_of_table_1_is_a_metric_and_other_cells_have_no_values():
    headings = [metric.short for metric in TABLE_METRICS]
    for columns in published._TABLE_1.values():
        assert set(columns) <= set(headings)
    assert published.cell_values("mistral", "math", 0.1) == {}
    assert published.cell_values("tiny_grpo", "arithmetic", 0.3) == {}


def test_accuracies_are_shares_that_rise():
    for base, rl in published.ACCURACIES.values():
        assert 0 < base < rl < 1
