"""Made-up studies for tests of figures, tables and the report: scores, rows, intervals.

The scores look like real ones: heavy-tailed over edges, alike between samples, columns that sum to
zero. Statistics are computed here from their definitions, so that they can be oracles.
"""

import numpy as np
import scipy.stats

from eap_jax.graph import edge_mask
from experiments.fidelity.rankings import circuits_of
from experiments.fidelity.recovery import summary
from experiments.report.results import (
    Accuracy,
    CellResult,
    HealthFigure,
    PairInfo,
    StudyResult,
)
from experiments.scoring.selection import Step
from experiments.statistics.compare import Comparison
from experiments.statistics.metrics import METRICS, FreeChoices
from experiments.statistics.sensitivity import Sensitivity

HOSTILE = """<script>alert("x")</script> & 'quoted' </textarea> \u2028 {{ 7*7 }} <img src=x>"""


def comparison(metric: str, base: float, rl: float, spread: float) -> Comparison:
    """A comparison whose difference has the interval difference +- spread."""
    difference = rl - base
    return Comparison(
        metric=metric,
        base=base,
        rl=rl,
        difference=difference,
        relative=difference / abs(base),
        base_interval=(base - spread, base + spread),
        rl_interval=(rl - spread, rl + spread),
        difference_interval=(difference - spread, difference + spread),
        relative_interval=((difference - spread) / abs(base), (difference + spread) / abs(base)),
        wilcoxon_p=0.01 if abs(difference) > spread else 0.4,
        sign_p=0.02 if abs(difference) > spread else 0.6,
        effect_size=0.5 * np.sign(difference),
        samples=10,
    )


def scores(num_layers: int, samples: int, seed: int, gain: float = 1.0) -> np.ndarray:
    """[n, 1+2L, 4L+1] float32 with zero column sums and zeros where no edge is."""
    draw = np.random.default_rng(seed)
    mask_WR = edge_mask(num_layers)
    typical_WR = draw.normal(size=mask_WR.shape) * np.exp(1.6 * draw.normal(size=mask_WR.shape))
    noise_nWR = draw.normal(size=(samples, *mask_WR.shape)) * np.abs(typical_WR) * 0.7
    found_nWR = 1e-4 * gain * (typical_WR + noise_nWR) * mask_WR
    found_nWR -= found_nWR.sum(axis=1, keepdims=True) / mask_WR.sum(axis=0) * mask_WR
    return found_nWR.astype(np.float32)


def toy_cell(
    *,
    pair: str = "tiny_grpo",
    dataset: str = "arithmetic",
    alpha: float = 0.3,
    num_layers: int = 4,
    samples: int = 10,
    seed: int = 0,
    decode=None,
    question: str = "What is 2 + 3?",
) -> CellResult:
    """A cell in which the second model's scores are larger and rather different."""
    draw = np.random.default_rng(seed + 1)
    base_nWR = scores(num_layers, samples, seed)
    rl_nWR = 1.2 * base_nWR + 0.4 * scores(num_layers, samples, seed + 100)
    found = {}
    for metric in METRICS:
        base, rl = (metric.value(side_nWR, FreeChoices()) for side_nWR in (base_nWR, rl_nWR))
        found[metric.key] = comparison(metric.key, base, rl, 0.05 * abs(base))
    difference_nWR = (rl_nWR - base_nWR).astype(np.float64)
    error_WR = difference_nWR.std(axis=0, ddof=1) / np.sqrt(samples)
    margin_WR = scipy.stats.t.ppf(0.975, samples - 1) * error_WR
    rows = []
    for index in range(samples):
        row = {"idx": index, "question": question, "gt": "5", "solution": None}
        for side in ("base", "rl"):
            row[f"{side}_prompt_tokens"] = [int(t) for t in draw.integers(0, 90, 8)]
            length = int(draw.integers(6, 40))
            row[f"{side}_answer_tokens"] = [int(t) for t in draw.integers(0, 90, length)]
        rows.append(row)
    return CellResult(
        pair=pair,
        dataset=dataset,
        alpha=alpha,
        base_nWR=base_nWR,
        rl_nWR=rl_nWR,
        rows=rows,
        t_cut=7,
        funnel=(
            Step(name="questions", rows=6 * samples, reason="the whole question set"),
            Step(name="both right", rows=3 * samples + 1, reason="both models answered correctly"),
            Step(name="equal prompts", rows=3 * samples + 1, reason="prompts have as many tokens"),
            Step(
                name="similar length", rows=samples, reason="answer lengths differ by at most 0.5"
            ),
        ),
        base_losses_n=draw.gamma(2.0, 0.1, samples),
        rl_losses_n=draw.gamma(2.0, 0.08, samples),
        comparisons=found,
        edge_low_WR=difference_nWR.mean(axis=0) - margin_WR,
        edge_high_WR=difference_nWR.mean(axis=0) + margin_WR,
        published={"activation_intensity": (1.10e-3, 1.31e-3)} if alpha == 0.1 else {},
        decode=decode,
    )


