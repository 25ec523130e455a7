"""Which edges of which samples are cut exactly: every edge where that is cheap, else a sample.

A choice is made once, from the model, the texts and the seed, never from a clock, and kept in
fidelity_plan.json: a run that goes on after a kill, or on another machine, cuts the same.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eap_jax.batching import Text
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_distances, edge_mask, num_edges, reader_kinds
from eap_jax.parameters import parameter_shapes
from experiments import store
from experiments.errors import InputError
from experiments.scoring.cells import Cell

# Operations, in attributions of the same texts. The logit difference costs one, so that all that is
# spent on what a score is worth is four times the attribution.
_TIMES = 3
# What any machine does in some seconds: so much is always cut.
ALWAYS = 4e11
# Above this depth every edge of a few samples says less than some edges of more.
_MOST_LAYERS = 10
_SAMPLED_EDGES, _FEWEST_EDGES, _FEWEST_SAMPLES = 200, 20, 4
# Distances of one group: 0, 1 to 2, 3 to 4, 5 to 8, 9 to 16, ...
DISTANCE_STARTS = (0, 1, 3, 5, 9, 17, 33, 65, 129)

Edge = tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What is cut.

    Attributes:
      rows: places of the samples in the cell's order, rising.
      edges: (writer, reader) of each edge; every one is cut in every sample.
      every: whether these are all edges of the model.
    """

    rows: tuple[int, ...]
    edges: tuple[Edge, ...]
    every: bool

    @property
    def text(self) -> str:
        """`every edge of 100 samples`, or `200 edges of 8 samples`."""
        edges = "every edge" if self.every else f"{len(self.edges)} edges"
        return f"{edges} of {len(self.rows)} sample{'' if len(self.rows) == 1 else 's'}"


def whole_choice(config: ModelConfig, samples: int) -> Choice:
    """Every edge of every sample."""
    return Choice(rows=tuple(range(samples)), edges=_all_edges(config.num_layers), every=True)


def affordable_choice(config: ModelConfig, texts: Sequence[Text], seed: int) -> Choice:
    """What costs at most three times the attribution of all texts, or next to nothing.

    Up to 10 layers: every edge of as many samples as that pays for. Above, or where it does not pay
    for two samples: about 200 edges, from every kind of reader and every distance in turn, of at
    least 4 samples.

    Args:
      config: the model.
      texts: all samples.
      seed: of the drawing of samples and edges.
    """
    layers, samples = config.num_layers, len(texts)
    attribution, cut = operations(config, texts)
    affordable = max(_TIMES * attribution, ALWAYS) / cut
    draw = np.random.default_rng(seed)
    order = draw.permutation(samples)
    together = int(affordable // num_edges(layers))
    if layers <= _MOST_LAYERS and together >= min(2, samples):
        rows, edges = order[:together], _all_edges(layers)
    else:
        count = max(_FEWEST_SAMPLES, int(affordable // _SAMPLED_EDGES))
        rows = order[:count]
        wanted = max(_FEWEST_EDGES, int(affordable // len(rows)))
        edges = stratified_edges(layers, wanted, draw)
    rows = tuple(sorted(int(row) for row in rows))
    return Choice(rows=rows, edges=edges, every=len(edges) == num_edges(layers))


def stratified_edges(num_layers: int, count: int, draw: np.random.Generator) -> tuple[Edge, ...]:
    """So many edges, one from each kind of reader and group of distances in turn.

    Args:
      num_layers: L.
      count: how many; at least 5, so that every kind is there; all of them if there are fewer.
      draw: decides which.

    Returns:
      (writer, reader) places, in the matrix's order.
    """
    kinds = np.array(reader_kinds(num_layers))
    group_WR = distance_groups(num_layers)
    strata: dict[str, list[list[Edge]]] = {kind: [] for kind in dict.fromkeys(kinds)}
    for kind, of_kind in strata.items():
        for group in draw.permutation(len(DISTANCE_STARTS)):
            places = np.argwhere((group_WR == group) & (kinds == kind))
            if len(places):
                shuffled = draw.permutation(places)
                of_kind.append([(int(writer), int(reader)) for writer, reader in shuffled])
    chosen: list[Edge] = []
    turn = 0
    while len(chosen) < count and any(map(any, strata.values())):
        for of_kind in strata.values():
            left = [stratum for stratum in of_kind if stratum]
            if left and len(chosen) < count:
                chosen.append(left[turn % len(left)].pop())
        turn += 1
    return tuple(sorted(chosen))


def distance_groups(num_layers: int) -> np.ndarray:
    """[W, R] int: place in `DISTANCE_STARTS` of each edge's distance; -1 where there is no edge."""
    distances_WR = edge_distances(num_layers)
    groups_WR = np.searchsorted(DISTANCE_STARTS, distances_WR, side="right") - 1
    return np.where(edge_mask(num_layers), groups_WR, -1)


def distance_label(group: int) -> str:
    """`0`, `1 to 2`, `5 to 8`."""
    first, beyond = (*DISTANCE_STARTS, None)[group : group + 2]
    if beyond is None:
        return f"{first} or more"
    return f"{first}" if beyond == first + 1 else f"{first} to {beyond - 1}"


def plan_path(cell: Cell) -> Path:
    """A cell's fidelity_plan.json."""
    return cell.directory / "fidelity_plan.json"


def kept_choice(cell: Cell, config: ModelConfig) -> Choice | None:
    """What fidelity_plan.json says, or None where there is none.

    Raises:
      InputError: the file is broken.
    """
    path = plan_path(cell)
    if not path.exists():
        return None
    found = store.read_json(path)
    try:
        rows = tuple(int(row) for row in found["rows"])
        edges = found["edges"]
        every = edges == "every"
        edges = (
            _all_edges(config.num_layers) if every else tuple((int(w), int(r)) for w, r in edges)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected rows and edges, found {error!r}; delete it") from None
    return Choice(rows=rows, edges=edges, every=every)


def keep_choice(cell: Cell, choice: Choice) -> None:
    """Write fidelity_plan.json, or check that it says the same.

    Raises:
      InputError: the cell's effects are those of another choice.
    """
    edges = "every" if choice.every else [list(edge) for edge in choice.edges]
    store.claim(plan_path(cell), {"rows": list(choice.rows), "edges": edges})


def _all_edges(num_layers: int) -> tuple[Edge, ...]:
    places = np.argwhere(edge_mask(num_layers))
    return tuple((int(writer), int(reader)) for writer, reader in places)


def operations(config: ModelConfig, texts: Sequence[Text]) -> tuple[float, float]:
    """Of attributing all texts, and of one cut in one text on average over edges and texts.

    Two for each weight and token on the way forward, two on the way back; a cut computes the layers
    from its reader's on. Attention itself is left out on both sides.
    """
    block = sum(math.prod(shape[1:]) for shape in parameter_shapes(config)["blocks"].values())
    tokens = sum(len(text.tokens) for text in texts)
    head = config.vocab_size * config.d_model * sum(len(text.targets) for text in texts)
    layers = config.num_layers
    attribution = 4 * (layers * block * tokens + head)
    edges_R = edge_mask(layers).sum(axis=0)
    resumed_R = np.append(np.repeat(layers - np.arange(layers), 4), 0)
    mean_layers = float(edges_R @ resumed_R) / edges_R.sum()
    return attribution, 2 * (mean_layers * block * tokens + head) / len(texts)
