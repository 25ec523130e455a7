"""Selection equals the published filter, truncation and sampling, written down a second time."""

import math
import random

import pytest
import toys

from experiments.errors import InputError
from experiments.responses.published_format import read_rows, row_of
from experiments.scoring.selection import select, truncate
from experiments.study.rule import Rule


def made_up_rows(count, seed, *, longest=60):
    """Rows with answer lengths of a wide spread; one in eight has prompts of two lengths."""
    draw = random.Random(seed)
    rows = []
    for idx in range(count):
        prompt = [draw.randrange(50) for _ in range(draw.randint(1, 9))]
        middle = draw.randint(1, longest)
        fields = {"idx": idx}
        for side in toys.SIDES:
            length = max(1, round(middle * draw.uniform(0.6, 1.5)))
            fields[f"{side}_prompt_tokens"] = list(prompt)
            fields[f"{side}_answer_tokens"] = [draw.randrange(50) for _ in range(length)]
        if draw.random() < 0.125:
            fields["rl_prompt_tokens"].append(3)
        rows.append(fields)
    return rows


def published(rows, alpha, beta, gamma, delta, limit):
    """REFERENCE's text, step by step: (T_cut, idx of the rows in order, counts after each step)."""
    mean_base = sum(len(row["base_answer_tokens"]) for row in rows) / len(rows)
    mean_rl = sum(len(row["rl_answer_tokens"]) for row in rows) / len(rows)
    t_bar = min(mean_base, mean_rl)
    t_cut, t_min, t_max = max(int(alpha * t_bar), 1), int(beta * t_bar), int(gamma * t_bar)
    counts, kept = [0, 0, 0], []
    for row in rows:
        if len(row["base_prompt_tokens"]) != len(row["rl_prompt_tokens"]):
            continue
        counts[0] += 1
        lengths = len(row["base_answer_tokens"]), len(row["rl_answer_tokens"])
        average = sum(lengths) / 2
        if average < t_min or average > t_max:
            continue
        counts[1] += 1
        if abs(lengths[0] - lengths[1]) / average > delta:
            continue
        counts[2] += 1
        kept.append(row)
    if len(kept) > limit:
        kept = random.Random(42).sample(kept, limit)
    return t_cut, [row["idx"] for row in kept], counts


@pytest.mark.parametrize("alpha", [0.001, 0.03, 0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("delta", [0.1, 0.5, 0.6])
@pytest.mark.parametrize("limit", [10, 100])
def test_rows_order_and_cut_are_the_published_ones(alpha, delta, limit):
    for seed in range(8):
        rows = made_up_rows(150, seed)
        cut, order, counts = published(rows, alpha, 0.5, 1.5, delta, limit)
        found = select(
            [row_of(row) for row in rows], Rule(alpha=alpha, delta=delta, num_samples=limit)
        )
        assert found.cut == cut
        assert [row.fields["idx"] for row in found.rows] == order
        assert [step.rows for step in found.steps[:4]] == [150, *counts]
        assert found.steps[-1].rows == len(order)
        assert (found.steps[-1].name == "sampled") == (counts[2] > limit)


@pytest.mark.parametrize(("beta", "gamma"), [(0.0, 9.0), (0.9, 1.1), (0.5, 1.0)])
def test_other_bounds_are_honoured(beta, gamma):
    rows = made_up_rows(200, 3)
    cut, order, _ = published(rows, 0.3, beta, gamma, 0.6, 100)
    rule = Rule(alpha=0.3, beta=beta, gamma=gamma, delta=0.6)
    found = select([row_of(row) for row in rows], rule)
    assert (found.cut, [row.fields["idx"] for row in found.rows]) == (cut, order)


def test_another_seed_draws_other_rows():
    rows = [row_of(row) for row in made_up_rows(150, 0)]
    drawn = {seed: select(rows, Rule(alpha=0.3, num_samples=20, seed=seed)) for seed in (42, 43)}
    kept = select(rows, Rule(alpha=0.3, num_samples=10**6)).rows
    assert drawn[43].rows == random.Random(43).sample(kept, 20)
    assert drawn[42].rows != drawn[43].rows


@pytest.mark.parametrize("series", toys.SERIES)
@pytest.mark.parametrize("alpha", toys.ALPHAS)
def test_golden_selections_have_the_published_number_of_samples(series, alpha):
    rows = read_rows(toys.GOLDEN / "responses" / series / "math" / "all_correct.jsonl")
    found = select(rows, Rule(alpha=alpha))
    for side in toys.SIDES:
        expected = toys.golden_texts(series, side, alpha)
        assert len(expected) == len(toys.golden_scores(series, side, alpha))
        texts = [truncate(row, side, found.cut) for row in found.rows]
        assert [text.targets for text in texts] == [text.answer for text in expected]
        assert [text.tokens for text in texts] == [t.prompt + t.answer[:-1] for t in expected]


def test_a_text_is_the_prompt_and_all_but_the_last_counted_token():
    fields = {
        "idx": 0, "base_prompt_tokens": [1, 2], "base_answer_tokens": [3, 4, 5, 6],
        "rl_prompt_tokens": [1, 2], "rl_answer_tokens": [7, 8],
    }  # fmt: skip
    row = row_of(fields)
    assert truncate(row, "base", 3).tokens == (1, 2, 3, 4)
    assert truncate(row, "base", 3).targets == (3, 4, 5)
    assert truncate(row, "base", 1).tokens == (1, 2)
    assert truncate(row, "rl", 3).tokens == (1, 2, 7), "a shorter answer counts whole"
    assert truncate(row, "rl", 3).targets == (7, 8)


def test_boundaries_belong_to_the_selection():
    """Average at T_min and T_max, difference at delta: all kept, as `<=` says."""

    def row(idx, base, rl):
        fields = {"idx": idx, "base_answer_tokens": [1] * base, "rl_answer_tokens": [1] * rl}
        return row_of(fields | {"base_prompt_tokens": [1], "rl_prompt_tokens": [1]})

    # Means 10 and 10, so averages from 5 to 15 count; 3 of 5 is 0.6 of the mean of 5.
    rows = [
        row(0, 5, 5),
        row(1, 15, 15),
        row(2, 4, 5),
        row(3, 16, 15),
        row(4, 13, 7),
        row(5, 7, 13),
    ]
    found = select(rows, Rule(alpha=0.3, delta=0.6))
    assert [r.fields["idx"] for r in found.rows] == [0, 1, 4, 5]
    found = select(rows, Rule(alpha=0.3, delta=0.59))
    assert [r.fields["idx"] for r in found.rows] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "step", "before"),
    [
        ({"rl_prompt_tokens": [1, 1]}, "equal prompts", 2),
        ({"rl_answer_tokens": [1] * 30}, "similar length", 2),
    ],
)
def test_no_row_left_names_the_step_that_took_the_last(changes, step, before):
    fields = {
        "base_prompt_tokens": [1], "base_answer_tokens": [1] * 10,
        "rl_prompt_tokens": [1], "rl_answer_tokens": [1] * 10,
    }  # fmt: skip
    rows = [row_of(fields | changes | {"idx": idx}) for idx in range(2)]
    with pytest.raises(InputError) as error:
        select(rows, Rule(alpha=0.3, gamma=3.0))
    assert f"no row is left: the step '{step}'" in str(error.value)
    assert str(error.value).endswith(f"removed the last {before}")


