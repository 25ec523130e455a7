"""RMSNorm, rotary embedding, gate and product against numpy in float64, torch and transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax.layers import gated, linear, rms_norm, rotate, softcap, times
from eap_jax.places import rotary_tables

RNG_SEED = 0


@pytest.fixture
def rng():
    return np.random.default_rng(RNG_SEED)


def test_rms_norm_equals_its_formula(rng):
    x, gain = rng.normal(0, 3, (2, 5, 16)), rng.normal(1, 0.5, 16)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1) * gain
    found = rms_norm(jnp.asarray(x, jnp.float32), jnp.asarray(gain, jnp.float32), 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rms_norm_does_not_change_with_its_inputs_scale(rng):
    x, gain = rng.normal(size=(3, 16)).astype(np.float32), jnp.ones(16)
    np.testing.assert_allclose(rms_norm(64 * x, gain, 1e-12), rms_norm(x, gain, 1e-12), rtol=1e-6)


def test_rms_norm_of_zeros_is_zero_and_has_a_finite_gradient():
    zeros = jnp.zeros((2, 16))
    assert not np.asarray(rms_norm(zeros, jnp.ones(16), 1e-6)).any()
    gradient = jax.grad(lambda x: rms_norm(x, jnp.ones(16), 1e-6).sum())(zeros)
    assert np.isfinite(gradient).all()


def test_rms_norm_in_bfloat16_rounds_where_transformers_rounds(torch, rng):
    """Bit by bit: statistics in float32, cast, then multiply."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    x, gain = rng.normal(0, 3, (64, 32)), rng.normal(1, 0.5, 32)
    norm = LlamaRMSNorm(32, eps=1e-6).to(torch.bfloat16)
    norm.weight.data = torch.tensor(gain, dtype=torch.bfloat16)
    expected = norm(torch.tensor(x, dtype=torch.bfloat16)).detach().float().numpy()
    found = rms_norm(jnp.asarray(x, jnp.bfloat16), jnp.asarray(gain, jnp.bfloat16), 1e-6)
    assert found.dtype == jnp.bfloat16
    # A last bit may differ where the float32 statistics round to the other side.
    assert (np.asarray(found, np.float32) == expected).mean() > 0.995


def test_rotation_of_position_zero_is_the_identity_and_lengths_are_kept(rng):
    x = rng.normal(size=(1, 4, 9, 6)).astype(np.float32)
    found = np.asarray(rotate(x, *rotary_tables(toys.MAIN, np.arange(9)[None])))
    np.testing.assert_array_equal(found[:, :, 0], x[:, :, 0])
    np.testing.assert_allclose(
        np.linalg.norm(found, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5
    )


def test_rotation_turns_each_pair_of_halves_by_position_times_frequency(rng):
    """As complex numbers: (first half + i second half) * exp(i position frequency)."""
    x = rng.normal(size=(2, 3, 5, 6))
    positions = np.asarray([[0, 1, 2, 3, 4], [7, 100, 3, 2000, 9]])
    frequencies = 10000.0 ** -(np.arange(3) / 3)
    turned = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * positions[:, None, :, None] * frequencies)
    tables = rotary_tables(toys.MAIN, jnp.asarray(positions))
    found = rotate(jnp.asarray(x, jnp.float32), *tables)
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=2e-6)


def test_rotary_angles_stay_float32_in_a_bfloat16_model(rng):
    """At position 2,001 an angle in bfloat16 would be off by radians."""
    x = jnp.asarray(rng.normal(size=(1, 2, 1, 6)), jnp.bfloat16)
    tables = rotary_tables(toys.MAIN, jnp.asarray([[2001]]))
    found = rotate(x, *tables)
    assert found.dtype == jnp.bfloat16
    exact = rotate(x.astype(jnp.float32), *tables)
    np.testing.assert_allclose(np.asarray(found, np.float32), exact, rtol=0, atol=0.05)


def test_the_end_of_a_head_stays_where_the_tables_are_smaller(rng):
    """Partial rotation (Phi-4): the first six of ten numbers turn as a head of six would."""
    x = jnp.asarray(rng.normal(size=(1, 2, 5, 10)), jnp.float32)
    tables = rotary_tables(toys.MAIN, np.arange(5)[None])
    found = rotate(x, *tables)
    np.testing.assert_array_equal(found[..., 6:], x[..., 6:])
    np.testing.assert_array_equal(found[..., :6], rotate(x[..., :6], *tables))


