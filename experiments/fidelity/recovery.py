"""How much of the loss circuits recover: curves over the share of edges kept, and their areas.

    recovered(circuit) = (loss - empty loss) / (full loss - empty loss)

1 for the whole model, 0 without any edge; losses are means over the samples. Over the shares from 0
to 1, linear, by trapezoids:
    CPR   area under recovered: 1 is ideal, and it may be negative
    CMD   area under |1 - recovered|: 0 is ideal
as in MIB (arXiv 2504.13151). Intervals resample the samples.

Axes: m samples, W writers, R readers, Z resamples.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from eap_jax.graph import edge_mask, num_edges, num_layers_of
from experiments.fidelity.rankings import SHARES, Circuits

_RESAMPLES = 1000


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
