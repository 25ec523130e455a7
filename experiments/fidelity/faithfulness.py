"""What is left of a model when only some of its edges are: the loss of circuits of rising size.

    recovered(circuit) = (loss - empty loss) / (full loss - empty loss)

1 for the whole model, 0 without any edge; losses are means over the samples. What is cut reads
nothing (zero ablation). Circuits hold the share of the edges that a ranking puts first: by size,
|score|; signed, score; at random, three drawings; and transfer, the other model's |score|. Over the
shares from 0 to 1, linear, by trapezoids:
    CPR   area under recovered: 1 is ideal, and it may be negative
    CMD   area under |1 - recovered|: 0 is ideal
as in MIB (arXiv 2504.13151), whose shares these are. Intervals resample the samples.

Axes: m samples, W writers, R readers, E edges, Z resamples.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from eap_jax.batching import Text, put_rows
from eap_jax.circuit import circuit_losses
from eap_jax.graph import connected, edge_mask, num_edges, num_layers_of, strongest_edges
from eap_jax.sharding import gathered, place_batch
from experiments import store
from experiments.scoring.cells import Cell, counted_texts, results_path
from experiments.scoring.memory import fitting_batches
from experiments.study.numerics import weight_dtype
from experiments.study.opened import OpenStudy
from experiments.study.pairs import SIDES, Side

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# Edges of the largest |score| that an exported graph marks as its circuit.
EXPORTED_EDGES = 200
_DRAWS = 3
# Forward passes at most, in attributions of the same texts, one of which costs two; but some samples
# are always worth having.
_TIMES, _FEWEST_SAMPLES = 4, 8
_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circuits:
    """Which circuits one model is run with.

    Attributes:
      rankings: for each name the kept edges [W, R] bool at each of `SHARES`.
      exported_WR: the circuit of the exported graph.
    """

    rankings: Mapping[str, Sequence[np.ndarray]]
    exported_WR: np.ndarray

    @property
    def different(self) -> list[np.ndarray]:
        """All of them once, the empty and the full one first."""
        mask_WR = edge_mask(num_layers_of(*self.exported_WR.shape))
        every = [np.zeros_like(mask_WR), mask_WR, self.exported_WR]
        every += [kept_WR for ranking in self.rankings.values() for kept_WR in ranking]
        return list({kept_WR.tobytes(): kept_WR for kept_WR in every}.values())


def circuits_of(scores_WR: np.ndarray, others_WR: np.ndarray, seed: int) -> Circuits:
    """The circuits of one model.

    Args:
      scores_WR: its mean scores.
      others_WR: the other model's.
      seed: of the random rankings, the same for both models.
    """
    mask_WR = edge_mask(num_layers_of(*scores_WR.shape))
    draw = np.random.default_rng(seed)
    strengths = {
        "size": np.abs(scores_WR),
        "signed": scores_WR,
        "transfer": np.abs(others_WR),
        **{f"random {number}": draw.random(mask_WR.shape) for number in range(_DRAWS)},
    }
    return Circuits(
        rankings={
            name: [kept_edges(strength_WR, edges_at(share, mask_WR.sum())) for share in SHARES]
            for name, strength_WR in strengths.items()
        },
        exported_WR=exported_circuit(scores_WR),
    )


def edges_at(share: float, edges: int) -> int:
    """Edges of a circuit of this share, rounded down as MIB does."""
    return math.floor(share * int(edges) + 1e-9)


def kept_edges(strength_WR: np.ndarray, count: int) -> np.ndarray:
    """[W, R] bool: the `count` existing edges of the largest strength."""
    mask_WR = edge_mask(num_layers_of(*strength_WR.shape))
    kept_WR = np.zeros_like(mask_WR)
    for place in strongest_edges(strength_WR, mask_WR, count):
        kept_WR[place] = True
    return kept_WR


def exported_circuit(scores_WR: np.ndarray, count: int = EXPORTED_EDGES) -> np.ndarray:
    """[W, R] bool: the edges of the largest |score| that lie on a path from input to logits."""
    return connected(kept_edges(np.abs(scores_WR), count))


def is_measured(cell: Cell, side: Side) -> bool:
    """Whether one side of a cell's faithfulness.json is there.

    Raises:
      InputError: the file is broken.
    """
    path = faithfulness_path(cell)
    return path.exists() and side in store.read_json(path)


def faithfulness_path(cell: Cell) -> Path:
    """A cell's faithfulness.json."""
    return cell.directory / "faithfulness.json"


