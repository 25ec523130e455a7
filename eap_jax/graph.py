"""The residual graph: which node writes, which reads, and which edges exist. numpy only.

Every attention and MLP adds its output to the residual stream and reads the sum of all earlier
writes, so a model of L layers is a directed acyclic graph between
  W = 1 + 2L writers: `input`, then `a0, m0, a1, m1, ...`, and
  R = 4L + 1 readers: `a{l}<q>, a{l}<k>, a{l}<v>, m{l}` per layer, then `logits` (granularity qkv), or
  R = 2L + 1 readers: `a{l}, m{l}` per layer, then `logits` (granularity block).
An edge exists iff the writer comes before the reader. Source: arXiv 2509.21044 and its code.
"""

from typing import Literal

import numpy as np

Granularity = Literal["qkv", "block"]
GRANULARITIES: tuple[str, ...] = ("qkv", "block")


def writer_names(num_layers: int) -> tuple[str, ...]:
    """Names of the 1 + 2L writers in the order in which they write."""
    return ("input", *(f"{kind}{layer}" for layer in range(num_layers) for kind in "am"))


def reader_names(num_layers: int, granularity: Granularity = "qkv") -> tuple[str, ...]:
    """Names of the 4L + 1 (`qkv`) or 2L + 1 (`block`) readers in the order of the matrix columns."""
    _check_granularity(granularity)
    names = []
    for layer in range(num_layers):
        if granularity == "qkv":
            names += [f"a{layer}<q>", f"a{layer}<k>", f"a{layer}<v>", f"m{layer}"]
        else:
            names += [f"a{layer}", f"m{layer}"]
    return (*names, "logits")


def edge_mask(num_layers: int, granularity: Granularity = "qkv") -> np.ndarray:
    """[W, R] bool: True where the edge writer -> reader exists."""
    _check_granularity(granularity)
    attention_reads = 3 if granularity == "qkv" else 1
    visible_writers = []
    for layer in range(num_layers):
        visible_writers += [1 + 2 * layer] * attention_reads + [2 + 2 * layer]
    visible_writers.append(1 + 2 * num_layers)
    return np.arange(1 + 2 * num_layers)[:, None] < np.asarray(visible_writers)[None, :]


def num_edges(num_layers: int, granularity: Granularity = "qkv") -> int:
    """Number of edges of the graph (3,691 for 30 layers in granularity qkv)."""
    return int(edge_mask(num_layers, granularity).sum())


def reader_kinds(num_layers: int) -> tuple[str, ...]:
    """`q`, `k`, `v`, `mlp` or `logits` for each of the 4L + 1 readers."""
    return ("q", "k", "v", "mlp") * num_layers + ("logits",)


def edge_distances(num_layers: int) -> np.ndarray:
    """[W, R] int: attentions and MLPs that write between an edge's writer and its reader.

    0 where the writer is the last before the reader, negative where there is no edge.
    """
    seen_R = edge_mask(num_layers).sum(axis=0)
    return seen_R[None, :] - 1 - np.arange(1 + 2 * num_layers)[:, None]


def single_writer_edges(num_layers: int) -> tuple[tuple[int, int], ...]:
    """Edges whose reader reads nothing else: (writer, reader) places of `input -> a0<q, k, v>`.

    A norm before the reader divides the size of its only write out again, so a derivative along the
    write is zero whatever cutting it does: a gradient cannot measure these edges.
    """
    alone_R = edge_mask(num_layers).sum(axis=0) == 1
    return tuple((0, int(reader)) for reader in np.flatnonzero(alone_R))


def edge_name(writer: int, reader: int, num_layers: int) -> str:
    """`m0 -> a1<q>`: what `parse_edge` reads."""
    return f"{writer_names(num_layers)[writer]} -> {reader_names(num_layers)[reader]}"


