"""The shape of a decoder-only transformer: the one object that every module of the model reads.

Axis letters are explained in axes.py.
"""

import dataclasses
import math
from typing import Literal

from eap_jax.rope import RopeScaling

__all__ = ["ModelConfig", "RopeScaling"]


# Fields that are positive numbers, and those of them that may be None.
_OPTIONAL = ("attention_scale", "attention_softcap", "logits_softcap", "local_rope_theta")
_POSITIVE = (
    "norm_eps", "rope_theta", "embedding_multiplier", "residual_multiplier", "logits_divisor",
    *_OPTIONAL,
)  # fmt: skip
_CHOICES = {
    "norm_position": ("pre", "post", "both"),
    "norm_gain_offset": (0.0, 1.0),
    "qk_norm": (None, "head", "full"),
    "activation": ("silu", "gelu_tanh", "gelu"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder of grouped-query attention and gated MLPs with RMSNorm, as data.

    Covers Llama, Mistral, Qwen2, Qwen3, OLMo 2 and 3, SmolLM3, Granite 3, Phi-3 and Phi-4, Gemma 2
    and 3. Every field changes the output of the model; nothing is kept for information only. A
    field's default is Llama's.

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
      norm_position: `pre`: a branch normalises the stream that it reads, and its output is written.
        `post`: it reads the stream as it is, and its normalised output is written (OLMo 2 and 3).
        `both`: it normalises what it reads and what it writes (Gemma 2 and 3).
      norm_gain_offset: added to the gain of every RMSNorm, those of q and k included: 0, or 1 where
        a gain is stored as its distance from 1 (Gemma).
      qk_norm: queries and keys are normalised after their projection, before rotation: `head`, each
        head by itself with one gain for all (Qwen3, Gemma 3); `full`, all heads together (OLMo);
        None, not at all.
      activation: of the MLP's gate: `silu`, `gelu_tanh` (the approximation by tanh) or `gelu`.
      embedding_multiplier: of the token embeddings, before they are written.
      residual_multiplier: of what a branch writes.
      logits_divisor: of the output head's logits.
      attention_scale: multiplies q k^T; None: head_dim ** -0.5.
      attention_softcap: c of c * tanh(x / c) on the scaled attention logits, or None.
      logits_softcap: the same on the output head's logits, after the division.
      rotary_dim: how many numbers of a head are rotated, the first ones; even. None: all.
      layer_rotary: one entry a layer: whether its queries and keys are rotated. None instead of a
        tuple: all layers.
      adapter_rank: rank of low-rank factors a and b beside every projection of the blocks, for training
        without gradients of the weights: y = W x + b (a x). 0: there are none.
      local_rope_theta, local_rope_scaling: base and stretch of the rotary frequencies in layers with
        a window (Gemma 3, OLMo 3). None as base: windowed layers rotate as the others do.

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
    norm_position: Literal["pre", "post", "both"] = "pre"
    norm_gain_offset: float = 0.0
    qk_norm: Literal["head", "full"] | None = None
    activation: Literal["silu", "gelu_tanh", "gelu"] = "silu"
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_divisor: float = 1.0
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logits_softcap: float | None = None
    rotary_dim: int | None = None
    layer_rotary: tuple[bool, ...] | None = None
    local_rope_theta: float | None = None
    local_rope_scaling: RopeScaling | None = None
    adapter_rank: int = 0

    def __post_init__(self):
        sizes = ("vocab_size", "num_layers", "d_model", "d_ff", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive whole number, found {value!r}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a positive number, found {value!r}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name}: expected one of {', '.join(map(repr, choices))}, "
                    f"found {getattr(self, name)!r}"
                )
        rank = self.adapter_rank
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 0:
            raise ValueError(f"adapter_rank: expected a whole number from 0, found {rank!r}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads: expected a divisor of num_heads {self.num_heads}, "
                f"found {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim: rotary embedding needs an even size, found {self.head_dim}"
            )
        self._check_layers()
        self._check_rotary()

    def _check_layers(self):
        for name in ("layer_windows", "layer_rotary"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != self.num_layers:
                raise ValueError(
                    f"{name}: expected {self.num_layers} entries, found {len(entries)}"
                )
        if self.layer_windows is not None:
            if any(w is not None and w < 1 for w in self.layer_windows):
                raise ValueError(
                    f"layer_windows: expected positive sizes, found {self.layer_windows}"
                )
            if all(w is None for w in self.layer_windows):
                raise ValueError("layer_windows: no layer has a window; pass None")
        if self.layer_rotary is not None:
            if any(not isinstance(rotates, bool) for rotates in self.layer_rotary):
                raise ValueError(f"layer_rotary: expected booleans, found {self.layer_rotary}")
            if all(self.layer_rotary):
                raise ValueError("layer_rotary: all layers rotate; pass None")

    def _check_rotary(self):
        size = self.rotary_dim
        if size is not None and (
            isinstance(size, bool)
            or not isinstance(size, int)
            or size % 2
            or not 0 < size < self.head_dim
        ):
            raise ValueError(
                f"rotary_dim: expected an even size below head_dim {self.head_dim}, found {size!r}"
            )
        if self.local_rope_theta is None:
            if self.local_rope_scaling is not None:
                raise ValueError("local_rope_scaling: expected local_rope_theta beside it")
        elif self.layer_windows is None:
            raise ValueError("local_rope_theta: no layer has a window")
        half = (size or self.head_dim) // 2
        for name in ("rope_scaling", "local_rope_scaling"):
            scaling = getattr(self, name)
            for factors in ("short_factor", "long_factor"):
                divisors = None if scaling is None else getattr(scaling, factors)
                if divisors is not None and len(divisors) != half:
                    raise ValueError(
                        f"{name}: {factors}: expected {half} numbers, half the rotary size, "
                        f"found {len(divisors)}"
                    )

    @property
    def raw_reads(self) -> tuple[str, ...]:
        """Kinds of readers whose branch changes with the size of what it reads, so that a column of
        scores need not add up to zero: the MLP of a model that does not normalise what it reads.
        Its attention is as good as normalised: q and k are, and the write is linear in v."""
        return ("mlp",) if self.norm_position == "post" else ()

    @property
    def longest_text(self) -> int | None:
        """Tokens up to which a text's length does not change its rotary frequencies, or None."""
        limits = [
            scaling.longest_text
            for scaling in (self.rope_scaling, self.local_rope_scaling)
            if scaling is not None and scaling.longest_text is not None
        ]
        return min(limits, default=None)

    def for_length(self, length: int) -> "ModelConfig":
        """The model as it is for one text of `length` tokens without padding: beyond `longest_text`
        with other rotary frequencies, see `RopeScaling.for_length`."""
        if self.longest_text is None or length <= self.longest_text:
            return self
        return dataclasses.replace(
            self,
            **{
                name: None if scaling is None else scaling.for_length(length)
                for name in ("rope_scaling", "local_rope_scaling")
                for scaling in [getattr(self, name)]
            },
        )

    @property
    def num_parameters(self) -> int:
        """Number of weights, a tied head counted once."""
        attention = self.head_dim * self.d_model * 2 * (self.num_heads + self.num_kv_heads)
        biases = self.qkv_bias * self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        biases += self.output_bias * self.d_model + self.mlp_bias * (2 * self.d_ff + self.d_model)
        norms = self.d_model * (4 if self.norm_position == "both" else 2)
        if self.qk_norm is not None:
            heads = self.num_heads + self.num_kv_heads if self.qk_norm == "full" else 2
            norms += heads * self.head_dim
        block = attention + 3 * self.d_model * self.d_ff + biases + norms
        heads = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim
        block += self.adapter_rank * (heads + 7 * self.d_model + 3 * self.d_ff)
        ends = self.vocab_size * self.d_model * (1 if self.tied_embeddings else 2) + self.d_model
        return self.num_layers * block + ends
