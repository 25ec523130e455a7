"""Attention against loops over heads, queries and keys in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eap_jax.attention import attend, attend_text, visible


def literal(q, k, v, seen):
    """softmax(q k / sqrt(H)) v head by head; query head n uses key head n // (N / K)."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    result = np.zeros(q.shape)
    group = q.shape[1] // k.shape[1]
    for b, n, t in np.ndindex(q.shape[:3]):
        keys = [s for s in range(k.shape[2]) if seen[min(b, len(seen) - 1), 0, t, s]]
        logits = np.asarray([q[b, n, t] @ k[b, n // group, s] for s in keys]) / q.shape[3] ** 0.5
        weights = np.exp(logits - logits.max())
        result[b, n, t] = weights / weights.sum() @ v[b, n // group, keys]
    return result


def heads(num_heads, num_kv_heads, queries=6, keys=6):
    rng = np.random.default_rng(0)
    return tuple(
        rng.normal(0, 2, (2, count, length, 10)).astype(np.float32)
        for length, count in ((queries, num_heads), (keys, num_kv_heads), (keys, num_kv_heads))
    )


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("start", [None, (0, 2)])
def test_a_query_sees_its_windows_past_from_the_first_used_slot(window, start):
    queries, keys = [4, 5, 6], range(8)
    start_B = None if start is None else jnp.asarray(start)
    found = visible(jnp.asarray(queries), jnp.arange(8), window=window, start_B=start_B)
    assert found.shape == (1 if start is None else 2, 1, 3, 8)
    for row, first in enumerate(start or (0,)):
        for t, query in enumerate(queries):
            expected = [
                first <= key <= query and (window is None or key > query - window) for key in keys
            ]
            assert found[row, 0, t].tolist() == expected


def test_a_traced_window_equals_a_fixed_one():
    slots = jnp.arange(9)
    traced = jax.jit(lambda window: visible(slots, slots, window=window))(4)
    np.testing.assert_array_equal(traced, visible(slots, slots, window=4))


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("window", [None, 2])
def test_attention_equals_loops_over_heads_queries_and_keys(num_heads, num_kv_heads, window):
    q, k, v = heads(num_heads, num_kv_heads)
    seen = visible(jnp.arange(6), jnp.arange(6), window=window)
    np.testing.assert_allclose(attend(q, k, v, seen), literal(q, k, v, seen), rtol=0, atol=2e-5)


def test_new_queries_over_a_longer_cache_equal_loops():
    """Two new tokens in slots 5 and 6 of a cache of 9; row 1 begins in slot 3."""
    q, k, v = heads(6, 2, queries=2, keys=9)
    seen = visible(jnp.asarray([5, 6]), jnp.arange(9), start_B=jnp.asarray([0, 3]))
    found = attend(q, k, v, seen)
    np.testing.assert_allclose(found, literal(q, k, v, seen), rtol=0, atol=2e-5)
    k[:, :, 7:], v[:, :, 7:] = 1e9, 1e9  # Slots not yet written must not matter.
    np.testing.assert_array_equal(attend(q, k, v, seen), found)


def test_a_query_without_keys_is_finite_in_value_and_gradient():
    q, k, v = heads(4, 2)
    seen = visible(jnp.arange(6), jnp.arange(6), start_B=jnp.asarray([0, 4]))
    value, gradient = jax.value_and_grad(lambda q: attend(q, k, v, seen)[1].sum())(q)
    assert np.isfinite(attend(q, k, v, seen)).all()
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_masked_keys_have_no_weight_beside_logits_far_below_zero():
    q, k, v = heads(2, 2)
    q, k = 0 * q + 20, 0 * k - 20  # logits of -1265
    seen = visible(jnp.arange(6), jnp.arange(6))
    np.testing.assert_allclose(attend(q, k, v, seen), literal(q, k, v, seen), rtol=0, atol=2e-5)


def test_bfloat16_attention_keeps_its_softmax_in_float32():
    """Error of the order of rounding inputs and output once, and the output's dtype is bfloat16."""
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in heads(4, 2, queries=1, keys=300))
    seen = jnp.ones((1, 1, 1, 300), bool)
    found = attend(q, k, v, seen)
    assert found.dtype == jnp.bfloat16
    exact = literal(*(np.asarray(x, np.float32) for x in (q, k, v)), seen)
    error = np.abs(np.asarray(found, np.float32) - exact).max()
    assert error <= 2**-7 * np.abs(exact).max()


def test_bfloat16_products_are_bfloat16_there_and_back():
    """No product has a float32 operand, and gradients err as bfloat16 rounds, not more."""
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in heads(4, 2, queries=70, keys=70))
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), jnp.bfloat16)

    def back(q, k, v, cotangent):
        return jax.vjp(attend_text, q, k, v)[1](cotangent)

    lowered = jax.jit(back).lower(q, k, v, cotangent)
    types = re.findall(r"dot_general.*: \((.*)\) ->", lowered.as_text())
    assert len(types) >= 2 * 5  # of two groups: logits again, and the gradients of two products
    assert all(operands.count("xbf16>") == 2 for operands in types)
    exact = jax.jit(back)(*(x.astype(jnp.float32) for x in (q, k, v, cotangent)))
    for one, other in zip(lowered.compile()(q, k, v, cotangent), exact, strict=True):
        assert one.dtype == jnp.bfloat16
        error = np.abs(np.asarray(one, np.float32) - other)
        assert error.mean() <= 2**-8 * np.abs(other).mean()
        assert error.max() <= 2**-7 * np.abs(other).max()