def made_faithfulness(cell: CellResult) -> dict:
    """faithfulness.json of a cell, for made-up losses of three samples that rise with what is cut."""
    found = {}
    means = {"base": cell.base_WR, "rl": cell.rl_WR}
    edges = edge_mask(cell.num_layers).sum()
    for side, other in (("base", "rl"), ("rl", "base")):
        circuits = circuits_of(means[side], means[other], 0)
        draw = np.random.default_rng(5)
        losses = {
            kept_WR.tobytes(): 4 - 3 * kept_WR.sum() / edges + draw.normal(size=3) / 4
            for kept_WR in circuits.different
        }
        by_mean = {name: losses_m / 2 + 1 for name, losses_m in losses.items()}
        found[side] = {"estimator": "eap", "rows": [0, 1, 2]} | summary(circuits, losses, 0)
        found[side]["mean"] = summary(circuits, by_mean, 1)
    return found


def letters(tokens) -> str:
    """Token ids as printable text, one character a token."""
    return "".join(chr(33 + token) for token in tokens)


def toy_study(cells=None, **fields) -> StudyResult:
    """A study of given cells; every name that a user could choose is hostile."""
    cells = cells or [toy_cell(decode=letters, question=HOSTILE)]
    pairs = {cell.pair: PairInfo(key=cell.pair, base="start", rl="grown <b>", method="GRPO")
             for cell in cells}  # fmt: skip
    first = cells[0]
    defaults = {
        "pairs": list(pairs.values()),
        "cells": cells,
        "command": f"python -m experiments.run --responses={HOSTILE}",
        "versions": {"jax": "0.10.2", "numpy": "2.4.0", "eap-jax": "0.1.0"},
        "hashes": {"base checkpoint": "0123abcd" * 8, "responses": "feed" * 16},
        "settings": {"device": "1 x cpu", "numerics": "float32"},
        "health": [
            HealthFigure(
                name="column sums, base", value="2.1e-06", expected="below 1e-4", sound=True
            ),
            HealthFigure(
                name="column sums, rl", value="3.1e-03", expected="below 1e-4", sound=False
            ),
            HealthFigure(name="time", value="12 s", expected="no bar"),
        ],
        "accuracies": [
            Accuracy(
                pair=first.pair,
                dataset=first.dataset,
                side=side,
                right=right,
                total=60,
                interval=(right / 60 - 0.1, right / 60 + 0.1),
            )
            for side, right in (("base", 33), ("rl", 48))
        ],
        "sensitivities": [
            Sensitivity(
                cell=first.name,
                metric="information_complexity",
                choice=f"{bins} bins",
                base=0.1 * bins / 50,
                rl=0.15 * bins / 50,
            )
            for bins in (50, 100, 200)
        ],
    }
    return StudyResult(**(defaults | fields))
