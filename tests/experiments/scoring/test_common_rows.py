"""Common rows are those of both files that the published filter keeps, joined by question."""

import random

import pytest

from experiments.errors import InputError
from experiments.responses.published_format import row_of
from experiments.scoring.common_rows import common_rows
from experiments.study.rule import Rule

RULE = Rule(alpha=0.3, delta=0.4, num_samples=5)


def fields_of(idx, draw, **changes):
    """One row with one prompt and answers of unlike lengths."""
    found = {"idx": idx, "question": f"What is {idx}?", "gt": str(idx)}
    for side in ("base", "rl"):
        found[f"{side}_prompt_tokens"] = [1, idx]
        found[f"{side}_answer_tokens"] = [draw.randrange(50) for _ in range(draw.randint(4, 20))]
    return found | changes


def kept(rows):
    """The published filter, written down again: idx of the rows that stay."""
    lengths = [(len(r["base_answer_tokens"]), len(r["rl_answer_tokens"])) for r in rows]
    mean = min(sum(one) / len(rows) for one in zip(*lengths, strict=True))
    return {
        row["idx"]
        for row, (base, rl) in zip(rows, lengths, strict=True)
        if int(0.5 * mean) <= (base + rl) / 2 <= int(1.5 * mean)
        and abs(base - rl) <= 0.4 * (base + rl) / 2
    }


def test_a_common_row_holds_the_controls_answer_and_the_arms():
    """More than are sampled, in the arm's order, and never the start's answer."""
    draw = random.Random(3)
    arm = [fields_of(idx, draw) for idx in range(0, 60)]
    control = [fields_of(idx, draw) for idx in range(59, 10, -1)]
    found = common_rows([row_of(row) for row in arm], [row_of(row) for row in control], RULE)
    expected = [row["idx"] for row in arm if row["idx"] in kept(arm) & kept(control)]
    assert len(expected) > RULE.num_samples
    assert [row.fields["idx"] for row in found] == expected
    arms = {row["idx"]: row for row in arm}
    controls = {row["idx"]: row for row in control}
    for row in found:
        idx = row.fields["idx"]
        assert list(row.rl.answer) == arms[idx]["rl_answer_tokens"]
        assert list(row.base.answer) == controls[idx]["rl_answer_tokens"]
        assert list(row.base.prompt) == controls[idx]["rl_prompt_tokens"]
        assert (row.fields["question"], row.fields["gt"]) == (f"What is {idx}?", str(idx))


def test_one_number_for_two_questions_and_nothing_in_common_are_errors():
    draw = random.Random(0)
    equal = {f"{side}_answer_tokens": [1, 2, 3] for side in ("base", "rl")}
    arm, control = ([row_of(fields_of(idx, draw, **equal))] for idx in (1, 2))
    with pytest.raises(InputError, match="no question is left that start, arm and control"):
        common_rows(arm, control, RULE)
    other = [row_of(fields_of(1, draw, **equal, question="Another?"))]
    with pytest.raises(InputError, match="idx 1: expected one question in the arm's and the"):
        common_rows(arm, other, RULE)
