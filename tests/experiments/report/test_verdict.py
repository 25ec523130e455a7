"""Verdicts in words: what a reader is told follows from the numbers."""

import dataclasses

import numpy as np
import pytest
from toy_study import comparison, toy_cell, toy_study

from eap_jax.graph import edge_mask
from experiments.report.headline import is_online
from experiments.report.results import PairInfo
from experiments.report.verdict import agreement, verdicts
from experiments.statistics.compare import compare
from experiments.statistics.metrics import METRICS, TABLE_METRICS
from experiments.statistics.sensitivity import ONE_RANGE, OWN_RANGE, Sensitivity
from experiments.statistics.trend import disputed

IN_PAPER = [metric for metric in METRICS if metric.paper]
PAPER = (0.2, 0.3, -0.4, 0.1, 0.2)  # changes in the paper's directions, in the order of IN_PAPER


def cell_of(changes, *, spread=0.05, **fields):
    """A cell whose metrics change from 1 by `changes`, each interval +- `spread`."""
    found = {
        metric.key: comparison(metric.key, 1.0, 1.0 + change, spread)
        for metric, change in zip(IN_PAPER, changes, strict=True)
    }
    return dataclasses.replace(toy_cell(num_layers=2, samples=4, **fields), comparisons=found)


def verdict_of(cells, method="GRPO", **fields):
    pair = PairInfo(key="tiny_grpo", base="b", rl="r", method=method)
    (verdict,) = verdicts(toy_study(cells, pairs=[pair], **fields))
    return verdict


@pytest.mark.parametrize(
    ("method", "online"),
    [
        ("GRPO", True), ("PPO", True), ("online DPO", True), ("RLVR", True),
        ("iterative DPO", True), ("DPO", False), ("SFT", False), ("fine-tuning", False),
        ("not stated", None),
    ],
)  # fmt: skip
def test_methods_that_sample_while_they_train_are_online(method, online):
    assert is_online(method) is online


@pytest.mark.parametrize(
    ("changes", "method", "headline"),
    [
        (PAPER, "GRPO", "Yes: after GRPO the loss is more sensitive to the edges, their strengths "
         "are more varied, and fewer of them stand far above the rest, as the paper reports for "
         "online RL."),
        ((0.2, -0.3, 0.4, 0, 0), "PPO",
         "Partly: after PPO, 1 of the paper's 3 signs of online RL shows here, and 2 show the "
         "opposite."),
        ((0.2, 0.3, 0.4, 0, 0), "GRPO",
         "Partly: after GRPO, 2 of the paper's 3 signs of online RL show here, and 1 shows the "
         "opposite."),
        ((-0.2, -0.3, 0.4, 0, 0), "GRPO",
         "No: after GRPO, all 3 signs show the opposite of the paper's."),
        ((0.01, -0.3, 0.4, 0, 0), "GRPO",
         "No: after GRPO, none of the paper's 3 signs of online RL show here, and 2 show the "
         "opposite."),
        ((0.01, -0.02, 0.0, 0, 0), "GRPO", "Cannot tell: after GRPO, none of the paper's 3 signs of "
         "online RL clearly shows, nor does its opposite."),
        ((0.01, -0.02, 0.0, 0, 0), "not stated", "Cannot tell: after post-training, none of the "
         "paper's 3 signs of online RL clearly shows, nor does its opposite."),
        (PAPER, "DPO", "All 3 signs that the paper reports for online RL show here, although DPO "
         "does not train on the model's own fresh answers."),
        ((0.0, 0.3, 0.4, 0, 0), "DPO",
         "After DPO, 1 of the paper's 3 signs of online RL shows here, and 1 shows the opposite. "
         "The paper expects weak or inconsistent signs from training that is not online."),
        (PAPER, "not stated",
         "After post-training, 3 of the paper's 3 signs of online RL show here."),
    ],
)  # fmt: skip
def test_headline_counts_the_paper_s_signs_and_knows_the_method(changes, method, headline):
    assert verdict_of([cell_of(changes)], method).headline == headline


def test_each_finding_names_direction_size_and_interval():
    found = verdict_of([cell_of((0.2, -0.3, -0.4, 0.01, 0.2))]).findings
    assert [finding.status for finding in found] == [
        "as in the paper", "opposite to the paper", "as in the paper", "no clear change",
        "as in the paper",
    ]  # fmt: skip
    assert found[0].text == (
        "rises: +20.0 %, from 1.00 to 1.20 (difference 0.200, 95 % interval 0.150 to 0.250)"
    )
    assert found[1].text == (
        "falls: -30.0 %, from 1.00 to 0.700 (difference -0.300, 95 % interval -0.350 to -0.250)"
    )
    assert found[3].text == (
        "does not clearly change: +1.0 %, from 1.00 to 1.01 "
        "(difference 0.0100, 95 % interval -0.0400 to 0.0600)"
    )


