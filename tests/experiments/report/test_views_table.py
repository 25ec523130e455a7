"""views.csv has the contract's columns and one line a cell, metric and view."""

import csv
import dataclasses
import io
import math

from toy_study import toy_cell

from experiments.report.views_table import views_csv
from experiments.statistics.views import View


def test_lines_hold_full_precision_and_nothing_where_not_defined():
    rows = [
        View(view=name, metric="kurtosis", base=1 / 3, rl=2.0, relative=5.0, low=low, high=7.0,
             trend="rises", samples=9)
        for name, low in (("published", 4.5), ("exact", math.nan))
    ]  # fmt: skip
    text = views_csv([dataclasses.replace(toy_cell(), views=rows), toy_cell(alpha=0.1)])
    first = text.splitlines()[0]
    assert first == "pair,dataset,alpha,metric,view,base,rl,relative,low,high,trend"
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["view"] for line in lines] == ["published", "exact"]
    assert [line["low"] for line in lines] == ["4.5", ""]
    assert float(lines[0]["base"]) == 1 / 3
