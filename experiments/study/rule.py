"""Settings of a selection: which responses of a dataset are compared, and how much of them."""

import dataclasses
import math
from typing import Any

from experiments.errors import InputError

# What a study measures unless it is told otherwise. A metric's sign may turn with alpha, so there
# are two; they share the forward pass and the exact cuts.
DEFAULT_ALPHAS = (0.1, 0.3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Settings of a selection, with the published values as defaults.

    Attributes:
      alpha: counted share of the mean answer length.
      beta, gamma: bounds on the answer length, as shares of the mean.
      delta: largest difference of the two lengths, as a share of their mean.
      num_samples: most rows kept.
      seed: of the sampling.

    Raises:
      InputError: a value is out of range.
    """

    alpha: float
    beta: float = 0.5
    gamma: float = 1.5
    delta: float = 0.5
    num_samples: int = 100
    seed: int = 42

    def __post_init__(self):
        if not 0 < self.alpha <= 1:
            raise InputError(f"alpha: expected a number in (0, 1], found {self.alpha}")
        if not 0 <= self.beta <= self.gamma < math.inf:
            raise InputError(
                f"beta and gamma: expected 0 <= beta <= gamma, found {self.beta} and {self.gamma}"
            )
        if not 0 <= self.delta < math.inf:
            raise InputError(f"delta: expected a number from 0 on, found {self.delta}")
        if self.num_samples < 1:
            raise InputError(f"num_samples: expected at least 1, found {self.num_samples}")

    @property
    def unusual(self) -> tuple[tuple[str, Any], ...]:
        """Name and value of the settings beside alpha that are not the published ones."""
        fields = [field for field in dataclasses.fields(self) if field.name != "alpha"]
        return tuple(
            (field.name, getattr(self, field.name))
            for field in fields
            if getattr(self, field.name) != field.default
        )

    @property
    def variant(self) -> str:
        """The same as text: `delta 0.4, num_samples 50`, or nothing."""
        return ", ".join(f"{name} {value}" for name, value in self.unusual)