def test_several_cells_are_counted_and_the_majority_decides():
    cells = [cell_of(PAPER, dataset="gsm8k"), cell_of(PAPER, dataset="math"),
             cell_of((-0.2, 0.0, 0.0, 0.1, 0.2), dataset="college_math")]  # fmt: skip
    found = verdict_of(cells).findings
    assert found[0].status == "as in the paper"
    assert found[0].text == "rises in 2, falls in 1 of 3 comparisons; +6.7 % on average"
    assert found[2].text == (
        "falls in 2, does not clearly change in 1 of 3 comparisons; -26.7 % on average"
    )
    halves = verdict_of([cells[0], cells[2]])
    assert [finding.status for finding in halves.findings[:3]] == ["mixed"] * 3
    assert halves.headline == (
        "Cannot tell: after GRPO, none of the paper's 3 signs of online RL clearly shows in most "
        "comparisons, nor does its opposite."
    )


TURNED = (0.2, 0.0, 0.53, 0.1, 0.2)  # the third sign rises, against a fall of 40 % in PAPER


def test_a_sign_that_turns_with_alpha_is_in_the_headline_and_counts_for_nothing():
    verdict = verdict_of([cell_of(TURNED, alpha=0.1), cell_of(PAPER, alpha=0.3)])
    assert verdict.headline == (
        "Partly: after GRPO, 1 of the paper's 3 signs of online RL shows in most comparisons. "
        "Distribution kurtosis rises by 53 % at alpha 0.1 and falls by 40 % at alpha 0.3."
    )
    assert [finding.status for finding in verdict.findings[:3]] == [
        "as in the paper", "mixed", "turns with alpha",
    ]  # fmt: skip
    assert verdict.findings[0].text == "rises by 20 % at alpha 0.1 and by 20 % at alpha 0.3"
    assert verdict.findings[1].text == (
        "does not clearly change at alpha 0.1 (+0 %) and rises by 30 % at alpha 0.3"
    )
    only = [cell_of((0, 0, change, 0, 0), alpha=alpha) for alpha, change in ((0.1, 1), (0.3, -1))]
    assert verdict_of(only).headline.startswith(
        "Cannot tell: after GRPO, none of the paper's 3 signs of online RL stands at every alpha, "
        "and 1 of them depends on alpha. Distribution kurtosis rises by 100 % at alpha 0.1"
    )


def test_cells_of_other_questions_are_no_ladder_of_alphas():
    cells = [cell_of(TURNED, alpha=0.1, dataset="math"), cell_of(PAPER, alpha=0.3)]
    assert verdict_of(cells).findings[2].status == "mixed"
    assert "alpha" not in verdict_of(cells).headline


def test_undefined_changes_and_missing_intervals_are_said_in_words():
    nan = float("nan")
    cell = cell_of(PAPER)
    first, second = METRICS[0].key, METRICS[1].key
    comparisons = cell.comparisons | {
        first: dataclasses.replace(cell.comparisons[first], relative=nan),
        second: dataclasses.replace(
            cell.comparisons[second],
            difference_interval=(nan, nan),
            relative_interval=(nan, nan),
        ),
    }
    found = verdict_of([dataclasses.replace(cell, comparisons=comparisons)]).findings
    assert found[0].text == "is not defined here"
    assert found[1].text == (
        "does not clearly change: +30.0 %, from 1.00 to 1.30 (difference 0.300, no interval)"
    )
    assert found[1].status == "no clear change"


def test_a_metric_that_was_not_measured_is_left_out():
    cell = cell_of(PAPER)
    only = {"sample_diversity": cell.comparisons["sample_diversity"]}
    verdict = verdict_of([dataclasses.replace(cell, comparisons=only)])
    assert [finding.metric.key for finding in verdict.findings] == ["sample_diversity"]
    assert verdict.headline == "The paper's three signs were not measured."


def test_agreement_needs_the_signed_rank_test_beside_the_interval():
    clear = comparison("activation_intensity", 1.0, 1.2, 0.05)
    assert agreement(clear, "rises") == "as in the paper"
    assert agreement(clear, "falls") == "opposite to the paper"
    assert agreement(dataclasses.replace(clear, wilcoxon_p=0.2), "rises") == "no clear change"
    assert agreement(dataclasses.replace(clear, effect_size=-0.5), "rises") == "no clear change"
    assert agreement(clear, None) == "not in the paper"


