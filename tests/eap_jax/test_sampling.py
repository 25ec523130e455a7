"""Choosing one token, and the settings of it; distributions are tested through `generate`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eap_jax.sampling import Sampling, choose, stops


def test_greedy_takes_the_first_of_equally_likely_tokens():
    logits = jnp.asarray([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, 1.0, 4.0]], jnp.bfloat16)
    keys = jax.random.split(jax.random.key(0), 3)
    found = choose(logits, keys, jnp.arange(3), Sampling(max_new_tokens=1))
    assert found.tolist() == [1, 0, 2]


def test_a_draw_is_a_function_of_key_and_position():
    """Equal rows: other neighbours and another place change nothing, another position does."""
    logits = jnp.zeros((4, 10**6))
    keys = jax.random.split(jax.random.key(0), 2)[np.asarray([0, 1, 0, 0])]
    sampling = Sampling(max_new_tokens=1, temperature=1.0)
    first = choose(logits, keys, jnp.asarray([5, 5, 5, 6]), sampling).tolist()
    assert first[0] == first[2]
    assert len(set(first)) == 3
    again = choose(logits[:2], keys[1:3], jnp.asarray([5, 5]), sampling).tolist()
    assert again == first[1:3]


def test_a_nucleus_ends_with_the_token_that_reaches_it():
    """A half and two quarters, exactly: a half is reached by the first token alone."""
    logits = jnp.asarray([[1.0, 0.0, 0.0]]) * jnp.log(2.0)
    assert jax.nn.softmax(logits).tolist() == [[0.5, 0.25, 0.25]]
    keys = jax.random.split(jax.random.key(0), 64)

    def drawn(top_p):
        sampling = Sampling(max_new_tokens=1, temperature=1.0, top_p=top_p)
        return set(choose(jnp.tile(logits, (64, 1)), keys, jnp.arange(64), sampling).tolist())

    assert drawn(0.5) == {0}
    assert drawn(0.51) > {0}


def test_stop_tokens_are_any_of_several_or_none():
    tokens = jnp.asarray([4, 7, 9])
    several = Sampling(max_new_tokens=1, stop_tokens=(9, 4))
    assert stops(tokens, several).tolist() == [True, False, True]
    assert not stops(tokens, Sampling(max_new_tokens=1)).any()


@pytest.mark.parametrize(
    "field",
    [{"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0},
     {"top_p": 1.1}, {"top_p": float("nan")}],
    ids=str,
)  # fmt: skip
def test_a_sampling_field_out_of_range_is_refused_by_name(field):
    (name,) = field
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        Sampling(**({"max_new_tokens": 1} | field))
