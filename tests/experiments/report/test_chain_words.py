"""What changes along a chain: what stands in every view, at which step; every number in its files."""

import csv
import io
import math

from made_chain import change, made_chain

from experiments.report.chain_words import chain_csv, chain_headline, chain_json, chain_sentences


def test_the_headline_names_what_stands_from_first_to_last_and_where_else():
    falls = change("entropy", "falls", everywhere=True)
    result = made_chain(
        sft_dpo=[change("entropy", "rises", everywhere=True), change("intensity", "rises")],
        dpo_rl=[falls, change("intensity")],
        sft_rl=[falls, change("intensity", "rises", everywhere=True)],
    )
    assert chain_headline(result) == (
        "From sft to rl, in every view: entropy falls (also at dpo → rl) and intensity rises (at no "
        "single step)."
    )
    assert chain_headline(made_chain(sft_dpo=[falls], dpo_rl=[falls], sft_rl=[change("x")])) == (
        "From sft to rl no metric's change stands in every view."
    )
    assert chain_headline(made_chain(sft_dpo=[falls])) == "sft and rl were not compared."


def test_a_comparison_says_its_questions_its_accuracy_and_what_only_one_view_has():
    accuracy = change("accuracy", "rises", base=0.25, rl=0.5, questions=40)
    result = made_chain(
        sft_dpo=[
            accuracy,
            change("entropy", "falls", everywhere=True),
            change("kurtosis", "falls"),
            change("intensity"),
            change("intensity", "rises", view="exact"),
        ],
        dpo_rl=[change("entropy", "rises", "0.1", questions=7), change("entropy", "falls", "0.3")],
    )
    assert chain_sentences(result) == [
        (
            "sft → dpo",
            "Rests on 12 questions that both answer correctly. Accuracy rises: 25.0 to 50.0 % of 40 "
            "asked. In every view: entropy falls (alpha 0.1). Clear as published, but not in every "
            "view: kurtosis falls (alpha 0.1).",
        ),
        (
            "dpo → rl",
            "Rests on 7 to 12 questions that both answer correctly. No change stands in every view. "
            "Clear as published, but not in every view: entropy turns with alpha (rises at alpha 0.1, "
            "falls at alpha 0.3).",
        ),
        ("sft → rl", "Not compared; the run says why."),
    ]


def test_the_files_hold_every_number_in_full_precision():
    accuracy = change("accuracy", base=1 / 3, low=math.nan, high=math.inf, questions=40)
    stands = change("entropy", "falls", "0.1, delta 0.4", everywhere=True)
    result = made_chain(sft_dpo=[accuracy, stands], sft_rl=[change("entropy", view="exact")])
    one, two, three = csv.DictReader(io.StringIO(chain_csv(result)))
    assert (one["before"], one["after"], float(one["before_value"])) == ("sft", "dpo", 1 / 3)
    assert (one["low"], one["high"], one["alpha"], one["in_every_view"]) == ("", "", "", "")
    assert (two["alpha"], two["trend"], two["in_every_view"]) == ("0.1, delta 0.4", "falls", "yes")
    assert (three["after"], three["view"], three["in_every_view"]) == ("rl", "exact", "")
    data = chain_json(result)
    assert [model["checkpoint"] for model in data["models"]][2] == "allenai/Llama-3.1-Tulu-3-8B"
    assert data["models"][0]["accuracy"]["math"]["share"] == 1 / 3
    assert data["models"][2]["accuracy"] == {}, "its answers were not graded"
    assert [found["pair"] for found in data["comparisons"]] == ["tulu3_sft_dpo", "tulu3_sft_rl"]
    assert data["comparisons"][0]["method"] == "DPO"
    assert [len(found["changes"]) for found in data["comparisons"]] == [2, 1]
    assert data["not_compared"] == [["dpo", "rl"]]
    assert data["headline"] == chain_headline(result)
