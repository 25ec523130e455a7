"""Questions on which an arm and the control are compared: both were trained from one start.

A row of the arm's file pairs the start's answer with the arm's, a row of the control's file the same
start's with the control's. A question is common if all three answered it right and the rule of
selection keeps it in both files. The row made of it has the control as base and the arm as rl.
"""

import dataclasses
from collections.abc import Sequence

from experiments.errors import InputError
from experiments.responses.published_format import Row, row_of
from experiments.scoring.selection import select
from experiments.study.rule import Rule


def common_rows(arm: Sequence[Row], control: Sequence[Row], rule: Rule) -> list[Row]:
    """Rows of the arm (rl) against the control (base), in the order of the arm's file.

    Args:
      arm, control: rows of start and arm, and of start and control, all answered right.
      rule: of the selection; its alpha, seed and number of samples decide nothing here.

    Raises:
      InputError: no question is common, or one idx stands for two questions.
    """
    kept_arm, kept_control = (_kept(rows, rule) for rows in (arm, control))
    found = [
        _joined(row, kept_control[idx]) for idx, row in kept_arm.items() if idx in kept_control
    ]
    if not found:
        raise InputError(
            "selection: no question is left that start, arm and control answered correctly and that "
            f"the rule keeps for both: {len(kept_arm)} of the arm's and {len(kept_control)} of the "
            "control's were kept"
        )
    return found


def _kept(rows: Sequence[Row], rule: Rule) -> dict[int | str, Row]:
    """By idx: what the rule keeps before it draws a sample, in the given order."""
    rows = list(rows)
    every = dataclasses.replace(rule, num_samples=max(len(rows), 1))
    return {row.fields["idx"]: row for row in select(rows, every).rows}


def _joined(arm: Row, control: Row) -> Row:
    idx = arm.fields["idx"]
    questions = [row.fields.get("question") for row in (arm, control)]
    if questions[0] != questions[1]:
        raise InputError(
            f"idx {idx!r}: expected one question in the arm's and the control's rows, found "
            f"{questions[0]!r:.60} and {questions[1]!r:.60}; ask both models the same questions"
        )
    fields = {name: arm.fields[name] for name in ("idx", "question", "gt") if name in arm.fields}
    for side, response in (("base", control.rl), ("rl", arm.rl)):
        prompt, answer = list(response.prompt), list(response.answer)
        fields |= {f"{side}_prompt_tokens": prompt, f"{side}_answer_tokens": answer}
    return row_of(fields)
