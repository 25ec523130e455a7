"""The tensors of a GGUF file under Hugging Face's names and in its layout, one at a time.

Two things differ. Names: `blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`. And the
rows of q and k lie, within a head, as pairs that are rotated together (0, h/2, 1, h/2 + 1, ...), where
Hugging Face has the first half of the head before the second; their order is restored here.

Dtypes: a file whose matrices all are F32, F16 or BF16 keeps that; otherwise, and where they are
quantised, matrices are float32, which is what dequantisation gives. The same for its vectors.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from converters.errors import CheckpointError
from converters.gguf_config import ROPE_FACTORS, heads_of
from converters.gguf_file import PLAIN, StoredTensor, supported
from converters.gguf_header import read_header
from converters.pieces import PIECE, assemble

_ENDS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROTATED = re.compile(r"self_attn\.([qk])_proj\.")


class GGUFReader:
    """Reads a file's tensors; a context manager.

    Tensors of no known name keep the file's own, so that a message can say it.

    Args:
      path: the file.

    Raises:
      CheckpointError: not a whole GGUF file of the Llama family.
    """

    def __init__(self, path: str | Path):
        self._file = read_header(path)
        self._heads = dict(zip("qk", heads_of(self._file), strict=True))
        self._own = {hf_name(name): name for name in self._file.tensors if name != ROPE_FACTORS}
        self._dtypes = {vectors: self._common_dtype(vectors) for vectors in (True, False)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._own)

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor, for messages."""
        return self._tensor(name).path

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return self._tensor(name).shape

    def dtype(self, name: str) -> np.dtype:
        """Dtype that a tensor is read in.

        Raises:
          CheckpointError: its type is not one that can be read.
        """
        tensor = self._tensor(name)
        if not supported(tensor.kind):
            raise CheckpointError(
                f"{tensor.path}: tensor {self._own[name]}: expected {', '.join(PLAIN)} or a "
                f"quantisation that gguf can undo, found {tensor.kind}"
            )
        return self._dtypes[len(tensor.shape) == 1]

    def read(self, name: str) -> np.ndarray:
        """One tensor, a copy of its own.

        Raises:
          CheckpointError: as `pieces`.
        """
        return assemble(self.pieces(name), self.shape(name), self.dtype(name))

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """A tensor's numbers in order, some at a time.

        Raises:
          CheckpointError: the file ends early.
        """
        *outer, columns = self.shape(name)
        rows, dtype = math.prod(outer), self.dtype(name)
        projection = _ROTATED.search(name)
        heads = self._heads[projection[1]] if projection else None
        # Whole heads at a time, since rows move within one.
        unit = rows // heads if heads and outer else 1
        step = unit * max(1, PIECE // (unit * columns))
        with self._file.open(self._own[name]) as file:
            for first in range(0, rows, step):
                count = min(step, rows - first)
                piece = self._file.rows(file, self._own[name], first, count).astype(
                    dtype, copy=False
                )
                if heads:
                    inner = columns if outer else 1
                    pairs = piece.reshape(count // unit if outer else heads, -1, 2, inner)
                    piece = pairs.swapaxes(1, 2)
                yield piece.reshape(-1)

    def _common_dtype(self, vectors: bool) -> np.dtype:
        """Of all vectors, or of all matrices: their own type if it is one and plain."""
        tensors = map(self._tensor, self._own)
        kinds = {tensor.kind for tensor in tensors if (len(tensor.shape) == 1) == vectors}
        return PLAIN.get(*kinds, np.dtype(np.float32)) if len(kinds) == 1 else np.dtype(np.float32)

    def _tensor(self, name: str) -> StoredTensor:
        return self._file.tensors[self._own[name]]


def hf_name(name: str) -> str:
    """Hugging Face's name of a tensor, or the same name where it has none."""
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if block and block[2] in _BLOCK:
        return f"model.layers.{block[1]}.{_BLOCK[block[2]]}.{block[3]}"
    end, _, kind = name.rpartition(".")
    return f"{_ENDS[end]}.{kind}" if end in _ENDS else name
