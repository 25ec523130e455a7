"""Names and mean scores of a three-layer cell's edges, in plain loops: an oracle for figures."""

LAYERS = 3
WRITERS = ["input", "a0", "m0", "a1", "m1", "a2", "m2"]
READERS = [f"a{i}<{k}>" if k != "m" else f"m{i}" for i in range(LAYERS) for k in "qkvm"] + [
    "logits"
]


def means(cell):
    """Mean score of every existing edge by (writer, reader): base and rl, in plain loops."""
    found = {}
    for w, writer in enumerate(WRITERS):
        for r, reader in enumerate(READERS):
            layer, kind = divmod(r, 4)
            before = len(WRITERS) if reader == "logits" else 1 + 2 * layer + (kind == 3)
            if w < before:
                found[writer, reader] = tuple(
                    sum(float(matrix[w, r]) for matrix in side) / len(side)
                    for side in (cell.base_nWR, cell.rl_nWR)
                )
    return found