def parse_edge(
    edge: str | tuple[str, str], num_layers: int, granularity: Granularity = "qkv"
) -> tuple[int, int]:
    """Row and column of an edge in a score matrix, from its name.

    Args:
      edge: a pair of names such as ("m0", "logits"), or one text such as "a3 -> m5" or
        "a3->a5<q>"; blanks around a name do not matter.
      num_layers: L of the model.
      granularity: which readers the matrix has.

    Returns:
      (writer, reader): the places of the two names in `writer_names` and `reader_names`.

    Raises:
      ValueError: in one line, what was expected and what was found, if the text is no edge, a name
        is unknown, or the reader comes before the writer.
    """
    parts = edge.split("->") if isinstance(edge, str) else edge
    names = [part.strip() for part in parts if isinstance(part, str)] if np.iterable(parts) else []
    if len(names) != 2 or len(parts) != 2:
        raise ValueError(
            f"edge: expected 'writer -> reader' or a pair of names such as ('m0', 'logits'),"
            f" found {edge!r}"
        )
    writers, readers = writer_names(num_layers), reader_names(num_layers, granularity)
    writer, reader = names
    last = num_layers - 1
    if writer not in writers:
        raise ValueError(
            f"edge {edge!r}: expected a writer input, a0, m0, ... m{last}, found {writer!r}"
        )
    if reader not in readers:
        raise ValueError(
            f"edge {edge!r}: expected a reader {', '.join(readers[: (len(readers) - 1) // num_layers])},"
            f" ... m{last}, logits, found {reader!r}"
        )
    place = writers.index(writer), readers.index(reader)
    if not edge_mask(num_layers, granularity)[place]:
        raise ValueError(
            f"edge {edge!r}: expected a reader that comes after the writer, found that {reader}"
            f" reads before {writer} writes"
        )
    return place


def num_layers_of(num_writers: int, num_readers: int) -> int:
    """L of a score matrix [W, R] in granularity qkv.

    Raises:
      ValueError: no model has that many writers and readers.
    """
    layers = (num_writers - 1) // 2
    if layers < 1 or (num_writers, num_readers) != (1 + 2 * layers, 1 + 4 * layers):
        raise ValueError(
            f"expected a score matrix of [1+2L, 4L+1] entries, found [{num_writers}, {num_readers}]"
        )
    return layers


def to_block(scores: np.ndarray) -> np.ndarray:
    """Merge the q, k and v columns of each layer into one attention column.

    Gradients of one node's copies of its input add up, so an edge to the attention node is the sum
    of the edges to its q, k and v reads.

    Args:
      scores: [..., W, 4L+1] in granularity qkv.

    Returns:
      [..., W, 2L+1] in granularity block, same dtype.
    """
    num_layers = num_layers_of(*scores.shape[-2:])
    layers = scores[..., :-1].reshape(*scores.shape[:-1], num_layers, 4)
    blocks = np.stack([layers[..., :3].sum(axis=-1), layers[..., 3]], axis=-1)
    blocks = blocks.reshape(*scores.shape[:-1], 2 * num_layers)
    return np.concatenate([blocks, scores[..., -1:]], axis=-1)


def strongest_edges(
    strength_WR: np.ndarray, mask_WR: np.ndarray, count: int
) -> list[tuple[int, int]]:
    """Places (writer, reader) of the existing edges of the largest strength, largest first.

    Args:
      strength_WR: finite numbers that are not negative, such as |score|.
      mask_WR: whether an edge exists, bool.
      count: how many; all edges if there are fewer.

    Returns:
      places; equal strengths stand in the matrix's order, row by row.
    """
    existing = np.argwhere(mask_WR)
    order = np.argsort(-strength_WR[mask_WR], kind="stable")[:count]
    return [(int(writer), int(reader)) for writer, reader in existing[order]]


def connected(kept_WR: np.ndarray) -> np.ndarray:
    """The kept edges that lie on a path from `input` to `logits`, as EAP-IG's pruning leaves them.

    Args:
      kept_WR: [1+2L, 4L+1] bool.

    Returns:
      the same without the edges from a part that reads nothing or into one that nobody reads.
    """
    while True:
        reads_W = np.concatenate([[True], _node_columns(kept_WR).any(axis=1)])
        used_W = reads_W & kept_WR.any(axis=1)
        reader_used_R = np.concatenate([_per_reader(used_W[1:]), [True]])
        remaining_WR = kept_WR & used_W[:, None] & reader_used_R[None, :]
        if (remaining_WR == kept_WR).all():
            return kept_WR
        kept_WR = remaining_WR


def _check_granularity(granularity: str) -> None:
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity: expected one of {GRANULARITIES}, found {granularity!r}")


def _node_columns(kept_WR: np.ndarray) -> np.ndarray:
    """[2L, *]: for each node a0, m0, ... whether its reads have a kept edge."""
    reads_R = kept_WR.any(axis=0)[:-1].reshape(-1, 4)
    return np.stack([reads_R[:, :3].any(axis=1), reads_R[:, 3]], axis=1).reshape(-1, 1)


def _per_reader(nodes_2L: np.ndarray) -> np.ndarray:
    """[4L] from [2L]: q, k and v of an attention node share its value."""
    return np.repeat(nodes_2L.reshape(-1, 2), [3, 1], axis=1).ravel()
