"""What the report says of model and text: which makes a change, and when it cannot be asked."""

import dataclasses

from toy_study import toy_cell

from experiments.report.model_text_words import PART_LABELS, split_lines, texts_sentences
from experiments.statistics.model_text import LOSS, Effect, Split


def split(model, text, *, clear=("model", "text"), base=2.0):
    values = {"change": model + text, "model": model, "text": text, "interaction": 0.5}
    parts = {
        name: Effect(
            value=value,
            interval=(value - 1, value + 1),
            trend=("rises" if value > 0 else "falls") if name in clear else "unclear",
        )
        for name, value in values.items()
    }
    return Split(values={"base_on_base": base}, parts=parts)


def cell(**fields):
    return dataclasses.replace(toy_cell(), **fields)


def test_the_same_texts_leave_the_model_alone():
    assert texts_sentences([cell(identical_texts=1.0)]) == [
        "Base and rl have the same counted text in all 10 questions, so no change comes from another text."
    ]
    assert texts_sentences([cell()]) == [], "not known of an earlier program's run"
    several = [cell(identical_texts=1.0), cell(identical_texts=1.0, alpha=0.5)]
    (sentence,) = texts_sentences(several)
    assert sentence.startswith("In 2 of 2 comparisons base and rl have the same counted text in")


def test_each_metric_is_the_larger_clear_parts():
    splits = {
        "activation_intensity": split(-3, 1),
        "information_complexity": split(1, -2),
        "distribution_kurtosis": split(5, 2, clear=("text",)),
        "sample_diversity": split(5, 2, clear=()),
        "strength_entropy": split(4, 0, clear=("model",)),
    }
    begin = "The counted texts of base and rl differ in 4 of 10 questions"
    assert texts_sentences([cell(identical_texts=0.6, model_text=splits)]) == [
        f"{begin}; the model more than the text changes activation intensity and strength entropy, "
        "and the text more than the model changes information complexity and distribution kurtosis."
    ]
    unclear = {"sample_diversity": splits["sample_diversity"]}
    assert texts_sentences([cell(identical_texts=0.6, model_text=unclear)]) == [
        f"{begin}; neither the model nor the text changes a metric clearly."
    ]
    (sentence,) = texts_sentences([cell(identical_texts=0.6)])
    assert sentence == (
        f"{begin}, and were not scored by both models: a change may be the model's or the text's."
    )


def test_lines_have_the_parts_in_shares_of_bases_own_value():
    splits = {"distribution_kurtosis": split(-3, 1), LOSS: split(1, 1, base=0.0)}
    loss, kurtosis = split_lines([cell(identical_texts=0.6, model_text=splits)])
    assert list(PART_LABELS.values()) == ["Change", "Model", "Text", "Interaction"]
    assert (loss.label, kurtosis.label) == ("Loss, nats a token", "Distribution kurtosis")
    assert [part.share for part in kurtosis.parts] == [-1.0, -1.5, 0.5, 0.25]
    assert [part.value for part in kurtosis.parts] == [-2, -3, 1, 0.5]
    assert kurtosis.parts[1].interval == (-4, -2)
    assert all(part.share != part.share for part in loss.parts), "no share of zero"
    assert split_lines([cell(identical_texts=1.0)]) == []