def test_a_gain_with_an_offset_is_that_gain_more(rng):
    """In bfloat16 as transformers' Gemma rounds it: once, after the gain."""
    x, gain = rng.normal(0, 3, (64, 16)), rng.normal(0, 0.5, 16)
    found, plain = (
        rms_norm(jnp.asarray(x, jnp.float32), jnp.asarray(leaf, jnp.float32), 1e-6, offset)
        for leaf, offset in ((gain, 1.0), (gain + 1, 0.0))
    )
    np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)
    low = jnp.asarray(x, jnp.bfloat16), jnp.asarray(gain, jnp.bfloat16)
    exact = rms_norm(*(leaf.astype(jnp.float32) for leaf in low), 1e-6, 1.0)
    np.testing.assert_array_equal(rms_norm(*low, 1e-6, 1.0), exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(("name", "approximate"), [("gelu_tanh", "tanh"), ("gelu", "none")])
def test_gelu_gates_equal_torch(torch, rng, name, approximate):
    gate, up = rng.normal(0, 2, (2, 50)).astype(np.float32)
    expected = torch.nn.functional.gelu(torch.tensor(gate), approximate=approximate).numpy() * up
    np.testing.assert_allclose(gated(gate, up, name), expected, rtol=1e-5, atol=1e-6)


def test_a_soft_cap_bounds_and_a_factor_multiplies(rng):
    x = jnp.asarray(rng.normal(0, 30, 50), jnp.float32)
    np.testing.assert_allclose(softcap(x, 5.0), 5 * np.tanh(np.asarray(x) / 5), rtol=1e-5)
    assert softcap(x, None) is x
    assert times(x, 1.0) is x
    low = times(jnp.asarray([3.0], jnp.bfloat16), 0.22)
    assert low.dtype == jnp.bfloat16
    assert float(low[0]) == float(jnp.asarray(3 * 0.22, jnp.bfloat16))


def test_gate_is_silu_times_up(rng):
    gate, up = rng.normal(0, 3, (2, 4, 8))
    expected = gate / (1 + np.exp(-gate)) * up
    np.testing.assert_allclose(
        gated(jnp.asarray(gate, jnp.float32), jnp.asarray(up, jnp.float32)),
        expected,
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("shape", [(1,), (2, 1), (3, 40), (128,), (43, 3), (5, 60)])
def test_linear_is_the_transposed_product_for_few_and_many_rows(rng, shape):
    """Value and gradients against float64; 128 rows and fewer are multiplied the other way round."""
    x, weight, ct = (
        rng.normal(size=(*shape, 7)),
        rng.normal(size=(9, 7)),
        rng.normal(size=(*shape, 9)),
    )
    found, pull = jax.vjp(linear, jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32))
    grad_x, grad_weight = pull(jnp.asarray(ct, jnp.float32))
    np.testing.assert_allclose(found, x @ weight.T, rtol=0, atol=1e-5)
    np.testing.assert_allclose(grad_x, ct @ weight, rtol=0, atol=1e-5)
    expected = ct.reshape(-1, 9).T @ x.reshape(-1, 7)
    np.testing.assert_allclose(grad_weight, expected, rtol=0, atol=1e-4)


def test_linear_casts_the_weight_to_the_activations_dtype(rng):
    x, weight = rng.normal(size=(2, 16)), rng.normal(size=(4, 16))
    found = linear(jnp.asarray(x, jnp.bfloat16), jnp.asarray(weight, jnp.float32))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float32), x @ weight.T, rtol=0, atol=0.2)


@pytest.mark.parametrize(("rows", "first"), [(128, "9x7"), (129, "129x7")])
def test_few_rows_are_the_second_operand_of_the_compiled_product(rows, first):
    """The weight first, W x^T: what makes decoding fast on a CPU."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((rows, 7), (9, 7))]
    lowered = jax.jit(linear).lower(*shapes).as_text()
    (product,) = [line for line in lowered.splitlines() if "dot_general" in line]
    assert product.split(": (")[1].startswith(f"tensor<{first}xf32>")
    assert ("optimization_barrier" in lowered) == (rows == 128)
