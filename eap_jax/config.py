"""The shape of a decoder-only transformer: the one object that every module of the model reads.

Axis letters are explained in axes.py.
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched for long contexts (transformers' `rope_scaling`).

    Attributes:
      kind: `linear` divides every frequency by `factor`. `llama3` divides the low frequencies by
        `factor`, keeps the high ones and blends in between.
      factor: stretch, >= 1.
      low_freq_factor, high_freq_factor: band limits in rotations over the original context
        (`llama3` only).
      original_context: positions the model was first trained on (`llama3` only).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_context: int | None = None

    def __post_init__(self):
        if self.kind not in ("linear", "llama3"):
            raise ValueError(f"rope scaling kind: expected linear or llama3, found {self.kind!r}")
        if not self.factor >= 1:
            raise ValueError(f"rope scaling factor: expected at least 1, found {self.factor}")
        band = (self.low_freq_factor, self.high_freq_factor, self.original_context)
        if self.kind == "linear" and band != (None, None, None):
            raise ValueError("rope scaling linear takes a factor only")
        if self.kind == "llama3":
            if None in band:
                raise ValueError(
                    "rope scaling llama3 needs low_freq_factor, high_freq_factor and "
                    "original_context"
                )
            if not 0 < self.low_freq_factor < self.high_freq_factor:
                raise ValueError(
                    "rope scaling llama3: expected 0 < low_freq_factor < high_freq_factor, found "
                    f"{self.low_freq_factor} and {self.high_freq_factor}"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Llama-shaped decoder: pre-norm blocks of grouped-query attention and a gated SiLU MLP.

    Covers Llama, Mistral and Qwen2. Every field changes the output of the model; nothing is kept
    for information only.

    Attributes:
      vocab_size: V, rows of the embedding and of the output head.
      num_layers: L, blocks of one attention and one MLP each.
      d_model: D, width of the residual stream.
      d_ff: F, width of the MLP.
      num_heads: N, query heads.
      num_kv_heads: K, key/value heads; divides `num_heads` (K = N is multi-head, K = 1 multi-query).
      head_dim: H, size of one head; even. N * H need not equal D.
      norm_eps: epsilon of every RMSNorm.
      rope_theta: base of the rotary frequencies.
      rope_scaling: stretch of the rotary frequencies, or None.
      qkv_bias: biases on the q, k and v projections.
      output_bias: bias on the attention's output projection.
      mlp_bias: biases on the three MLP projections.
      tied_embeddings: the output head is the embedding matrix.
      layer_windows: one entry a layer: the number of keys that a query sees, itself included, or
        None for all of the past. None instead of a tuple: no layer has a window.

    Raises:
      ValueError: a field is out of range or two fields contradict each other.
    """

    vocab_size: int
    num_layers: int
    d_model: int
    d_ff: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = False
    layer_windows: tuple[int | None, ...] | None = None

    def __post_init__(self):
        sizes = ("vocab_size", "num_layers", "d_model", "d_ff", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive whole number, found {value!r}")
        for name in ("norm_eps", "rope_theta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"{name}: expected a positive number, found {value!r}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads: expected a divisor of num_heads {self.num_heads}, "
                f"found {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim: rotary embedding needs an even size, found {self.head_dim}"
            )
        if self.layer_windows is not None:
            if len(self.layer_windows) != self.num_layers:
                raise ValueError(
                    f"layer_windows: expected {self.num_layers} entries, "
                    f"found {len(self.layer_windows)}"
                )
            if any(w is not None and w < 1 for w in self.layer_windows):
                raise ValueError(
                    f"layer_windows: expected positive sizes, found {self.layer_windows}"
                )
            if all(w is None for w in self.layer_windows):
                raise ValueError("layer_windows: no layer has a window; pass None")

    @property
    def num_parameters(self) -> int:
        """Number of weights, a tied head counted once."""
        attention = self.head_dim * self.d_model * 2 * (self.num_heads + self.num_kv_heads)
        biases = self.qkv_bias * self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        biases += self.output_bias * self.d_model + self.mlp_bias * (2 * self.d_ff + self.d_model)
        block = attention + 3 * self.d_model * self.d_ff + biases + 2 * self.d_model
        ends = self.vocab_size * self.d_model * (1 if self.tied_embeddings else 2) + self.d_model
        return self.num_layers * block + ends