@pytest.mark.parametrize("length", [5, 64, 65, 129, 300, 2100])
@pytest.mark.parametrize("window", [None, 7])
def test_groups_of_queries_attend_and_differentiate_as_the_whole_text_does(length, window):
    keys = jax.random.split(jax.random.key(length), 4)
    q, ct = (jax.random.normal(key, (1, 4, length, 8)) for key in keys[:2])
    k, v = (jax.random.normal(key, (1, 2, length, 8)) for key in keys[2:])
    slots = jnp.arange(length)
    seen = visible(slots, slots, window=window)

    @jax.jit  # operation by operation, every group's shapes would be compiled apart
    def both(q, k, v, ct, seen):
        expected, pull = jax.vjp(lambda q, k, v: attend(q, k, v, seen), q, k, v)
        found, pull_groups = jax.vjp(lambda q, k, v: attend_text(q, k, v, window), q, k, v)
        return (found, *pull_groups(ct)), (expected, *pull(ct))

    for one, other in zip(*both(q, k, v, ct, seen), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * float(jnp.abs(other).max()))


@pytest.mark.parametrize(("platform", "groups"), [("cpu", (4, 9)), ("cuda", (1, 2))])
def test_a_gpu_compiles_few_groups_of_queries(platform, groups):
    """Two products a group there, five back; the branch of the other platform is not lowered."""

    def back(q, k, v, cotangent):
        return jax.vjp(attend_text, q, k, v)[1](cotangent)

    for length, count in zip((224, 513), groups, strict=True):
        x = jax.ShapeDtypeStruct((1, 2, length, 8), jnp.bfloat16)
        for function, arguments, products in ((attend_text, 3, 2), (back, 4, 5)):
            traced = jax.jit(function).trace(*[x] * arguments)
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert text.count("stablehlo.dot_general") == products * count


def test_whole_texts_may_begin_in_a_later_slot():
    """Left-padded prompts of two groups of queries; places before the text hold nothing."""
    q, k, v = heads(4, 2, queries=70, keys=70)
    start_B = jnp.asarray([0, 66])
    seen = visible(jnp.arange(70), jnp.arange(70), window=9, start_B=start_B)
    found = np.asarray(attend_text(q, k, v, 9, start_B))
    expected = np.asarray(attend(q, k, v, seen))
    close = functools.partial(
        np.testing.assert_allclose, rtol=0, atol=2e-6 * np.abs(expected).max()
    )
    close(found[0], expected[0])
    close(found[1, :, 66:], expected[1, :, 66:])
    assert np.isfinite(found).all()
