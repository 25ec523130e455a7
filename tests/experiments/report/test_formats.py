"""Numbers as people read them: three digits, the paper's notation, words where undefined."""

import math

import pytest

from experiments.report.formats import health_text, number, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00110, "1.10e-3"), (-4.49e-4, "-4.49e-4"), (0.172, "0.172"), (0.2, "0.200"),
        (357.2, "357"), (22.345, "22.3"), (1234.6, "1235"), (0.0, "0"), (9.999e-3, "1.00e-2"),
        (0.01, "0.0100"), (123456.0, "1.23e5"), (999.4, "999"), (999.5, "1000"),
        (-999.6, "-1000"), (9994.0, "9994"), (9996.0, "1.00e4"), (math.nan, "undefined"),
    ],
)  # fmt: skip
def test_numbers_for_people_keep_three_digits_in_the_paper_s_notation(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.123, 1, "+12.3"), (-0.5, 0, "-50"), (0.0, 1, "+0.0"), (math.nan, 1, "undefined"),
     (math.inf, 1, "undefined")],
)  # fmt: skip
def test_a_change_in_percent_has_its_sign(share, digits, text):
    assert percent(share, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(8.14e-5, "8.1e-05"), (0.7, "7.0e-01"), (0.0, "0.0e+00"), (None, "undefined")],
)
def test_health_has_two_digits(value, text):
    assert health_text(value) == text
