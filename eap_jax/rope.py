"""How rotary frequencies are stretched for long contexts: the kinds of transformers' `rope_scaling`.

With x the kept rotary size, theta the base and f_i = theta^(-2i/x), i = 0 ... x/2 - 1 (Su et al. 2021):

    linear    f_i / factor
    llama3    low frequencies / factor, high ones kept, blended in between
    yarn      as llama3 with bands counted in rotations beta (Peng et al. 2023); cos and sin times
              `attention_factor`
    longrope  f_i / short_factor_i, or / long_factor_i for texts above `original_context` (Ding et
              al. 2024); cos and sin times `attention_factor` in both
    dynamic   f_i up to `original_context`; above it theta grows with the text's length
"""

import dataclasses
import math
from typing import Literal

import numpy as np

KINDS = ("linear", "llama3", "yarn", "longrope", "dynamic")
# Which fields a kind has beside those of every kind; all of them must be given.
_FIELDS = {
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_context"},
    "yarn": {
        "factor", "original_context", "attention_factor", "beta_fast", "beta_slow", "truncate",
    },
    "longrope": {"original_context", "attention_factor", "short_factor", "long_factor"},
    "dynamic": {"factor", "original_context"},
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched. A field that a kind does not have is None.

    Attributes:
      kind: one of `KINDS`, see above.
      factor: stretch, >= 1 (all but `longrope`, whose stretch acts through `attention_factor` only).
      low_freq_factor, high_freq_factor: band limits in rotations over the original context
        (`llama3`).
      original_context: positions the model was first trained on (`llama3`, `yarn`, `longrope`); the
        length up to which frequencies are not stretched (`dynamic`: max_position_embeddings).
      attention_factor: multiplies cos and sin (`yarn`, `longrope`); > 0.
      beta_fast, beta_slow: rotations over the original context, above and below which a frequency
        is kept and divided (`yarn`).
      truncate: whether the band's limits are rounded outwards to whole places (`yarn`).
      short_factor, long_factor: divisor of each frequency (`longrope`), half the rotary size each.
      text_length: the length of the texts that frequencies are for, where it is beyond
        `original_context` (`longrope`, `dynamic`); set by `for_length`, never read from a file.
        None: texts up to `original_context`.

    Raises:
      ValueError: a field is missing, too many, or out of range.
    """

    kind: Literal["linear", "llama3", "yarn", "longrope", "dynamic"]
    factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_context: int | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    truncate: bool | None = None
    short_factor: tuple[float, ...] | None = None
    long_factor: tuple[float, ...] | None = None
    text_length: int | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(
                f"rope scaling kind: expected one of {', '.join(KINDS)}, found {self.kind!r}"
            )
        place = f"rope scaling {self.kind}"
        wanted = _FIELDS[self.kind]
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("kind", "text_length")
        }
        given = {name for name, value in values.items() if value is not None}
        if given != wanted:
            raise ValueError(f"{place}: expected {sorted(wanted)}, found {sorted(given)}")
        for name in wanted - {"truncate", "short_factor", "long_factor"}:
            _check_positive(f"{place} {name}", values[name])
        for name in wanted & {"short_factor", "long_factor"}:
            for value in values[name]:
                _check_positive(f"{place} {name}", value)
        if self.factor is not None and self.factor < 1:
            raise ValueError(f"{place} factor: expected at least 1, found {self.factor}")
        if self.kind == "llama3" and not self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"{place}: expected 0 < low_freq_factor < high_freq_factor, found "
                f"{self.low_freq_factor} and {self.high_freq_factor}"
            )
        if self.kind == "yarn" and self.beta_fast < self.beta_slow:
            raise ValueError(
                f"{place}: expected beta_fast of at least beta_slow, found {self.beta_fast} and "
                f"{self.beta_slow}"
            )
        if self.text_length is not None and self.longest_text is None:
            raise ValueError(f"{place}: its frequencies do not depend on a text's length")

    @property
    def longest_text(self) -> int | None:
        """Tokens up to which a text's length does not change its frequencies; None: it never does."""
        return self.original_context if self.kind in ("longrope", "dynamic") else None

    def for_length(self, length: int) -> "RopeScaling":
        """The scaling as it is for one text of `length` tokens without padding, as transformers
        decides it.

        Beyond `longest_text`, dynamic has other frequencies for every length and longrope has one set.
        """
        if self.longest_text is None or length <= self.longest_text:
            return self
        beyond = self.original_context + 1 if self.kind == "longrope" else length
        return dataclasses.replace(self, text_length=beyond)


def frequencies(theta: float, size: int, scaling: RopeScaling | None) -> np.ndarray:
    """Angular frequencies, [size/2] float32, radians a position.

    Args:
      theta: base.
      size: how many numbers of a head are rotated, even.
      scaling: stretch, or None.
    """
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    if scaling is not None and scaling.kind == "dynamic" and scaling.text_length is not None:
        longer = scaling.factor * scaling.text_length / scaling.original_context
        theta = theta * (longer - (scaling.factor - 1)) ** (size / (size - 2))
    kept = (1.0 / np.float32(theta) ** exponents).astype(np.float32)
    if scaling is None or scaling.kind == "dynamic":
        return kept
    if scaling.kind == "linear":
        return (kept / scaling.factor).astype(np.float32)
    if scaling.kind == "longrope":
        long = scaling.text_length is not None
        divisors = scaling.long_factor if long else scaling.short_factor
        return (kept / np.asarray(divisors, np.float32)).astype(np.float32)
    share = (
        _kept_llama3(scaling, kept)
        if scaling.kind == "llama3"
        else _kept_yarn(scaling, theta, size)
    )
    return ((1 - share) * kept / scaling.factor + share * kept).astype(np.float32)


def _kept_llama3(scaling: RopeScaling, kept: np.ndarray) -> np.ndarray:
    """Share of each frequency that is not divided: by its rotations over the original context."""
    rotations = scaling.original_context * kept / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    return np.clip((rotations - low) / (high - low), 0, 1)


def _kept_yarn(scaling: RopeScaling, theta: float, size: int) -> np.ndarray:
    """Share of each frequency that is not divided: a ramp between two places of the head."""

    def place_of(rotations):
        turns = scaling.original_context / (rotations * 2 * math.pi)
        return size * math.log(turns) / (2 * math.log(theta))

    low, high = place_of(scaling.beta_fast), place_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    width = high - low if high != low else 0.001  # as transformers: a step is a steep ramp
    ramp = (np.arange(size // 2, dtype=np.float32) - low) / width
    return 1 - np.clip(ramp, 0, 1)


def _check_positive(name: str, value) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a positive number, found {value!r}")
