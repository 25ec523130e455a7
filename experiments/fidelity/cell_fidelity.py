"""fidelity.json of one cell: agreement of its saved scores with its saved effects, side by side."""

from typing import Any

from experiments import store
from experiments.errors import InputError
from experiments.fidelity.agreement import agreement
from experiments.fidelity.effects import effects_path
from experiments.scoring.cells import Cell, results_path
from experiments.study.opened import OpenStudy
from experiments.study.pairs import SIDES


def measure_fidelity(opened: OpenStudy, cell: Cell) -> dict[str, Any] | None:
    """Write a cell's fidelity.json; returns what it holds, None where no edge was cut.

    Raises:
      InputError: an effects file is broken or not of this cell.
    """
    if not all(effects_path(cell, side).exists() for side in SIDES):
        return None
    found = {}
    for side in SIDES:
        scores_nWR = store.read_results(results_path(opened, cell, side))
        effects = store.read_effects(effects_path(cell, side), scores_nWR.shape)
        try:
            found[side] = agreement(
                scores_nWR[effects.rows_m],
                effects.effects_mWR,
                estimator=opened.study.estimator,
            )
        except ValueError as error:
            raise InputError(f"{effects_path(cell, side)}: {error}") from None
    store.write_json(cell.directory / "fidelity.json", found)
    return found


def fidelity_line(found: dict[str, Any]) -> str:
    """One line for the terminal: how well scores predict effects."""
    sides = ", ".join(
        f"{side} Pearson {values['pearson']:.2f}, Spearman {values['spearman']:.2f}, "
        f"signs {100 * values['sign']:.0f} %"
        for side, values in found.items()
    )
    return f"scores against exact effects: {sides}"
