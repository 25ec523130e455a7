"""A cell is scored with one estimator, which its settings name."""

import dataclasses
import json
import math

import pytest
import toys
from family_toys import family_folder
from hf_folder import write_toy
from saved_study import rows

from converters.hf_config import read_config
from eap_jax.attribution import attribute_prefixes
from eap_jax.metrics import column_sum_residual
from eap_jax.rope import RopeScaling
from eap_jax.sharding import make_mesh
from experiments.errors import InputError
from experiments.scoring import cells
from experiments.scoring.selection import truncate
from experiments.store import read_results
from experiments.study.opened import OpenStudy
from experiments.study.pairs import pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

TOY = toys.ZOO["window 5 above the first layer"]
RULE = Rule(alpha=0.3)


def opened(workdir, **settings) -> OpenStudy:
    study = Study(
        pair=pair_of("a", "b", "toy"),
        workdir=workdir,
        datasets=("math",),
        rules=(RULE,),
        **settings,
    )
    return OpenStudy(
        study=study,
        checkpoints=dict.fromkeys(toys.SIDES, workdir / "model"),
        configs=dict.fromkeys(toys.SIDES, TOY.config),
        hashes={},
        answer_dtypes=dict.fromkeys(toys.SIDES, "float32"),
        mesh=make_mesh(""),
    )


def unsaid(_: str) -> None:
    """The funnel is not looked at here."""


def test_a_cell_is_scored_with_the_studys_estimator_and_no_other_goes_on_with_it(tmp_path):
    params = toys.random_params(TOY.config)
    write_toy(tmp_path / "model", TOY, params)
    study = opened(tmp_path, estimator="branch")
    cell = cells.plan_cell(study, "math", RULE, rows(3), unsaid)
    cells.score_cells(study, [cell], "base")
    saved = read_results(cells.results_path(study, cell, "base"))
    for row, matrix_WR in zip(cell.selection.rows, saved, strict=True):
        counted = truncate(row, "base", cell.selection.cut)
        first = len(counted.tokens) - len(counted.targets) + 1
        text = toys.Text(prompt=counted.tokens[:first], answer=counted.targets)
        batch = toys.batch_of([text])
        (expected,) = attribute_prefixes(
            params, batch, (batch.weights_BJ,), lengths=(batch.tokens_BT.shape[1],),
            config=TOY.config, estimator="branch",
        )  # fmt: skip
        assert toys.relative(matrix_WR, expected.scores_BWR[0]) <= 1e-5
    facts = json.loads((cell.directory / "losses_base.json").read_text())
    assert facts["health"] is None, "columns of these scores need not cancel out"
    assert math.isfinite(sum(facts["losses"]))
    other = dataclasses.replace(study, study=dataclasses.replace(study.study, estimator="eap"))
    with pytest.raises(InputError, match="estimator: expected 'eap', found 'branch'"):
        cells.plan_cell(other, "math", RULE, rows(3), unsaid)


def test_health_leaves_out_what_a_model_reads_without_a_norm_and_says_so(tmp_path, torch):
    """OLMo 2: its MLP's columns do not add up to zero, all others do."""
    family_folder("olmo2", tmp_path / "model")
    config = read_config(tmp_path / "model")
    study = dataclasses.replace(
        opened(tmp_path, estimator="eap"), configs=dict.fromkeys(toys.SIDES, config)
    )
    cell = cells.plan_cell(study, "math", RULE, rows(3), unsaid)
    cells.score_cells(study, [cell], "base")
    facts = json.loads((cell.directory / "losses_base.json").read_text())
    assert facts["health"] < 1e-3
    assert facts["health_without"] == ["mlp"]
    saved_nWR = read_results(cells.results_path(study, cell, "base"))
    assert column_sum_residual(saved_nWR) > 10 * facts["health"]


def test_a_text_beyond_the_original_context_is_refused_before_any_work(tmp_path):
    study = opened(tmp_path, estimator="eap")
    scaling = RopeScaling(kind="dynamic", factor=2.0, original_context=4)
    config = dataclasses.replace(TOY.config, rope_scaling=scaling)
    study = dataclasses.replace(study, configs=dict.fromkeys(toys.SIDES, config))
    with pytest.raises(InputError, match="alpha .*base: row .*at most 4 tokens.*depend on a text"):
        cells.plan_cell(study, "math", RULE, rows(3), unsaid)
