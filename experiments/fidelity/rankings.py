"""Which circuits a model is run with: the share of its edges that a ranking puts first.

Rankings are by size, |score|; signed, score; at random, three drawings; and transfer, the other
model's |score|. The shares are those of MIB (arXiv 2504.13151). One more circuit is that of the
exported graph.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from eap_jax.graph import connected, edge_mask, num_layers_of, strongest_edges

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# Edges of the largest |score| that an exported graph marks as its circuit.
EXPORTED_EDGES = 200
_DRAWS = 3


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
