"""Whether two checkpoints are one model: the same shape and, number by number, the same weights.

The form does not matter: a Hugging Face folder, its shards, an Orbax checkpoint; a head that is
stored is that of a checkpoint which ties it to the embedding, if the numbers are equal. Nor does the
storage dtype: numbers are compared as values, so a float32 copy of a bfloat16 model is the same one. Of
embeddings of different length the ids that both have are compared: a model whose vocabulary was only
padded is the same one.
"""

import dataclasses
from pathlib import Path

import numpy as np

from converters.hf_config import read_config
from converters.stored import StoredWeights
from eap_jax.parameters import block_axes, head_name

# Numbers compared at once, in float32: two copies of a large tensor would not fit beside it.
_PIECE = 2**22


def same_model(one: str | Path, other: str | Path) -> bool:
    """Whether two checkpoints compute the same function of the ids that both have.

    Stops at the first tensor that differs, so that of two trained models a layer is read. Checkpoints
    whose configs mean different models (another rotary base, another window) are different, whatever
    their weights.

    Args:
      one, other: directories of Hugging Face or converted (Orbax) checkpoints, or GGUF files.

    Raises:
      CheckpointError: as `load.load_checkpoint`, as far as this looks.
    """
    configs = [read_config(path) for path in (one, other)]
    shared = min(config.vocab_size for config in configs)
    untied = [
        dataclasses.replace(config, tied_embeddings=False, vocab_size=shared) for config in configs
    ]
    if untied[0] != untied[1]:
        return False
    with StoredWeights(one) as first, StoredWeights(other) as second:
        for layer in range(configs[0].num_layers):
            (mine,), (theirs,) = first.blocks([layer]), second.blocks([layer])
            if not all(_equal(mine[name], theirs[name]) for name in block_axes(configs[0])):
                return False
        # The large ones last, one at a time.
        ends = [("final_norm", "final_norm"), ("embed", "embed")]
        heads = (head_name(configs[0]), head_name(configs[1]))
        if heads != ("embed", "embed"):
            ends.append(heads)
        return all(
            _equal(_shared(first, mine, shared), _shared(second, theirs, shared))
            for mine, theirs in ends
        )


def _shared(weights: StoredWeights, name: str, ids: int) -> np.ndarray:
    """One of the ends; of the embedding or the head [V, D] the rows of the first ids."""
    tensor = np.asarray(weights.ends([name])[name])
    return tensor if tensor.ndim == 1 else tensor[:ids]


def _equal(one, other) -> bool:
    """Whether two tensors of one shape hold equal values."""
    flat = [np.asarray(tensor).reshape(-1) for tensor in (one, other)]
    return all(
        np.array_equal(
            flat[0][first : first + _PIECE].astype(np.float32),
            flat[1][first : first + _PIECE].astype(np.float32),
        )
        for first in range(0, flat[0].size, _PIECE)
    )
