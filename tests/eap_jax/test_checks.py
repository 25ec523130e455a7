"""Wrong shapes and dtypes are refused by the argument's name before anything is computed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax.attribution import attribute, attribute_prefixes
from eap_jax.checks import check_array
from eap_jax.generation import Sampling, generate
from eap_jax.streaming import Work, attribute_streamed
from eap_jax.transformer import Taps, Transformer

CONFIG = toys.MAIN
PARAMS = toys.random_params(CONFIG)
BATCH = toys.batch_of(toys.random_texts(CONFIG))
RUN = functools.partial(attribute_prefixes, config=CONFIG)


def test_a_letter_is_one_size_a_digit_is_its_own_and_other_letters_are_free():
    array = np.zeros((3, 2, 5), np.int32)
    check_array("x", array, "B2T", jnp.integer, B=3)
    check_array("x", jnp.zeros((3, 5), jnp.bfloat16), "BT", jnp.floating, T=5)
    for axes, kind, sizes, message in (
        ("BT", jnp.integer, {}, r"^x: expected axes \[B, T\], found shape \(3, 2, 5\)$"),
        (
            "B2T",
            jnp.integer,
            {"T": 4},
            r"^x: expected axes \[B, 2, T=4\], found shape \(3, 2, 5\)$",
        ),
        ("B4T", jnp.integer, {}, r"expected axes \[B, 4, T\]"),
        ("B2T", jnp.floating, {}, "^x: expected floating numbers, found int32$"),
    ):
        with pytest.raises(ValueError, match=message):
            check_array("x", array, axes, kind, **sizes)
    with pytest.raises(ValueError, match=r"x: expected axes \[B\], found shape None"):
        check_array("x", [1, 2], "B", jnp.integer)


def changed(name, change):
    """The toy's parameters with one changed."""
    if name in PARAMS:
        return PARAMS | {name: change(PARAMS[name])}
    return PARAMS | {"blocks": PARAMS["blocks"] | {name: change(PARAMS["blocks"][name])}}


BAD_PARAMETERS = [
    (changed("embed", lambda x: x[:, 1:]), r"params\['embed'\]: expected axes \[V=61, D=24\]"),
    (
        changed("q", lambda x: x.swapaxes(1, 2)),
        r"params\['blocks'\]\['q'\]: expected axes \[L=3, N=4",
    ),
    (
        changed("down", lambda x: x[0]),
        r"params\['blocks'\]\['down'\]: expected axes \[L=3, D=24, F",
    ),
    (changed("gate", lambda x: x.astype(int)), r"params\['blocks'\]\['gate'\]: expected floating"),
    ({**PARAMS, "extra": 0}, r"params: expected the names .*'head'.* found .*'extra'"),
    (PARAMS | {"blocks": {}}, r"params\['blocks'\]: expected the names .* found \[\]"),
]


@pytest.mark.parametrize(("params", "message"), BAD_PARAMETERS)
def test_parameters_of_another_model_are_refused_by_name(params, message):
    with pytest.raises(ValueError, match=message):
        attribute(params, BATCH, config=CONFIG)
    with pytest.raises(ValueError, match=message):
        generate(params, [[1]], config=CONFIG, sampling=Sampling(max_new_tokens=1))


BAD_BATCHES = [
    ({"tokens_BT": BATCH.tokens_BT[0]}, r"batch.tokens_BT: expected axes \[B, T\]"),
    ({"tokens_BT": BATCH.tokens_BT + 0.5}, "batch.tokens_BT: expected integer numbers"),
    ({"positions_BJ": BATCH.positions_BJ[:2]}, r"batch.positions_BJ: expected axes \[B=3, J\]"),
    ({"targets_BJ": BATCH.targets_BJ[:, :4]}, r"batch.targets_BJ: expected axes \[B=3, J=9\]"),
    ({"weights_BJ": BATCH.weights_BJ[..., None]}, r"weights_ABJ\[0\]: expected axes \[B=3, J=9\]"),
    ({"weights_BJ": BATCH.targets_BJ}, r"weights_ABJ\[0\]: expected floating numbers"),
]


class Stored:
    """The parameters a part at a time."""

    def __init__(self, params):
        self.params = params

    def blocks(self, layers):
        return ({name: leaf[n] for name, leaf in self.params["blocks"].items()} for n in layers)

    def ends(self, names):
        return {name: self.params[name] for name in names}


@pytest.mark.parametrize(("fields", "message"), BAD_BATCHES)
def test_a_batch_that_does_not_fit_is_refused_by_its_field(fields, message):
    batch = BATCH.replace(**fields)
    with pytest.raises(ValueError, match=message):
        attribute(PARAMS, batch, config=CONFIG)
    work = Work(batch=batch, weights_ABJ=(batch.weights_BJ,), lengths=(9,))
    with pytest.raises(ValueError, match=message):
        attribute_streamed(Stored(PARAMS), [work], config=CONFIG)


def test_losses_that_do_not_fit_their_lengths_are_refused():
    weights_BJ = BATCH.weights_BJ
    for weights_ABJ, lengths, message in (
        ((weights_BJ,), (3, 9), "found 1 arrays and 2 lengths"),
        ((), (), "at least one, found 0 arrays"),
        ((weights_BJ,), (10,), r"lengths: expected numbers from 1 to T=9, found \(10,\)"),
        ((weights_BJ, weights_BJ[:1]), (3, 9), r"weights_ABJ\[1\]: expected axes \[B=3, J=9\]"),
    ):
        with pytest.raises(ValueError, match=message):
            RUN(PARAMS, BATCH, weights_ABJ, lengths=lengths)


def test_streamed_parameters_are_refused_as_they_are_read():
    work = [Work(batch=BATCH, weights_ABJ=(BATCH.weights_BJ,), lengths=(9,))]
    for params, message in (
        (BAD_PARAMETERS[0][0], r"embedding\['embed'\]: expected axes \[V=61, D=24\]"),
        (BAD_PARAMETERS[1][0], r"layer 0\['q'\]: expected axes \[N=4, H=6, D=24\]"),
    ):
        with pytest.raises(ValueError, match=message):
            attribute_streamed(Stored(params), work, config=CONFIG)


def test_the_forward_pass_refuses_tokens_taps_and_positions_by_name():
    tokens_BT = BATCH.tokens_BT
    taps = Taps.zeros(CONFIG, *tokens_BT.shape)
    short = Taps.zeros(CONFIG, 3, 4)
    for arguments, message in (
        ((tokens_BT[0],), r"^tokens_BT: expected axes \[B, T\]"),
        ((tokens_BT, short), r"taps.blocks_L4BTD: expected axes \[L=3, 4, B=3, T=9, D=24\]"),
        ((tokens_BT, taps.replace(logits_BTD=short.logits_BTD)), "taps.logits_BTD: expected axes"),
        ((tokens_BT, None, tokens_BT[0]), r"positions_BJ: expected axes \[B=3, J\]"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(Transformer(CONFIG).apply, {"params": PARAMS}, *arguments)


def test_another_number_of_keys_than_prompts_is_refused():
    sampling = Sampling(max_new_tokens=1, temperature=1.0)
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(
        ValueError, match=r"key: expected one, or one a prompt \[B=2\], found \(3,\)"
    ):
        generate(PARAMS, [[1], [2]], config=CONFIG, sampling=sampling, key=keys)
