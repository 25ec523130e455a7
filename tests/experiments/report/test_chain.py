"""A chain's measures, from saved files."""

import dataclasses

import numpy as np
import pytest
from saved_study import PAIR, save_answers, save_study
from toy_study import scores

from experiments.report.chain import chain_result
from experiments.report.gather import gather
from experiments.statistics.metrics import METRICS
from experiments.study.chains import find_chain

CHAIN = find_chain(["one/a", "one/b", "one/c"])
RIGHT = ([True, False, False, False], [True, True, False, False], [True, True, True, False])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Scores double from a to b and not again; the comparison of b and c has failed."""
    workdir, directories = tmp_path_factory.mktemp("chain"), {}
    first = scores(1, 12, seed=1)
    for places in ((0, 2), (0, 1)):  # in whatever order they were run
        key = CHAIN.pairs[places].key
        pair = dataclasses.replace(PAIR, key=key, series=key)
        directory = save_study(workdir, first, first * np.float32(2), pair=pair)
        for side, place in zip(("base", "rl"), places, strict=True):
            save_answers(directory, side, RIGHT[place])
        directories[places] = directory
    return directories, gather(list(directories.values())).cells


def test_every_comparison_has_its_own_measures_and_one_that_failed_is_named(saved):
    directories, cells = saved
    result = chain_result(CHAIN, directories, cells)
    assert [(one.before, one.after) for one in result.compared] == [(0, 1), (0, 2)]
    assert [one.is_step for one in result.compared] == [True, False]
    assert result.missing == [(1, 2)]
    assert result.cells == [(cells[0].dataset, cells[0].choice)]
    for one in result.compared:
        (intensity,) = [
            c for c in one.changes if (c.measure, c.view) == (METRICS[0].key, "published")
        ]
        assert intensity.relative == pytest.approx(1.0)


def test_each_models_accuracy_stands_once_whichever_side_it_was(saved):
    result = chain_result(CHAIN, *saved)
    ((dataset, models),) = result.accuracies().items()
    assert dataset == saved[1][0].dataset
    assert {place: model.share for place, model in models.items()} == {0: 0.25, 1: 0.5, 2: 0.75}
    assert all(model.low < model.share < model.high for model in models.values())
    assert {model.questions for model in models.values()} == {4}
