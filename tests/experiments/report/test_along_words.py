"""Which measure changes first, in one sentence, and every point in along.csv and along.json."""

import csv
import io
import math

from along_point import point

from experiments.report.along_words import along_csv, along_json, first_change, later_changes


def test_one_measure_alone_is_first_and_says_by_how_much():
    points = [
        point(8, "accuracy"), point(8, "intensity", "falls", "0.1"), point(16, "accuracy", "rises"),
    ]  # fmt: skip
    assert first_change(points) == "Intensity changes first: at step 8 it falls by 50 %."
    assert later_changes(points).startswith("Clear later: accuracy (step 16). ")


def test_the_first_step_counts_as_a_number_and_in_any_order():
    points = [point(10, "accuracy", "rises"), point(9, "intensity", "falls", "0.1")]
    for given in (points, points[::-1]):
        assert first_change(given).startswith("Intensity changes first: at step 9 it falls")


def test_several_at_one_step_cannot_be_told_apart():
    two = [point(8, "accuracy", "rises"), point(8, "fidelity", "falls")]
    assert "accuracy and fidelity have both changed clearly by step 8" in first_change(two)
    points = [
        point(8, "accuracy", "rises"), point(8, "fidelity", "falls"),
        point(8, "intensity", "falls", "0.1"), point(16, "kurtosis", "falls", "0.1"),
    ]  # fmt: skip
    assert first_change(points) == (
        "Cannot tell what changes first: accuracy, fidelity and intensity have all changed clearly "
        "by step 8, the first of 2 snapshots."
    )
    late = [point(4, "accuracy"), point(4, "intensity", choice="0.1"), *points]
    assert first_change(late).endswith("by step 8, the first of 3 snapshots where anything has.")


def test_nothing_clear_or_only_in_another_view_is_cannot_tell():
    points = [point(8, "intensity"), point(8, "intensity", "rises", view="exact")]
    assert first_change(points) == (
        "Cannot tell what changes first: no measure changes clearly at any of 1 snapshot."
    )
    assert later_changes(points) == "At step 8 no metric's change stands in every view."


def test_alphas_and_datasets_are_named_where_there_are_several():
    points = [
        point(8, "intensity", "falls", "0.1"), point(8, "intensity", "rises", "0.3", relative=0.25),
        point(8, "accuracy", dataset="gsm8k"),
    ]  # fmt: skip
    assert first_change(points) == (
        "Intensity (math) changes first: at step 8 it falls by 50 % (alpha 0.1); rises by 25 % "
        "(alpha 0.3)."
    )


def test_a_change_stands_from_the_step_on_after_which_every_view_keeps_its_sign():
    def standing(*trends):
        found = [
            point(step, "kurtosis", trend, "0.1", everywhere=trend != "unclear")
            for step, trend in zip((8, 16, 24), trends, strict=True)
        ]
        return later_changes(found).split("At step 24")[1]

    assert standing("falls", "falls", "falls") == ", in every view: kurtosis (since step 8)."
    assert standing("falls", "unclear", "falls") == ", in every view: kurtosis (since step 24)."
    assert standing("rises", "falls", "falls") == ", in every view: kurtosis (since step 16)."
    assert standing("falls", "falls", "unclear") == " no metric's change stands in every view."


def test_the_files_hold_every_point_in_full_precision():
    points = [
        point(8, "accuracy", start=1 / 3, low=math.nan, high=math.inf),
        point(16, "intensity", "falls", "0.1, delta 0.4", view="exact"),
    ]
    one, two = csv.DictReader(io.StringIO(along_csv(points)))
    assert float(one["start"]) == 1 / 3
    assert (one["low"], one["high"], one["alpha"]) == ("", "", "")
    assert (two["step"], two["alpha"], two["view"]) == ("16", "0.1, delta 0.4", "exact")
    assert (two["trend"], two["questions"]) == ("falls", "12")
    data = along_json("mine", [*points, point(16, "intensity", "falls", "0.1")])
    assert (data["along"], data["steps"]) == ("mine", [8, 16])
    assert data["first"].startswith("Intensity changes first: at step 16")
    (first,) = data["first_changes"]
    assert (first["measure"], first["step"], first["alpha"]) == ("intensity", 16, "0.1")
    assert len(data["points"]) == 3
