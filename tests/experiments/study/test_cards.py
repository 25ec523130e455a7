"""Cards by name, and the memory of devices at hand."""

import os

import jax
import pytest

from experiments.errors import InputError
from experiments.study.cards import card_of, usable_bytes


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