def measure_faithfulness(opened: OpenStudy, cell: Cell, side: Side) -> None:
    """Run one side's circuits and put them into the cell's faithfulness.json, unless they are there.

    Args:
      opened: the study; its `fidelity` is auto or all.
      cell: both sides' scores exist. No other process measures it.
      side: whose model and texts.
    """
    if is_measured(cell, side):
        return
    means = {
        name: store.read_results(results_path(opened, cell, name)).mean(axis=0, dtype=np.float64)
        for name in SIDES
    }
    other = SIDES[1 - SIDES.index(side)]
    circuits = circuits_of(means[side], means[other], cell.rule.seed)
    texts = counted_texts([cell], side)
    rows = chosen_rows(
        len(texts), len(circuits.different), cell.rule.seed, every=opened.study.fidelity == "all"
    )
    losses = _losses(opened, side, [texts[row] for row in rows], circuits.different)
    by_circuit = {
        kept_WR.tobytes(): losses_m
        for kept_WR, losses_m in zip(circuits.different, losses, strict=True)
    }
    found = summary(circuits, by_circuit, cell.rule.seed)
    found = {"estimator": opened.study.estimator, "rows": rows} | found
    path = faithfulness_path(cell)
    saved = store.read_json(path) if path.exists() else {}
    saved[side] = found
    store.write_json(path, {name: saved[name] for name in SIDES if name in saved})


