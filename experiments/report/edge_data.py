"""The edge matrix as compact JSON for the report's explorer: what edges.csv holds, to five digits.

Each number is rounded by itself, so a small one keeps its digits, its sign and on which side of zero
its interval ends, however large others are. Numbers are in a cell's unit, a power of ten that makes
them short. Edges follow the matrix row by row, existing ones only, so names need not be stored.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from eap_jax.graph import edge_mask
from experiments.report.results import CellResult

_DIGITS = 5


def edge_data(cells: Sequence[CellResult]) -> list[dict[str, Any]]:
    """One object a cell: name, layers, samples, unit and numbers base, rl, difference, low, high.

    A number times `unit` is the score. `low` and `high` end the interval of the difference; None
    where there is none. `not_measurable` holds the places in these lists of the edges whose scores
    say nothing.
    """
    return [_cell_data(cell) for cell in cells]


def _cell_data(cell: CellResult) -> dict[str, Any]:
    mask_WR = edge_mask(cell.num_layers)
    base_E, rl_E = cell.base_WR[mask_WR], cell.rl_WR[mask_WR]
    values = {"base": base_E, "rl": rl_E, "difference": rl_E - base_E}
    if cell.edge_low_WR is not None:
        values |= {"low": cell.edge_low_WR[mask_WR], "high": cell.edge_high_WR[mask_WR]}
    largest = max(float(np.abs(value_E).max()) for value_E in values.values()) or 1.0
    order_WR = np.cumsum(mask_WR).reshape(mask_WR.shape) - 1
    power = math.floor(math.log10(largest)) - _DIGITS + 1
    data: dict[str, Any] = {
        "name": cell.name, "layers": cell.num_layers, "samples": cell.num_samples,
        "unit": float(f"1e{power}"), "low": None, "high": None,
        "not_measurable": [int(order_WR[place]) for place in cell.not_measurable],
    }  # fmt: skip
    for name, value_E in values.items():
        data[name] = [_short(value, power) for value in value_E.tolist()]
    return data


def _short(value: float, power: int) -> float | int:
    """value / 10 ** power to five digits, a whole number as one."""
    mantissa, exponent = f"{value:.{_DIGITS - 1}e}".split("e")
    number = float(f"{mantissa}e{int(exponent) - power}")
    return int(number) if number.is_integer() else number
