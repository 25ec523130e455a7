"""One step of every algorithm: text by text as together, in parts as whole, factors as weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax.transformer import Transformer
from experiments.posttrain import algorithms, low_rank, objectives, rollouts
from experiments.posttrain.recipe import ALGORITHMS, Recipe
from experiments.posttrain.task import TASKS
from experiments.posttrain.trained import Trained

TASK = dataclasses.replace(TASKS["arithmetic"], width_step=12)
CONFIG = toys.toy_of("llama", num_kv_heads=2, d_ff=26).config
ROWS = 8
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def recipe_of(algorithm: str, **settings) -> Recipe:
    return Recipe(
        algorithm=algorithm, seed=0, rounds=4, updates=1, batch=ROWS, group_size=4, **settings
    )


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, toys.random_params(CONFIG))


@pytest.fixture(scope="module")
def reference():
    return jax.tree.map(jnp.asarray, toys.random_params(CONFIG, seed=7))


@pytest.fixture(scope="module")
def data():
    """Prompts and responses of many lengths, and rewards."""
    rng = np.random.default_rng(5)

    def draw(lengths):
        return [rng.integers(1, CONFIG.vocab_size, length).tolist() for length in lengths]

    rewards = np.asarray([1, 0, 0, 1, 1, 1, 0, 1], np.float32)
    return draw([3, 9, 3, 5, 11, 2, 7, 6]), draw([5, 1, 8, 3, 2, 7, 4, 6]), rewards


def alone(params, prompts, responses):
    """Log-probabilities of each response's tokens, each text by itself and without padding."""
    found = []
    for prompt, response in zip(prompts, responses, strict=True):
        tokens_BT = jnp.asarray([[*prompt, *response]], jnp.int32)
        logits_TV = Transformer(CONFIG).apply({"params": params}, tokens_BT).logits[0]
        log_p_TV = jax.nn.log_softmax(logits_TV)
        places = np.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
        found.append(log_p_TV[places, jnp.asarray(response)])
    return found


def test_padded_texts_have_the_log_probabilities_and_gradients_of_each_text_alone(params, data):
    prompts, responses, _ = data
    prompts, responses = prompts[:4], responses[:4]
    batch = rollouts.pack(prompts, responses, 4)
    texts = [len(p) + len(r) - 1 for p, r in zip(prompts, responses, strict=True)]
    assert min(texts) < batch.tokens_BT.shape[1], "nothing is padded"
    weights = [np.random.default_rng(6).normal(size=len(r)).astype(np.float32) for r in responses]
    weight_BJ = np.zeros_like(batch.mask_BJ)
    for row, weight in enumerate(weights):
        weight_BJ[row, : len(weight)] = weight

    def together(params):
        log_p_BJ, _ = objectives.log_probabilities(params, batch, CONFIG)
        return jnp.sum(weight_BJ * log_p_BJ), log_p_BJ

    def apart(params):
        found = alone(params, prompts, responses)
        return sum(jnp.sum(w * f) for w, f in zip(weights, found, strict=True)), found

    (_, log_p_BJ), gradient = jax.jit(jax.value_and_grad(together, has_aux=True))(params)
    (_, expected), by_text = jax.jit(jax.value_and_grad(apart, has_aux=True))(params)
    for row, single in enumerate(expected):
        np.testing.assert_allclose(log_p_BJ[row, : len(single)], single, atol=1e-5)
    for found, single in zip(jax.tree.leaves(gradient), jax.tree.leaves(by_text), strict=True):
        assert toys.relative(found, single) < 1e-5


def gradients(recipe, data, trained, reference, frozen=None, task=TASK):
    """Of one step: gradient of what is trained, PPO's critic's, and the parts."""
    model = Trained(recipe=recipe, config=CONFIG, frozen=frozen)
    state = algorithms.initial_state(recipe, CONFIG, trained)
    (parts,) = algorithms.prepare(task, model, state, reference, data)
    tokens = sum(float(part.mask_BJ.sum()) for part in parts)
    sum_of = functools.partial(jax.tree.map, lambda *leaves: sum(leaves))
    found = [algorithms._gradient(recipe, CONFIG, frozen, trained, part)[0] for part in parts]
    if recipe.algorithm != "ppo":
        return sum_of(*found), parts
    critic = [
        algorithms._critic_gradient(recipe, CONFIG, frozen, state["critic"], part, tokens)[1]
        for part in parts
    ]
    return sum_of(*found) | {"critic": sum_of(*critic)}, parts


