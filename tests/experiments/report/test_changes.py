"""Accuracy of two models on the same questions, by McNemar's exact test and hand arithmetic."""

import math

import pytest

from experiments.report.changes import accuracy_change


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [
        (6, 0, "rises"),  # 2 / 2^6 = 0.031
        (5, 0, "unclear"),  # 2 / 2^5 = 0.0625
        (0, 6, "falls"),
        (8, 1, "rises"),  # 2 (1 + 9) / 2^9 = 0.039
        (7, 1, "unclear"),  # 2 (1 + 8) / 2^8 = 0.070
        (0, 0, "unclear"),
    ],
)
def test_accuracy_has_changed_by_mcnemars_exact_test(gained, lost, expected):
    base = [True] * 3 + [False] * gained + [True] * lost
    rl = [True] * 3 + [True] * gained + [False] * lost
    change = accuracy_change("math", base, rl)
    assert change.trend == expected
    assert change.base == pytest.approx((3 + lost) / len(base))
    assert change.rl == pytest.approx((3 + gained) / len(rl))
    assert change.low <= change.rl <= change.high + 1e-12
    assert change.base_low <= change.base <= change.base_high + 1e-12


def test_a_start_without_a_right_answer_has_no_relative_change():
    assert math.isnan(accuracy_change("math", [False] * 7, [True] * 7).relative)
