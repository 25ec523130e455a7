"""Layers that differ: which table and which window each gets, stacked, traced and in plain numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import toys

from eap_jax.places import ALIKE, Kind, Places, RotarySet, rotary_sets, rotary_tables
from eap_jax.rope import RopeScaling

LINEAR = RopeScaling(kind="linear", factor=4.0)
MIXED = dataclasses.replace(
    toys.MAIN, num_layers=4, layer_windows=(5, None, 5, None), rope_theta=1e6, rope_scaling=LINEAR,
    local_rope_theta=1e4, layer_rotary=(True, True, False, True),
)  # fmt: skip


def test_layers_that_are_alike_have_one_table_and_no_kind():
    config = dataclasses.replace(toys.MAIN, layer_windows=None)
    assert Kind.stacked(config) == ALIKE
    assert Kind.each(config) == (ALIKE,) * config.num_layers
    assert rotary_tables(config, jnp.arange(7)[None])[0].shape == (1, 7, config.head_dim)


def test_each_layer_has_its_own_window_and_frequencies():
    local, main = RotarySet(theta=1e4), RotarySet(theta=1e6, scaling=LINEAR)
    assert rotary_sets(MIXED) == (local, main, RotarySet(theta=None))
    kinds = Kind.each(MIXED)
    assert [(kind.window, kind.table) for kind in kinds] == [(5, 0), (None, 1), (5, 2), (None, 1)]
    stacked = Kind.stacked(MIXED)
    np.testing.assert_array_equal(stacked.table, [0, 1, 2, 1])
    np.testing.assert_array_equal(stacked.window, [5, 2**31 - 1, 5, 2**31 - 1])


def test_a_layers_table_is_that_of_a_model_with_its_frequencies_alone():
    places = Places.of_texts(MIXED, 9)
    lone = {
        0: dataclasses.replace(toys.MAIN, rope_theta=1e4),
        1: dataclasses.replace(toys.MAIN, rope_theta=1e6, rope_scaling=LINEAR),
    }
    traced = jax.jit(lambda number: places.rotary(Kind.stacked(MIXED).of(number)))
    for number, config in lone.items():
        expected = rotary_tables(config, jnp.arange(9)[None])
        for found in (places.rotary(Kind.each(MIXED)[number]), traced(number)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    cos, sin = traced(2)
    assert (np.asarray(cos) == 1).all()
    assert not np.asarray(sin).any()


def test_the_attention_factor_multiplies_cosine_and_sine():
    yarn = RopeScaling(
        kind="yarn", factor=1.0, original_context=64, attention_factor=1.5, beta_fast=32.0,
        beta_slow=1.0, truncate=True,
    )  # fmt: skip
    plain, scaled = (
        rotary_tables(dataclasses.replace(toys.MAIN, rope_scaling=scaling), jnp.arange(5)[None])
        for scaling in (None, yarn)
    )
    np.testing.assert_allclose(scaled, 1.5 * np.asarray(plain), rtol=1e-6)


def test_positions_in_slots_begin_where_the_text_does():
    places = Places.of_slots(MIXED, jnp.arange(3, 5), 8, jnp.asarray([0, 2]), whole=False)
    expected = rotary_tables(MIXED, jnp.asarray([[3, 4], [1, 2]]))
    np.testing.assert_array_equal(places.cos, expected[0])
    np.testing.assert_array_equal(places.sin, expected[1])