def assert_same(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # PPO's value head starts at zero, and so do the gradients of what lies below it.
        assert np.linalg.norm(other) == np.linalg.norm(one) == 0 or toys.relative(one, other) < 1e-4


@every_algorithm
def test_a_step_in_parts_has_the_gradient_of_the_whole_step(algorithm, params, reference, data):
    whole, _ = gradients(recipe_of(algorithm), data, params, reference)
    found, parts = gradients(recipe_of(algorithm, rows=2), data, params, reference)
    assert [len(part.tokens_BT) for part in parts] == [2, 2, 2, 2]
    assert_same(found, whole)


def test_parts_of_other_widths_and_a_smaller_last_part_change_nothing(params, reference, data):
    whole, _ = gradients(recipe_of("sft"), data, params, reference)
    narrow = dataclasses.replace(TASK, width_step=1)
    found, parts = gradients(recipe_of("sft", rows=6), data, params, reference, task=narrow)
    assert [part.tokens_BT.shape[0] for part in parts] == [6, 2]
    assert parts[0].tokens_BT.shape[1] != parts[1].tokens_BT.shape[1]
    assert_same(found, whole)


def test_pairs_stay_neighbours_in_their_order(params, reference, data):
    responses = data[1]
    pairs = {(tuple(responses[i]), tuple(responses[i + 1])) for i in range(0, len(responses), 2)}
    _, parts = gradients(recipe_of("dpo", rows=2), data, params, reference)
    found = set()
    for part in parts:
        texts = [
            tuple(row[mask > 0].tolist())
            for row, mask in zip(part.targets_BJ, part.mask_BJ, strict=True)
        ]
        found.add(tuple(texts))
    assert found == pairs


def test_ppos_advantages_over_parts_are_standardised_as_those_of_the_whole(params, reference, data):
    responses = data[1]

    def by_response(rows):
        _, parts = gradients(recipe_of("ppo", rows=rows), data, params, reference)
        found = {}
        for part in parts:
            for row, mask in enumerate(part.mask_BJ):
                key = tuple(part.targets_BJ[row][mask > 0].tolist())
                found[key] = np.asarray(part.advantage_BJ[row])[mask > 0]
        return [found[tuple(response)] for response in responses]

    whole, parts = by_response(0), by_response(2)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    flat = np.concatenate(parts)
    assert abs(flat.mean()) < 1e-5
    assert abs(flat.std() - 1) < 1e-4


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_factors_have_the_gradient_of_the_merged_weights_by_the_chain_rule(
    algorithm, params, reference, data
):
    """dL/dA = scale B^T dL/dW and dL/dB = scale dL/dW A^T, dL/dW by training all merged weights."""
    recipe = recipe_of(algorithm, rank=2, alpha=3.0)
    factors = low_rank.initial_factors(params, 2, jax.random.key(1))
    rng = np.random.default_rng(2)
    for pair in factors.values():
        pair["b"] = jnp.asarray(rng.normal(0, 0.1, pair["b"].shape), jnp.float32)
    start = low_rank.initial_factors(params, 2, jax.random.key(4))
    found, _ = gradients(recipe, data, factors, start, frozen=params)
    merged = low_rank.merged(params, factors, 3.0)
    whole, _ = gradients(recipe_of(algorithm), data, merged, low_rank.merged(params, start, 3.0))
    for name, pair in factors.items():
        a_LrI, b_LOr = np.asarray(pair["a"], np.float64), np.asarray(pair["b"], np.float64)
        weight_LOI = np.asarray(whole["blocks"][name]).reshape(len(a_LrI), b_LOr.shape[1], -1)
        expected = {
            "a": 1.5 * b_LOr.swapaxes(1, 2) @ weight_LOI,
            "b": 1.5 * weight_LOI @ a_LrI.swapaxes(1, 2),
        }
        for letter, gradient in expected.items():
            assert toys.relative(found[name][letter], gradient) < 1e-3