def test_no_row_at_all_says_so():
    with pytest.raises(InputError, match="no question was answered correctly by both models"):
        select([], Rule(alpha=0.3))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.01}, "alpha"),
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"beta": -0.1}, "beta"),
        ({"beta": 2.0}, "beta and gamma"),
        ({"beta": math.nan}, "beta"),
        ({"gamma": math.inf}, "gamma"),
        ({"gamma": math.nan}, "gamma"),
        ({"delta": -0.1}, "delta"),
        ({"delta": math.nan}, "delta"),
        ({"num_samples": 0}, "num_samples"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, named):
    with pytest.raises(InputError, match=named):
        Rule(**({"alpha": 0.3} | settings))


def test_texts_are_the_same_where_prompt_and_counted_tokens_are():
    """Answers of 10 tokens, T_cut 3 and 6: the last four rows differ in the prompt, at token 2, at
    token 5, and beyond what is counted."""
    rows = []
    for idx, (place, token) in enumerate([(None, 0), ("prompt", 0), (1, 0), (4, 0), (9, 0)]):
        fields = {"idx": idx}
        for side in toys.SIDES:
            prompt, answer = [1, 2, 3], list(range(10, 20))
            if side == "rl" and place == "prompt":
                prompt[1] = token
            elif side == "rl" and place is not None:
                answer[place] = token
            fields |= {f"{side}_prompt_tokens": prompt, f"{side}_answer_tokens": answer}
        rows.append(row_of(fields))
    short, long = (select(rows, Rule(alpha=alpha)) for alpha in (0.3, 0.6))
    assert (short.cut, short.differing, short.identical_texts) == (3, [1, 2], 0.6)
    assert (long.cut, long.differing) == (6, [1, 2, 3])
    assert long.identical_texts == pytest.approx(0.4)


def same_row(idx, **changes):
    fields = {
        f"{side}_{part}_tokens": [1] * 10 for side in toys.SIDES for part in ("prompt", "answer")
    }
    return row_of(fields | changes | {"idx": idx})


def test_as_many_rows_as_are_asked_for_keep_their_order():
    """The published program draws only from more than N; a draw of N of N would change the order."""
    rows = [same_row(idx) for idx in range(20)]
    found = select(rows, Rule(alpha=0.3, num_samples=20))
    assert [row.fields["idx"] for row in found.rows] == list(range(20))
    assert [step.name for step in found.steps][-1] == "similar length"
    fewer = select(rows, Rule(alpha=0.3, num_samples=19))
    assert fewer.rows == random.Random(42).sample(rows, 19)


def test_the_last_rows_are_counted_before_the_step_that_took_them():
    """Of 3 rows one leaves for its prompts; the other two for their lengths."""
    rows = [same_row(0, rl_prompt_tokens=[1])]
    rows += [same_row(idx, rl_answer_tokens=[1] * 30) for idx in (1, 2)]
    with pytest.raises(InputError, match=r"step 'similar length' .* removed the last 2$"):
        select(rows, Rule(alpha=0.3, gamma=3.0))
