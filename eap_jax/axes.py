"""The glossary of axis letters: one meaning a letter in all three packages, held by a test.

Letters stand in the suffix of a name, in einsum strings, and in the shapes of docstrings:
`scores_BWR` is an array of axes (batch, writers, readers). A digit is an axis of that size
(`writes_2BTD`) or a multiple of the axis after it (`[4L+1]`). Small letters count samples of a
study. Add a letter here before using it.
"""

AXES: dict[str, str] = {
    "A": "losses of one pass (one a cut of the answer)",
    "B": "rows of a batch",
    "C": "chunks of loss positions that go through the output head together",
    "D": "width of the residual stream (d_model)",
    "E": "entries of a score matrix, or edges, in a row",
    "F": "width of the MLP",
    "G": "answers to one prompt (the group of GRPO)",
    "H": "size of one attention head",
    "I": "input axis of a matrix product",
    "J": "positions that carry loss",
    "K": "key/value heads",
    "L": "layers",
    "M": "rows of a matrix product: all axes but the last as one",
    "N": "query heads",
    "O": "output axis of a matrix product",
    "P": "prompts",
    "Q": "queries of all heads that share one key/value head, one head after the other",
    "R": "readers",
    "S": "key position, or slot of the key/value cache",
    "T": "query position: place of a token in its text",
    "U": "bins of a histogram",
    "V": "vocabulary",
    "W": "writers",
    "X": "reads of one layer for all losses, 4A",
    "Y": "T and D as one axis",
    "Z": "sets of weights of the samples (resamples of a bootstrap)",
    "m": "samples whose edges are ablated exactly, some of n",
    "n": "samples of a study",
    "r": "rank of low-rank factors",
    "s": "samples of both sides in a row, 2n: those of base, then those of rl",
}
