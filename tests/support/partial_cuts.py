"""How EAP scores compare with cutting a share of a write, in PyTorch and float64: FIDELITY.md's curve.

    effect(share) = (loss with the reader reading stream - share * write, minus the loss) / share

As the share falls, the effect tends to the derivative that the score is. Run it on a finished study:

    python tests/support/partial_cuts.py RUN_DIRECTORY/arithmetic/cut0.3 --samples=20

One forward pass an edge, share and sample: about 4 minutes on one core for two models of 77 edges.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import scipy.stats
import torch
import torch_eap
import transformers
from toys import Text

from experiments.study.pairs import PAIRS

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def cut_effects(model, texts: list[Text], shares) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, E] and effects a share [shares, n, E] of every edge, nats a token."""
    scores, effects = [], []
    for text in texts:
        found, loss = torch_eap.edge_scores(model, text)
        scores.append(list(found.values()))
        with torch.no_grad():
            effects.append(
                [
                    [
                        (float(torch_eap.loss_of(model, text, edge, share=share)[0]) - loss) / share
                        for edge in found
                    ]
                    for share in shares
                ]
            )
    return np.array(scores), np.array(effects).swapaxes(0, 1)


def agreement(scores_nE: np.ndarray, effects_nE: np.ndarray) -> tuple[float, float, float]:
    """Pearson, Spearman and share of equal signs over all pairs."""
    scores, effects = scores_nE.ravel(), effects_nE.ravel()
    return (
        float(scipy.stats.pearsonr(scores, effects).statistic),
        float(scipy.stats.spearmanr(scores, effects).statistic),
        float((np.sign(scores) == np.sign(effects)).mean()),
    )


def counted_texts(cell: Path, side: str, samples: int) -> list[Text]:
    """The first counted texts of a cell of a run directory."""
    lines = (cell.parent / "all_correct.jsonl").read_text().splitlines()
    rows = {row["idx"]: row for row in map(json.loads, lines)}
    cut = json.loads((cell / "metrics.json").read_text())["cut"]
    chosen = json.loads((cell / "cell.json").read_text())["rows"][:samples]
    return [
        Text(
            prompt=tuple(rows[idx][f"{side}_prompt_tokens"]),
            answer=tuple(rows[idx][f"{side}_answer_tokens"][:cut]),
        )
        for idx in chosen
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cell", type=Path)
    parser.add_argument("--pair", default="tiny_grpo")
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    print("| side | share of the write | Pearson | Spearman | sign |\n" + "| --- " * 5 + "|")
    for side in ("base", "rl"):
        checkpoint = getattr(PAIRS[options.pair], side)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint, attn_implementation="eager", dtype=torch.float64
        ).eval()
        texts = counted_texts(options.cell, side, options.samples)
        scores_nE, effects = cut_effects(model, texts, SHARES)
        for share, effects_nE in zip(SHARES, effects, strict=True):
            figures = " | ".join(f"{value:.3f}" for value in agreement(scores_nE, effects_nE))
            print(f"| {side} | {100 * share:g} % | {figures} |", flush=True)


if __name__ == "__main__":
    main()
