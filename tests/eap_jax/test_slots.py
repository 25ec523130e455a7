"""Which row of which device a prompt gets, and what a batch gives up when few answers are left."""

import jax
import numpy as np
import pytest
import toys

from eap_jax import sharding
from eap_jax.parameters import separate_layers
from eap_jax.sampling import Sampling
from eap_jax.slots import Prompt, Slots

CONFIG = toys.MAIN
KEYS = jax.random.split(jax.random.key(0), 16)


@pytest.fixture(scope="module")
def params():
    return toys.random_params(CONFIG)


def open_slots(params, mesh, rows=8, most=16 + 40):
    mesh = sharding.make_mesh(mesh)
    return Slots(
        separate_layers(sharding.place_parameters(params, CONFIG, mesh)),
        config=CONFIG,
        sampling=Sampling(max_new_tokens=40),
        layout=sharding.decoding_layout(CONFIG, mesh),
        rows=rows,
        most=most,
        keys=KEYS,
    )


def prompt(number, limit, length=1):
    return Prompt(
        number=number,
        tokens=[number + 1] * length,
        limit=limit,
        key=np.asarray(jax.random.key_data(KEYS[0])),
    )


def test_prompts_are_dealt_to_the_devices_evenly_and_stay_there(params):
    """Six prompts in eight rows of two devices; those of the second one end, and two more come."""
    slots = open_slots(params, "data:2")
    assert slots.enter([prompt(n, 2 if n < 3 else 1) for n in range(6)], group=8) == [3, 4, 5]
    assert slots.at_work == 3
    assert slots.vacancies(2) == 2
    assert slots.vacancies(8) == 1 + 4
    assert slots.enter([prompt(6, 9), prompt(7, 9)], group=2) == []
    assert slots.vacancies(2) == 1, "the first device is full"
    assert not slots.compact(4), "four texts on one device do not fit two rows"
    slots.make_room(0)
    ended = slots.collect(slots.start(wanted=6))
    assert ended == [0, 1, 2]
    assert not slots.compact(0)
    assert slots.compact(2), "one text on each device fills two rows"
    assert slots.rows == 2
    assert slots.vacancies(2) == 0
    assert sorted(slots.collect(slots.start(wanted=2))) == [6, 7]
    assert [len(slots.answers[n]) for n in range(8)] == [2, 2, 2, 1, 1, 1, 9, 9]


def test_each_device_holds_its_rows_of_the_cache(params):
    slots = open_slots(params, "data:2")
    slots.enter([prompt(n, 40) for n in range(8)], group=8)
    slots.make_room(0)
    decoded = slots.start(wanted=8)
    for cache in decoded.caches:
        for leaf in (cache.k_BKSH, cache.v_BKSH):
            assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {4}
    assert slots.collect(decoded) == [], "the cache of 48 slots was full first"
    assert [len(slots.answers[n]) for n in range(8)] == [1 + 48 - 16] * 8


def test_a_prompt_that_waits_keeps_its_room_when_the_cache_is_resized(params):
    """The row at work begins at slot 63 of 64, but the next prompt takes all of them."""
    slots, alone = (open_slots(params, "", rows=2, most=64 + 40) for _ in range(2))
    assert slots.enter([prompt(0, 1, length=64), prompt(1, 4)], group=2) == [0]
    slots.make_room(next_width=64)
    for each in (slots, alone):
        assert each.enter([prompt(2, 4, length=64)], group=2) == []
        each.make_room(next_width=0)
        each.collect(each.start(wanted=2))
    assert len(slots.answers[2]) == 4
    assert slots.answers[2] == alone.answers[2]
