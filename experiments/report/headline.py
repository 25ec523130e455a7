"""The headline of a pair: which of the paper's signs of online RL it shows."""

from collections.abc import Mapping, Sequence
from typing import Literal

from experiments.report.results import CellResult

Status = Literal[
    "as in the paper", "opposite to the paper", "turns with the view", "not in every view",
    "turns with alpha",
    "no clear change", "mixed", "not in the paper",
]  # fmt: skip
# With fewer questions the two-sided signed-rank test cannot reach p < 0.05: its smallest p of n
# questions is 2 / 2^n.
_TESTABLE = 6
BY_SUPPORT: Mapping[str, Status] = {
    "turns": "turns with the view",
    "unclear elsewhere": "not in every view",
}
_STANDS = {"the view": "in every view", "alpha": "at every alpha"}
_DEPEND = {True: "depends", False: "depend"}


def headline(method: str, signs: Sequence[Status], cells: Sequence[CellResult]) -> str:
    """One sentence: which of the paper's signs a pair shows, or that it cannot be told.

    Args:
      method: how the pair was trained.
      signs: how each of the paper's signs stands in it.
      cells: its comparisons.
    """
    shown = sum(sign == "as in the paper" for sign in signs)
    against = sum(sign == "opposite to the paper" for sign in signs)
    total = len(signs)
    if total == 0:
        return "The paper's three signs were not measured."
    most = max(found.samples for cell in cells for found in cell.comparisons.values())
    if most < _TESTABLE:
        return (
            f"Too few questions to say: {most}, and no test of fewer than {_TESTABLE} can decide."
        )
    count = f"{shown or 'none'} of the paper's {total} signs of online RL"
    count += " shows " if shown == 1 else " show "
    several = len(cells) > 1
    count += "in most comparisons" if several else "here"
    if against and against < total:
        count += f", and {against} {'shows' if against == 1 else 'show'} the opposite"
    known = "post-training" if method == "not stated" else method
    doubtful = {
        "the view": sum(sign in BY_SUPPORT.values() for sign in signs),
        "alpha": sum(sign == "turns with alpha" for sign in signs),
    }
    if not (shown or against or any(doubtful.values())):
        where = " in most comparisons" if several else ""
        return (
            f"Cannot tell: after {known}, none of the paper's {total} signs of online RL clearly "
            f"shows{where}, nor does its opposite."
        )
    online = is_online(method)
    if online is None:
        return f"After {known}, {count}."
    if online:
        if shown == total:
            return (
                f"Yes: after {method} the loss is more sensitive to the edges, their strengths are "
                "more varied, and fewer of them stand far above the rest, as the paper reports for "
                "online RL."
            )
        if shown:
            return f"Partly: after {method}, {count}."
        if against == total:
            return f"No: after {method}, all {total} signs show the opposite of the paper's."
        if any(doubtful.values()):
            stands = " and ".join(_STANDS[what] for what, found in doubtful.items() if found)
            them = sum(doubtful.values())
            return (
                f"Cannot tell: after {method}, none of the paper's {total} signs of online RL stands "
                f"{stands}, and {them} of them {_DEPEND[them == 1]} on "
                f"{' or '.join(what for what, found in doubtful.items() if found)}."
            )
        return f"No: after {method}, {count}."
    if shown == total:
        return (
            f"All {total} signs that the paper reports for online RL show here, although {method} "
            "does not train on the model's own fresh answers."
        )
    return (
        f"After {method}, {count}. The paper expects weak or inconsistent signs from training "
        "that is not online."
    )


def is_online(method: str) -> bool | None:
    """Whether a training method samples from the model while it trains; None if not known."""
    words = method.lower()
    if any(word in words for word in ("online", "iterative", "grpo", "ppo", "reinforce", "rlvr")):
        return True
    return False if any(word in words for word in ("dpo", "sft", "fine-tun")) else None
