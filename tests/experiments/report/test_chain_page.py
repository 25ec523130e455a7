"""The table of a chain has a column a comparison and a line a measure and view."""

from made_chain import change, made_chain

from experiments.report.chain_page import Entry, chain_tables


def test_a_line_holds_one_measure_at_every_comparison_where_it_was_measured():
    accuracy = change("accuracy", "rises", base=0.25, rl=0.5, low=0.4, high=0.6)
    result = made_chain(
        sft_dpo=[accuracy, change("kurtosis", "falls", everywhere=True, questions=9)],
        dpo_rl=[
            change("kurtosis", view="exact"),
            change("kurtosis", "rises", "0.3", low=float("nan")),
        ],
    )
    one, other = chain_tables(result)
    assert (one.title, other.title) == ("math, alpha 0.1", "math, alpha 0.3")
    assert one.columns == ["sft → dpo", "dpo → rl"]
    lines = {(line.label, line.view): line.cells for line in one.lines}
    assert lines["questions that both answer correctly", ""] == [Entry(text="9"), None]
    assert lines["accuracy", ""] == [
        Entry(text="25.0 % → 50.0 %", interval="[40.0 %, 60.0 %]", trend="rises"), None,
    ]  # fmt: skip
    assert lines["kurtosis", "scores, as published"] == [
        Entry(text="-50.0 %", interval="[-75.0, -25.0]", trend="falls, in every view"), None,
    ]  # fmt: skip
    assert lines["kurtosis", "edges really cut"][0] is None
    (*_, last) = other.lines
    assert last.cells == [None, Entry(text="-50.0 %", interval="", trend="rises")]
