"""A made-up chain of three checkpoints, for tests of what its report says."""

from experiments.report.chain import ChainResult, Compared
from experiments.report.changes import Change
from experiments.study.chains import find_chain

CHAIN = find_chain(["tulu3"])


def change(measure, trend="unclear", choice="0.1", view=None, everywhere=False, **fields) -> Change:
    """A metric in the published view unless another is given; accuracy and fidelity have none."""
    metric = measure not in ("accuracy", "fidelity")
    view = ("published" if metric else "") if view is None else view
    made = {
        "dataset": "math", "choice": "" if measure == "accuracy" else choice, "measure": measure,
        "label": measure, "view": view, "questions": 12, "base": 2.0, "rl": 1.0, "relative": -0.5,
        "low": -0.75, "high": -0.25, "trend": trend, "everywhere": everywhere,
    }  # fmt: skip
    return Change(**made | fields)


def made_chain(**comparisons) -> ChainResult:
    """Changes of `sft_dpo`, `dpo_rl` and `sft_rl`; one that is not given has failed."""
    places = {"sft_dpo": (0, 1), "dpo_rl": (1, 2), "sft_rl": (0, 2)}
    return ChainResult(
        chain=CHAIN,
        compared=[
            Compared(before=before, after=after, changes=comparisons[name])
            for name, (before, after) in places.items()
            if name in comparisons
        ],
    )
