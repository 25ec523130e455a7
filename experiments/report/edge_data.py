"""The edge matrix as compact JSON for the report's explorer.

Scores become whole multiples of a cell's unit, a millionth of its largest number, so most take two
to five characters; edges.csv has them in full. Edges follow the matrix row by row, existing ones
only, so names need not be stored.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eap_jax.graph import edge_mask
from experiments.report.results import CellResult

_STEPS = 1_000_000


def edge_data(cells: Sequence[CellResult]) -> list[dict[str, Any]]:
    """One object a cell: name, layers, samples, unit and whole numbers base, rl, low, high.

    `low` and `high` end the interval of the difference; None where there is none.
    """
    return [_cell_data(cell) for cell in cells]


def _cell_data(cell: CellResult) -> dict[str, Any]:
    mask_WR = edge_mask(cell.num_layers)
    values = {
        "base": cell.base_WR[mask_WR],
        "rl": cell.rl_WR[mask_WR],
    }
    if cell.edge_low_WR is not None:
        values |= {"low": cell.edge_low_WR[mask_WR], "high": cell.edge_high_WR[mask_WR]}
    largest = max(float(np.abs(value_E).max()) for value_E in values.values())
    unit = largest / _STEPS or 1.0
    data: dict[str, Any] = {
        "name": cell.name, "layers": cell.num_layers, "samples": cell.num_samples, "unit": unit,
        "low": None, "high": None,
    }  # fmt: skip
    for name, value_E in values.items():
        data[name] = np.rint(value_E / unit).astype(int).tolist()
    return data
