"""Activations are kept where they fit and computed twice where they do not."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import pytest
import toys

from eap_jax.block import Block, Places
from eap_jax.sharding import make_mesh
from experiments.scoring import memory

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"].config


def test_estimates_count_what_a_block_returns():
    rows, length = 3, 10
    params = jax.tree.map(lambda leaf: leaf[0], toys.random_params(TOY)["blocks"])
    stream_BTD = jnp.zeros((rows, length, TOY.d_model))
    places = Places.of_texts(TOY, length)
    _, (writes, kept) = Block(TOY).apply({"params": params}, stream_BTD, places)
    assert memory.activation_bytes(TOY, rows * length, 4) == sum(
        leaf.nbytes for leaf in jax.tree.leaves(kept)
    )
    assert memory.write_bytes(TOY, rows * length, 4) == (
        TOY.num_layers * writes.nbytes + stream_BTD.nbytes
    )


def test_a_simulated_device_has_its_share_of_this_machine():
    total = memory.device_bytes(jax.devices()[0]) * jax.local_device_count()
    assert 2**28 < total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("mesh", "tokens"), [("", 1000), ("data:2", 2000)])
def test_the_choice_turns_where_weights_and_activations_fill_three_quarters(
    mesh, tokens, monkeypatch
):
    config = dataclasses.replace(TOY, num_layers=5)
    weights = 4 * config.num_parameters
    layer = memory.activation_bytes(config, 1000, 4)
    needed = weights + memory.write_bytes(config, 1000, 4) + 5 * layer

    def choice(device_bytes):
        monkeypatch.setattr(memory, "device_bytes", lambda _: device_bytes)
        return memory.recompute_activations(config, 4, tokens, make_mesh(mesh))

    assert not choice(needed / 0.75 + 100)
    assert choice(needed / 0.75 - 100)


def test_a_split_model_leaves_more_room(monkeypatch):
    needed = 4 * TOY.num_parameters + memory.write_bytes(TOY, 8, 4)
    needed += TOY.num_layers * memory.activation_bytes(TOY, 8, 4)
    monkeypatch.setattr(memory, "device_bytes", lambda _: needed)
    assert memory.recompute_activations(TOY, 4, 8, make_mesh(""))
    assert not memory.recompute_activations(TOY, 4, 8, make_mesh("model:2"))


@pytest.mark.parametrize(("mesh", "devices"), [("", 1), ("data:2", 2), ("data:2,model:2", 4)])
def test_the_heads_float32_logits_take_a_256th_of_each_devices_memory(mesh, devices, monkeypatch):
    monkeypatch.setattr(memory, "device_bytes", lambda _: 64 * 2**30)
    assert memory.head_logits(make_mesh(mesh)) * 4 / devices == 2**28


def test_streaming_keeps_a_quarter_of_the_memory(monkeypatch):
    monkeypatch.setattr(memory, "device_bytes", lambda _: 64 * 2**30)
    assert memory.streamed_bytes() == 16 * 2**30