def test_views_that_contradict_each_other_are_said_to():
    """The interval finds a rise, the signed-rank test a fall in most questions."""
    cell = cell_of(PAPER)
    key = "information_complexity"
    against = dataclasses.replace(cell.comparisons[key], effect_size=-0.6, wilcoxon_p=1e-4)
    (_, found, *_) = verdict_of(
        [dataclasses.replace(cell, comparisons=cell.comparisons | {key: against})]
    ).findings
    assert found.status == "no clear change"
    assert found.text.startswith("does not clearly change: +30.0 %")
    assert found.text.endswith(
        "0.250 to 0.350), but question by question it falls (signed-rank p 1.00e-4)"
    )
    for harmless in ({"effect_size": 0.6}, {"wilcoxon_p": 0.3}, {"difference_interval": (-1, 1)}):
        assert not disputed(dataclasses.replace(against, **harmless))


@pytest.mark.parametrize(("samples", "said"), [(1, True), (5, True), (6, False)])
def test_fewer_than_six_questions_decide_nothing(samples, said):
    cell = cell_of(PAPER)
    comparisons = {
        key: dataclasses.replace(found, samples=samples) for key, found in cell.comparisons.items()
    }
    headline = verdict_of([dataclasses.replace(cell, comparisons=comparisons)]).headline
    assert headline.startswith(f"Too few questions to say: {samples}") is said


@pytest.mark.parametrize(("one_range", "said"), [((0.3, 0.2), True), ((0.2, 0.3), False)])
def test_a_sign_that_rests_on_the_histograms_range_is_a_caution(one_range, said):
    cell = cell_of(PAPER)
    rows = [
        Sensitivity(cell=cell.name, metric="information_complexity", choice=choice, base=a, rl=b)
        for choice, (a, b) in ((OWN_RANGE, (0.1, 0.2)), (ONE_RANGE, one_range))
    ]
    cautions = verdict_of([cell], sensitivities=rows).cautions
    assert any("depends on its histogram's range" in text for text in cautions) is said


def test_cautions_name_few_questions_and_failed_checks():
    few = verdict_of([cell_of(PAPER)])
    assert few.cautions == (
        "Only 4 questions in the smallest comparison: no intervals.",
        "A check of the run's soundness failed; see Health before you trust the rest.",
    )
    many = [dataclasses.replace(toy_cell(num_layers=1, samples=30))]
    assert verdict_of(many, health=()).cautions == ()


def test_pairs_come_in_the_study_s_order_and_only_with_cells():
    pairs = [PairInfo(key=key, base="b", rl="r", method="PPO") for key in ("z", "idle", "a")]
    cells = [cell_of(PAPER, pair="a"), cell_of(PAPER, pair="z")]
    assert [verdict.pair.key for verdict in verdicts(toy_study(cells, pairs=pairs))] == ["z", "a"]


def noise(samples, seed):
    """Scores of two sides from one heavy-tailed distribution: log-normal sizes, t with 3 degrees."""
    draw, mask_WR = np.random.default_rng(seed), edge_mask(2)
    typical_WR = draw.normal(size=mask_WR.shape) * np.exp(1.6 * draw.normal(size=mask_WR.shape))
    sizes_s = np.exp(1.5 * draw.normal(size=(2 * samples, 1, 1)))
    noise_sWR = draw.standard_t(3, size=(2 * samples, *mask_WR.shape))
    both_sWR = 1e-4 * mask_WR * sizes_s * (typical_WR + 0.7 * np.abs(typical_WR) * noise_sWR)
    return both_sWR[:samples], both_sWR[samples:]


@pytest.mark.parametrize("samples", [6, 10, 100])
def test_of_pure_noise_the_headline_cannot_tell(samples):
    """In 100, 94 and 94 of 100 such studies of 6, 10 and 100 questions; here at least 5 of 6."""
    said = []
    for seed in range(6):
        base_nWR, rl_nWR = noise(samples, seed)
        cell = dataclasses.replace(
            toy_cell(num_layers=2, samples=samples),
            base_nWR=base_nWR,
            rl_nWR=rl_nWR,
            comparisons=compare(base_nWR, rl_nWR, metrics=TABLE_METRICS),
        )
        said.append(verdict_of([cell]).headline.startswith("Cannot tell: after GRPO, none"))
    assert sum(said) >= 5