def chosen_rows(samples: int, circuits: int, seed: int, *, every: bool) -> list[int]:
    """Places of the samples that run: as many as cost four attributions of all, and some at least."""
    count = max(_FEWEST_SAMPLES, 2 * _TIMES * samples // circuits)
    if every or count >= samples:
        return list(range(samples))
    return sorted(np.random.default_rng(seed).permutation(samples)[:count].tolist())


def _losses(
    opened: OpenStudy, side: Side, texts: list[Text], circuits: list[np.ndarray]
) -> list[np.ndarray]:
    """Loss of every text [m] in each circuit, nats a token."""
    study, checkpoint = opened.study, opened.load(side)
    fitting = fitting_batches(
        opened.placed(side, weight_dtype(study.numerics)),
        texts,
        batch_tokens=study.batch_tokens,
        cuts=(),
    )
    found = [np.empty(len(texts), np.float32) for _ in circuits]
    progress = tqdm(
        total=len(fitting.batches) * len(circuits), desc=f"{side}: circuits", unit="circuit"
    )
    with progress:
        for padded in fitting.batches:
            batch = place_batch(padded.batch, opened.mesh)
            for kept_WR, losses_m in zip(circuits, found, strict=True):
                kept_BWR = np.broadcast_to(kept_WR, (len(padded.batch.tokens_BT), *kept_WR.shape))
                losses_BJ = gathered(
                    circuit_losses(checkpoint.params, batch, kept_BWR, config=checkpoint.config)
                )
                put_rows(losses_m, padded, (losses_BJ * padded.batch.weights_BJ).sum(axis=1))
                progress.update()
    return found


def summary(
    circuits: Circuits, by_circuit: Mapping[bytes, np.ndarray], seed: int
) -> dict[str, Any]:
    """One side of faithfulness.json.

    Args:
      circuits: what was run.
      by_circuit: loss of each sample [m] by the bytes of a circuit's mask.
      seed: of the resampling.

    Returns:
      `edges` and `samples`; `full_loss` and `empty_loss`; `cpr` and `cmd` of the ranking by size with
      their 95 % intervals, and its `curve`; `signed`, `transfer_cpr`, `transfer_cmd`, `random_cpr`
      and `random_cmd`; the other `curves`; and `exported`: the circuit of the exported graph. NaN
      where the empty model's loss is that of the full one.
    """
    mask_WR = edge_mask(num_layers_of(*circuits.exported_WR.shape))
    empty_m = by_circuit[np.zeros_like(mask_WR).tobytes()].astype(np.float64)
    full_m = by_circuit[mask_WR.tobytes()].astype(np.float64)
    samples = len(full_m)
    weights_Zm = np.ones((1, samples))
    if samples > 1:
        drawn = np.random.default_rng(seed).multinomial(
            samples, np.full(samples, 1 / samples), size=_RESAMPLES
        )
        weights_Zm = np.concatenate([weights_Zm, drawn])

    def recovered(losses_m: np.ndarray) -> np.ndarray:
        """[Z], the samples as they are first."""
        gap_Z = weights_Zm @ (full_m - empty_m)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Plus 0: nothing recovered is 0, not -0.
            return np.where(gap_Z == 0, math.nan, weights_Zm @ (losses_m - empty_m) / gap_Z + 0.0)

    def line(share: float, kept_WR: np.ndarray, recovered_Z: np.ndarray) -> dict[str, Any]:
        losses_m = by_circuit[kept_WR.tobytes()]
        return {
            "share": share,
            "kept": int(kept_WR.sum()),
            "loss": float(losses_m.mean(dtype=np.float64)),
            "recovered": float(recovered_Z[0]),
            "interval": _percentiles(recovered_Z[1:]),
        }

    curves, areas = {}, {}
    for name, ranking in circuits.rankings.items():
        of_share = [recovered(by_circuit[kept_WR.tobytes()]) for kept_WR in ranking]
        curves[name] = [line(*one) for one in zip(SHARES, ranking, of_share, strict=True)]
        # Nothing is kept of share 0, and nothing is recovered.
        recovered_Z = np.stack([np.zeros_like(of_share[0]), *of_share], axis=1)
        areas[name] = (_area(recovered_Z), _area(np.abs(1 - recovered_Z)))
    draws = [name for name in curves if name.startswith("random")]
    exported_WR = circuits.exported_WR
    exported = line(
        exported_WR.sum() / mask_WR.sum(),
        exported_WR,
        recovered(by_circuit[exported_WR.tobytes()]),
    )
    (cpr_Z, cmd_Z), (signed_cpr_Z, signed_cmd_Z) = areas["size"], areas["signed"]
    return {
        "edges": num_edges(num_layers_of(*mask_WR.shape)),
        "samples": samples,
        "full_loss": float(full_m.mean()),
        "empty_loss": float(empty_m.mean()),
        "cpr": float(cpr_Z[0]),
        "cpr_interval": _percentiles(cpr_Z[1:]),
        "cmd": float(cmd_Z[0]),
        "cmd_interval": _percentiles(cmd_Z[1:]),
        "random_cpr": [float(areas[name][0][0]) for name in draws],
        "random_cmd": [float(areas[name][1][0]) for name in draws],
        "signed": {"cpr": float(signed_cpr_Z[0]), "cmd": float(signed_cmd_Z[0])},
        "transfer_cpr": float(areas["transfer"][0][0]),
        "transfer_cmd": float(areas["transfer"][1][0]),
        "curve": curves["size"],
        "curves": {
            "signed": curves["signed"],
            "transfer": curves["transfer"],
            "random": [curves[name] for name in draws],
        },
        "exported": exported,
    }


def _area(values_Z: np.ndarray) -> np.ndarray:
    """[Z]: area of values [Z, 11] at the shares 0 and `SHARES`, linear between them."""
    return np.trapezoid(values_Z, [0.0, *SHARES], axis=1)


def _percentiles(values_Z: np.ndarray) -> tuple[float, float]:
    if not len(values_Z) or not np.isfinite(values_Z).all():
        return math.nan, math.nan
    low, high = np.quantile(values_Z, (0.025, 0.975))
    return float(low), float(high)
