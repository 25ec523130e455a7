"""The unified gradient of post-training against finite differences and hand-derived values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.posttrain import objectives
from experiments.posttrain.objectives import Responses

# Two tokens a response, two words: a policy is a table of logits [2, 2], responses are all four.
_RESPONSES_BJ = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
_THETA = np.array([[0.3, -0.4], [-0.2, 0.5]])
_OLD = np.array([[0.1, 0.2], [0.6, -0.3]])
_REFERENCE = np.array([[-0.5, 0.1], [0.2, 0.4]])
_ADVANTAGE_BJ = np.array([[1.5, 1.5], [-0.5, -0.5], [0.7, 0.7], [-1.7, -1.7]])


def _log_p(theta):
    table = theta - np.log(np.exp(theta).sum(axis=1, keepdims=True))
    return np.stack([table[[0, 1], response] for response in _RESPONSES_BJ])


def _batch(**fields):
    return Responses(
        tokens_BT=None,
        positions_BJ=None,
        targets_BJ=None,
        mask_BJ=jnp.ones((4, 2)),
        old_BJ=jnp.asarray(_log_p(_OLD)),
        reference_BJ=jnp.asarray(_log_p(_REFERENCE)),
        advantage_BJ=jnp.asarray(_ADVANTAGE_BJ),
    ).replace(**fields)


def _unified_gradient(coefficient, batch, draws=4):
    """grad J through the trainer's own surrogate."""

    def loss(theta):
        table = jax.nn.log_softmax(theta, axis=1)
        log_p_BJ = jnp.stack([table[jnp.arange(2), response] for response in _RESPONSES_BJ])
        return objectives.surrogate(log_p_BJ, coefficient(log_p_BJ, batch), batch.mask_BJ, draws)

    return -np.asarray(jax.grad(loss)(jnp.asarray(_THETA, jnp.float32)))


def _finite_difference(objective):
    gradient = np.zeros_like(_THETA)
    for place in np.ndindex(_THETA.shape):
        step = np.zeros_like(_THETA)
        step[place] = 1e-6
        gradient[place] = (objective(_THETA + step) - objective(_THETA - step)) / 2e-6
    return gradient


def test_sft_gradient_is_that_of_the_mean_log_likelihood():
    expected = _finite_difference(lambda theta: _log_p(theta).mean())
    found = _unified_gradient(objectives.sft_coefficient, _batch())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [0.05, 0.2, 10.0])
def test_grpo_gradient_is_that_of_the_clipped_objective_less_the_kl_estimate(clip):
    kl = 0.3

    def objective(theta):
        log_p, old, reference = _log_p(theta), _log_p(_OLD), _log_p(_REFERENCE)
        ratio = np.exp(log_p - old)
        clipped = np.clip(ratio, 1 - clip, 1 + clip)
        gain = np.minimum(ratio * _ADVANTAGE_BJ, clipped * _ADVANTAGE_BJ)
        toward = np.exp(reference - log_p)
        return (gain - kl * (toward - (reference - log_p) - 1)).mean()

    found = _unified_gradient(
        lambda log_p, batch: objectives.grpo_coefficient(log_p, batch, clip=clip, kl=kl), _batch()
    )
    np.testing.assert_allclose(found, _finite_difference(objective), rtol=1e-4, atol=1e-6)


def test_ppo_gradient_is_that_of_the_clipped_objective_with_token_advantages():
    advantage_BJ = np.array([[0.4, -1.0], [-0.5, 2.0], [1.1, 0.3], [-0.9, 0.8]])

    def objective(theta):
        ratio = np.exp(_log_p(theta) - _log_p(_OLD))
        return np.minimum(ratio * advantage_BJ, np.clip(ratio, 0.9, 1.1) * advantage_BJ).mean()

    batch = _batch(advantage_BJ=jnp.asarray(advantage_BJ))
    found = _unified_gradient(
        lambda log_p, batch: objectives.ppo_coefficient(log_p, batch, clip=0.1), batch
    )
    np.testing.assert_allclose(found, _finite_difference(objective), rtol=1e-4, atol=1e-6)


def test_dpo_gradient_is_that_of_the_dpo_loss_over_beta_and_length():
    beta = 0.7

    def objective(theta):
        ratio_B = (_log_p(theta) - _log_p(_REFERENCE)).sum(axis=1)
        margin = beta * (ratio_B[0::2] - ratio_B[1::2])
        return -np.log1p(np.exp(-margin)).mean() / (beta * 2)

    found = _unified_gradient(
        lambda log_p, batch: objectives.dpo_coefficient(log_p, batch, beta=beta), _batch(), draws=2
    )
    np.testing.assert_allclose(found, _finite_difference(objective), rtol=1e-4, atol=1e-6)


