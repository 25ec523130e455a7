"""One made-up measure of one snapshot, for tests of what changes first along a training."""

from experiments.report.along import Point


def point(step, measure, trend="unclear", choice="", dataset="math", view=None, **changes) -> Point:
    """A metric in the published view unless another is given; accuracy and fidelity have none."""
    metric = measure not in ("accuracy", "fidelity")
    view = ("published" if metric else "") if view is None else view
    fields = {
        "step": step, "dataset": dataset, "choice": choice, "measure": measure, "label": measure,
        "view": view, "questions": 12, "start": 2.0, "snapshot": 1.0, "relative": -0.5, "low": -0.75,
        "high": -0.25, "trend": trend,
    }  # fmt: skip
    return Point(**fields | changes)
