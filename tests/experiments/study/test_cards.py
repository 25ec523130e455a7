"""Cards by name, and the memory of devices at hand."""

import os

import jax
import numpy as np
import pytest

from eap_jax.sharding import make_mesh
from experiments.errors import InputError
from experiments.study import cards
from experiments.study.cards import card_of, usable_bytes, usable_on


def test_cards_are_known_by_name_or_size():
    assert card_of("H100").memory_bytes == 84_942_979_072
    assert card_of("a800") == card_of("a100")
    assert card_of("h200").memory_bytes > 140e9
    assert card_of("24").usable_bytes == 18 * 2**30
    for wrong in ("b200", "-1", "nan", "inf", "0", ""):
        with pytest.raises(InputError, match="device: expected h100, .*found"):
            card_of(wrong)


def test_a_simulated_device_has_its_share_of_this_machine():
    total = usable_bytes(jax.devices()[0]) * jax.local_device_count()
    assert 2**28 < total <= 0.75 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_processes_of_unequal_memory_plan_for_the_least(monkeypatch):
    """80 GiB in this process, 96 and 64 in two others; and the smaller of two devices here."""
    memory = {device: 2**30 * (80 + 10 * device.id) for device in jax.devices()}
    monkeypatch.setattr(cards, "usable_bytes", memory.get)
    assert usable_on(make_mesh("data:2")) == 80 * 2**30
    others = 2**10 * np.asarray([96, 64])
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(
        cards.multihost_utils, "process_allgather", lambda own: np.append(own, others)
    )
    assert usable_on(make_mesh("data:2")) == 64 * 2**30