def test_grpo_with_equal_positive_advantages_on_policy_is_sft():
    on_policy = _batch(old_BJ=jnp.asarray(_log_p(_THETA)), advantage_BJ=jnp.ones((4, 2)))
    grpo = _unified_gradient(
        lambda log_p, batch: objectives.grpo_coefficient(log_p, batch, clip=0.2, kl=0.0), on_policy
    )
    sft = _unified_gradient(objectives.sft_coefficient, on_policy)
    np.testing.assert_allclose(grpo, sft, rtol=1e-5, atol=1e-7)


def test_dpo_at_small_beta_is_half_of_sft_on_chosen_minus_rejected():
    sign_B1 = jnp.asarray([[1.0], [-1.0], [1.0], [-1.0]])
    dpo = _unified_gradient(
        lambda log_p, batch: objectives.dpo_coefficient(log_p, batch, beta=1e-7), _batch(), draws=2
    )
    signed_sft = _unified_gradient(
        lambda log_p, batch: sign_B1 * objectives.sft_coefficient(log_p, batch), _batch(), draws=2
    )
    np.testing.assert_allclose(dpo, signed_sft / 2, rtol=1e-4, atol=1e-6)


def test_dpo_at_small_beta_is_half_of_grpo_on_groups_of_one_right_and_one_wrong():
    rewards_PG = jnp.asarray([[1.0, 0.0], [1.0, 0.0]])
    advantage_B1 = objectives.group_advantages(rewards_PG).reshape(-1, 1)
    batch = _batch(old_BJ=jnp.asarray(_log_p(_THETA)), advantage_BJ=advantage_B1 * jnp.ones((4, 2)))
    grpo = _unified_gradient(
        lambda log_p, batch: objectives.grpo_coefficient(log_p, batch, clip=0.2, kl=0.0), batch
    )
    dpo = _unified_gradient(
        lambda log_p, batch: objectives.dpo_coefficient(log_p, batch, beta=1e-7), batch
    )
    np.testing.assert_allclose(dpo, grpo / 2, rtol=1e-4, atol=1e-6)


def test_group_advantages_by_hand_and_zero_in_a_group_without_contrast():
    found = objectives.group_advantages(jnp.asarray([[1.0, 0.0, 0.0, 0.0], [1.0] * 4]))
    deviation = np.sqrt(3) / 4
    np.testing.assert_allclose(
        found[0], np.array([0.75, -0.25, -0.25, -0.25]) / deviation, rtol=1e-6
    )
    np.testing.assert_array_equal(found[1], np.zeros(4))


def test_generalised_advantages_equal_the_literal_double_sum():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    mask = np.array([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0]], float)
    decay = 0.8
    expected = np.zeros((3, 6))
    for row in range(3):
        places = np.flatnonzero(mask[row])
        for start in places:
            for place in places[places >= start]:
                following = values[row, place + 1] if place < places[-1] else 0.0
                delta = rewards[row, place] + following - values[row, place]
                expected[row, start] += decay ** (place - start) * delta
    advantages, returns = objectives.generalised_advantages(
        *map(jnp.asarray, (rewards, values, mask)), decay=decay
    )
    np.testing.assert_allclose(advantages, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(returns, (expected + values) * mask, rtol=1e-5, atol=1e-6)


def test_numbers_less_their_mean_over_their_deviation_have_mean_0_and_deviation_1():
    numbers = np.random.default_rng(1).normal(3, 5, 30)
    mean, deviation = objectives.moments(numbers)
    scaled = (numbers - mean) / deviation
    assert abs(scaled.mean()) < 1e-6
    assert abs(scaled.std() - 1) < 1e-6
    assert objectives.moments(np.ones(4))[1] > 0


def test_surrogate_ignores_padding_and_divides_by_each_response_length():
    log_p = jnp.asarray([[-1.0, -2.0, -50.0], [-3.0, -50.0, -50.0]])
    mask = jnp.asarray([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    loss = objectives.surrogate(log_p, jnp.full((2, 3), 2.0), mask, draws=2)
    assert float(loss) == pytest.approx((2 * 1.5 + 2 * 3.0) / 2)
