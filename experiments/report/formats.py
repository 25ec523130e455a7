"""Numbers as people read them."""

import math
from collections.abc import Sequence

UNDEFINED = "undefined"


def number(value: float) -> str:
    """A number for people, three significant digits: 357, 0.172, 1.10e-3, or `undefined`."""
    if not math.isfinite(value):
        return UNDEFINED
    if value == 0:
        return "0"
    if 1e-2 <= abs(value) < 9995:
        return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def percent(share: float, digits: int = 1) -> str:
    """A signed change in percent, without the sign of percent, or `undefined`."""
    return f"{100 * share:+.{digits}f}" if math.isfinite(share) else UNDEFINED


def without_text(readers: Sequence[str]) -> str:
    """Beside column sums that leave out some kinds of readers, why: `ModelConfig.raw_reads`."""
    return (
        f" ({', '.join(readers)} left out: this model reads there without a norm, so what all "
        "writers send need not cancel out)"
    )


def health_text(value: float | None) -> str:
    """A health figure for people, two digits; None, of scores that are all zero, is not defined."""
    return UNDEFINED if value is None else f"{value:.1e}"
