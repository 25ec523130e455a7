"""The ladder by hand, moves of the cache against numpy, and what the compiled step reuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax import decoding
from eap_jax.parameters import separate_layers
from eap_jax.sampling import Sampling

GREEDY = Sampling(max_new_tokens=1)


def test_the_ladder_by_hand():
    """Steps of at most a half up to 1,024, then of twice; always a multiple of 16."""
    rungs = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096]
    assert sorted({decoding.ladder(slots) for slots in range(1, 4097)}) == rungs
    for rung in rungs:
        assert decoding.ladder(rung) == rung
        assert decoding.ladder(rung + 1) > rung


def random_cache(rng, rows, slots):
    return rng.normal(size=(rows, 2, slots, 3)).astype(np.float32)


@pytest.mark.parametrize("ways", [1, 2])
def test_new_prompts_are_put_where_they_end_at_the_slot(ways):
    """Rows by number in their own part; a number beyond the part is dropped."""
    rng = np.random.default_rng(0)
    cache, new = random_cache(rng, 8, 12), random_cache(rng, 4, 5)
    own = 8 // ways
    place = np.asarray([own - 1, own, 0, 2], np.int32)
    expected = cache.copy()
    for row, local in enumerate(place):
        if local < own:
            part = row // (4 // ways)
            expected[part * own + local, :, 4:9] = new[row]
    found = decoding.put(jnp.asarray(cache), new, place, 9, ways=ways)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("capacity", [8, 12, 20])
def test_a_shifted_cache_keeps_the_slots_from_the_dropped_ones_on(capacity):
    cache = random_cache(np.random.default_rng(1), 3, 12)
    found = np.asarray(decoding.shift(jnp.asarray(cache), 5, capacity=capacity))
    assert found.shape == (3, 2, capacity, 3)
    np.testing.assert_array_equal(found[:, :, :7], cache[:, :, 5:])


@pytest.mark.parametrize("ways", [1, 2])
def test_taken_rows_come_from_their_own_part(ways):
    cache = random_cache(np.random.default_rng(2), 8, 4)
    place = np.asarray([3, 0, 2, 1], np.int32)
    found = decoding.take(jnp.asarray(cache), place, ways=ways)
    parts = np.repeat(np.arange(ways), 4 // ways) * (8 // ways)
    np.testing.assert_array_equal(found, cache[parts + place])


def test_a_step_updates_the_cache_in_place_and_copies_no_weights():
    """The compiled program's temporary memory is far below its weights, its caches are reused."""
    config = toys.MAIN
    layers = separate_layers(toys.random_params(config))
    caches = decoding.empty_caches(layers, config, 4, 4096)
    zeros = jnp.zeros(4, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 4)
    rows = decoding.Rows(last_B=zeros, start_B=zeros, left_B=zeros + 9, keys_B=keys)
    program = decoding.decode.lower(
        layers, caches, rows, 1, 1, config=config, sampling=GREEDY
    ).compile()
    memory = program.memory_analysis()
    cache_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(caches))
    assert memory.alias_size_in_bytes >= cache_bytes
    assert memory.temp_size_in_bytes < 0.5 * cache_bytes


def test_decoding_ends_at_a_full_cache_or_with_enough_rows_done():
    """Limits of 3, 5, 60 and 90 tokens from slot 40 of 64: two are done after 5 steps; a full cache
    ends after 24."""
    config = toys.MAIN
    layers = separate_layers(toys.random_params(config))
    keys = jax.random.split(jax.random.key(0), 4)

    def steps(wanted):
        caches = decoding.empty_caches(layers, config, 4, 64)
        rows = decoding.Rows(
            last_B=np.ones(4, np.int32),
            start_B=np.full(4, 38, np.int32),
            left_B=np.asarray([5, 90, 3, 60], np.int32),
            keys_B=keys,
        )
        found = decoding.decode(layers, caches, rows, 40, wanted, config=config, sampling=GREEDY)
        return int(found.steps)

    assert [steps(wanted) for wanted in (1, 2, 3)] == [3, 5, 24]
