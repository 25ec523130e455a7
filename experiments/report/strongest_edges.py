"""The strongest edges of a matrix: one ranking for figures, edge lists and exported circuits."""

import numpy as np


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
