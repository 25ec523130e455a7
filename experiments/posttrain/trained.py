"""What is trained, a tree of its own: all weights, or low-rank factors beside frozen ones."""

import dataclasses
import functools

import jax

from eap_jax.config import ModelConfig
from experiments.posttrain import low_rank, objectives
from experiments.posttrain.objectives import Responses
from experiments.posttrain.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """How a tree of trained numbers becomes a model.

    Attributes:
      recipe, config: settings.
      frozen: the weights that are not trained, or None where all are.
    """

    recipe: Recipe
    config: ModelConfig
    frozen: dict | None = None

    def whole(self, trained: dict) -> dict:
        """The model's parameters; a critic's tree gives those with its own head."""
        if self.frozen is None:
            return trained
        factors, head = _apart(trained)
        return low_rank.merged(self.frozen, factors, self.recipe.alpha) | head

    def log_probabilities(self, trained: dict, batch: Responses) -> jax.Array:
        """Of the response tokens, float32 [B, J]."""
        return _log_p(self.recipe, self.config, self.frozen, trained, batch)


def beside(
    recipe: Recipe, config: ModelConfig, frozen: dict | None, trained: dict
) -> tuple[dict, ModelConfig]:
    """The model to differentiate: its parameters, factors unmerged, and its configuration.

    Merged, the factors' gradients would come from those of the weights, which cost as much as the
    whole way back to the activations.
    """
    if frozen is None:
        return trained, config
    factors, head = _apart(trained)
    config = dataclasses.replace(config, adapter_rank=recipe.rank)
    return low_rank.beside(frozen, factors, recipe.alpha) | head, config


def _apart(trained: dict) -> tuple[dict, dict]:
    """The factors, and a critic's own head."""
    return {k: v for k, v in trained.items() if k != "head"}, {
        k: v for k, v in trained.items() if k == "head"
    }


@functools.partial(jax.jit, static_argnames=("recipe", "config"))
def _log_p(recipe, config, frozen, trained, batch):
    params, config = beside(recipe, config, frozen, trained)
    return objectives.log_probabilities(params, batch, config)[0]
