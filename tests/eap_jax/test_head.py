"""The output head in chunks is the whole head at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax.head import map_targets, target_losses
from eap_jax.objective import self_entropy

ROWS, TARGETS = 2, 7


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_every_target_is_mapped_once_and_in_order(most):
    numbers_BJ = jnp.arange(ROWS * TARGETS).reshape(ROWS, TARGETS)
    wide_BJD = jnp.stack([numbers_BJ, -numbers_BJ], axis=-1)
    widths = []

    def double(xs):
        widths.append(xs[0].shape[1])
        return 2 * xs[0], xs[1] + 1

    twice_BJ, more_BJD = map_targets(double, (numbers_BJ, wide_BJD), most)
    np.testing.assert_array_equal(twice_BJ, 2 * numbers_BJ)
    np.testing.assert_array_equal(more_BJD, wide_BJD + 1)
    assert max(widths) <= most


@pytest.mark.parametrize("most_logits", [1, 3 * ROWS * 61, 10**9])
def test_losses_are_those_of_a_softmax_by_hand(most_logits):
    config, key = toys.ZOO["window 7, tied head"].config, jax.random.key(0)
    params = toys.random_params(config, 0)
    read_BJD = jax.random.normal(key, (ROWS, TARGETS, config.d_model))
    targets_BJ = jax.random.randint(key, (ROWS, TARGETS), 0, config.vocab_size)
    found_BJ = target_losses(
        config, self_entropy, params, read_BJD, targets_BJ, most_logits=most_logits
    )
    x = np.asarray(read_BJD, np.float64)
    x /= np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config.norm_eps)
    logits = (
        x * np.asarray(params["final_norm"], np.float64) @ np.asarray(params["embed"], np.float64).T
    )
    chosen = np.take_along_axis(logits, np.asarray(targets_BJ)[..., None], axis=-1)[..., 0]
    expected_BJ = np.log(np.exp(logits).sum(axis=-1)) - chosen
    np.testing.assert_allclose(found_BJ, expected_BJ, rtol=1e-5)
