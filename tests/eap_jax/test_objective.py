"""Self-entropy against scipy in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from eap_jax.objective import runner_up_lead, self_entropy


def exact(logits, targets):
    table = -scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)
    return np.take_along_axis(table, targets[..., None], axis=-1)[..., 0]


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 5, (2, 7, 31)).astype(np.float32)
    return logits, rng.integers(0, 31, (2, 7)).astype(np.int32)


def test_equals_minus_log_softmax_of_the_target(scored):
    found = self_entropy(*scored)
    assert found.shape == (2, 7)
    np.testing.assert_allclose(found, exact(*scored), rtol=1e-5, atol=1e-6)


def test_equal_logits_give_the_logarithm_of_the_vocabulary():
    found = self_entropy(jnp.zeros((3, 8)), jnp.asarray([0, 4, 7]))
    np.testing.assert_allclose(found, np.log(8), rtol=1e-6)


def test_low_precision_logits_are_summed_in_float32(scored):
    logits, targets = scored
    low = jnp.asarray(logits, jnp.bfloat16)
    found = self_entropy(low, targets)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, exact(np.asarray(low, np.float32), targets), rtol=1e-5, atol=1e-6
    )


def test_huge_logits_neither_overflow_nor_lose_the_loss():
    logits = jnp.asarray([[3e4, 3e4 - 1, -3e4]])
    found = self_entropy(logits.repeat(3, axis=0), jnp.asarray([0, 1, 2]))
    np.testing.assert_allclose(
        found, [np.log1p(np.exp(-1)), 1 + np.log1p(np.exp(-1)), 6e4], rtol=1e-3
    )


def test_the_runner_ups_lead_is_the_best_other_logit_minus_the_targets(scored):
    logits, targets = scored
    found = np.asarray(runner_up_lead(logits, targets))
    for place in np.ndindex(2, 7):
        others = np.delete(logits[place], targets[place])
        assert found[place] == pytest.approx(others.max() - logits[place][targets[place]], rel=1e-6)
    assert (found > 0).any()
    assert (np.asarray(runner_up_lead(logits, logits.argmax(-1).astype(np.int32))) < 0).all()
