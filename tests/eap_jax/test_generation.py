"""Generation against transformers' `generate`, full forward passes and enumerated distributions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toys

from eap_jax import slots
from eap_jax.generation import Sampling, finished, generate
from eap_jax.parameters import separate_layers
from eap_jax.rope import RopeScaling
from eap_jax.transformer import Transformer

NAMES = (
    "grouped, q/k/v biases, theta 1e6",
    "window 5 above the first layer",
    "window 7, tied head",
)
LENGTHS = (3, 20, 1, 11)


def prompts_of(config, lengths=LENGTHS):
    rng = np.random.default_rng(7)
    return [rng.integers(1, config.vocab_size, length).tolist() for length in lengths]


@pytest.fixture(scope="module")
def main():
    """The main toy, its prompts and 64 greedy tokens of each."""
    params, prompts = toys.random_params(toys.MAIN), prompts_of(toys.MAIN)
    greedy = generate(params, prompts, config=toys.MAIN, sampling=Sampling(max_new_tokens=64))
    return params, prompts, greedy


@pytest.mark.parametrize("name", NAMES)
def test_greedy_ids_equal_transformers_generate(torch, name, main):
    """64 new tokens for a batch of unequal prompts; transformers gets each prompt alone."""
    toy = toys.ZOO[name]
    params, prompts = toys.random_params(toy.config), prompts_of(toy.config)
    if toy.config == toys.MAIN:
        found = main[2]
    else:
        found = generate(params, prompts, config=toy.config, sampling=Sampling(max_new_tokens=64))
    model = toys.torch_model(toy, params)
    model.generation_config.pad_token_id = 0
    for prompt, response in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
        )[0, len(prompt) :]
        assert response == expected.tolist()


@functools.partial(jax.jit, static_argnames="config")
def forward(params, tokens_BT, *, config):
    return Transformer(config).apply({"params": params}, tokens_BT).logits


def full_forward_argmax(params, config, prompt, response):
    """Argmax of one pass over the whole text, at the places that predict the response."""
    tokens = np.asarray([prompt + response], np.int32)
    logits = forward(params, tokens, config=config)
    return np.asarray(logits[0, len(prompt) - 1 : -1].argmax(-1)).tolist()


def test_decoding_with_a_growing_cache_equals_full_forward_passes(main):
    """150 tokens outgrow the first cache three times, and the window of 5 many times."""
    params, prompts, greedy = main
    long = generate(params, prompts[:2], config=toys.MAIN, sampling=Sampling(max_new_tokens=150))
    for prompt, response, short in zip(prompts[:2], long, greedy[:2], strict=True):
        assert len(response) == 150
        assert response[:64] == short
        assert full_forward_argmax(params, toys.MAIN, prompt, response) == response


@pytest.mark.parametrize("width", [16, 17])
def test_prompts_at_the_edge_of_a_slot_block_decode_as_full_forward_passes(main, width):
    params, _, _ = main
    prompts = prompts_of(toys.MAIN, (width, 2))
    found = generate(params, prompts, config=toys.MAIN, sampling=Sampling(max_new_tokens=3))
    for prompt, response in zip(prompts, found, strict=True):
        assert full_forward_argmax(params, toys.MAIN, prompt, response) == response


def test_bfloat16_weights_decode_in_bfloat16(main):
    """Greedy ids follow the full bfloat16 pass wherever its best token is clear."""
    params, prompts, _ = main
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    (response,) = generate(low, prompts[:1], config=toys.MAIN, sampling=Sampling(max_new_tokens=16))
    tokens = np.asarray([prompts[0] + response], np.int32)
    logits = Transformer(toys.MAIN).apply({"params": low}, tokens).logits
    assert logits.dtype == jnp.bfloat16
    logits = np.asarray(logits[0, len(prompts[0]) - 1 : -1], np.float32)
    behind = logits.max(-1) - logits[np.arange(16), response]
    assert (behind <= 0.05 * np.abs(logits).max()).all()


# Stopping.


def first_stop(response, stops):
    places = [n for n, token in enumerate(response) if token in stops]
    return response[: places[0] + 1] if places else response


def test_a_stop_token_ends_its_row_and_no_other(main):
    """Stop tokens change where a response ends, never what it says before."""
    params, prompts, greedy = main
    stops = (greedy[0][5], greedy[1][20])
    found = generate(
        params, prompts, config=toys.MAIN, sampling=Sampling(max_new_tokens=64, stop_tokens=stops)
    )
    assert found == [first_stop(response, stops) for response in greedy]
    assert len({len(response) for response in found}) > 1
    assert found[0][-1] in stops


def test_transformers_stops_at_the_same_token(torch, main):
    params, prompts, greedy = main
    stop = greedy[1][9]
    found = generate(
        params,
        prompts[1:2],
        config=toys.MAIN,
        sampling=Sampling(max_new_tokens=64, stop_tokens=(stop,)),
    )
    model = toys.torch_model(toys.ZOO["window 5 above the first layer"], params)
    ids = torch.tensor(prompts[1:2])
    expected = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False,
        eos_token_id=stop, pad_token_id=0,
    )  # fmt: skip
    assert found[0] == expected[0, len(prompts[1]) :].tolist()


def test_a_stop_as_the_first_token_and_a_limit_of_one_token(main):
    params, prompts, greedy = main
    stops = tuple({response[0] for response in greedy})
    sampling = Sampling(max_new_tokens=64, stop_tokens=stops)
    expected = [response[:1] for response in greedy]
    assert generate(params, prompts, config=toys.MAIN, sampling=sampling) == expected
    one = Sampling(max_new_tokens=1)
    assert generate(params, prompts, config=toys.MAIN, sampling=one) == expected


def test_decoding_ends_early_once_every_row_has_stopped(main, monkeypatch):
    """With a limit of 4,000 tokens the cache must not grow to it."""
    params, prompts, greedy = main
    sampling = Sampling(max_new_tokens=4000, stop_tokens=(greedy[0][3],))
    monkeypatch.setattr(slots, "shift", None)
    found = generate(params, prompts[:1], config=toys.MAIN, sampling=sampling)
    assert found == [first_stop(greedy[0], sampling.stop_tokens)]


# Sampling.


def next_token_probabilities(params, prompt, temperature, top_p=1.0):
    """Softmax of the last logits over temperature, the nucleus found by adding up tokens."""
    tokens = np.asarray([prompt], np.int32)
    logits = Transformer(toys.MAIN).apply({"params": params}, tokens).logits[0, -1]
    weights = np.exp(np.asarray(logits, np.float64) / temperature)
    weights /= weights.sum()
    kept, total = np.zeros(len(weights), bool), 0.0
    for token in sorted(range(len(weights)), key=lambda t: -weights[t]):
        if total >= top_p:
            break
        kept[token] = True
        total += weights[token]
    weights[~kept] = 0
    return weights / weights.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8), (1.5, 0.5)])
def test_sampled_tokens_follow_the_enumerated_distribution(main, temperature, top_p):
    params, prompts, _ = main
    draws = 4096
    sampling = Sampling(max_new_tokens=1, temperature=temperature, top_p=top_p)
    found = generate(
        params, [prompts[0]] * draws, config=toys.MAIN, sampling=sampling, key=jax.random.key(0)
    )
    counts = np.bincount(np.ravel(found), minlength=toys.MAIN.vocab_size)
    expected = draws * next_token_probabilities(params, prompts[0], temperature, top_p)
    assert not counts[expected == 0].any()
    # Rare tokens are pooled: the chi-square test needs about five expected draws a class.
    rare = (expected < 5) & (expected > 0)
    classes = [(counts[~rare & (expected > 0)], expected[~rare & (expected > 0)])]
    if rare.any():
        classes.append(([counts[rare].sum()], [expected[rare].sum()]))
    observed, wanted = (np.concatenate(column) for column in zip(*classes, strict=True))
    assert len(wanted) > 2
    assert scipy.stats.chisquare(observed, wanted).pvalue > 1e-3


def test_successive_tokens_of_a_row_are_independent_draws(main):
    """Second tokens given the first: not the same random number used twice."""
    params, prompts, _ = main
    sampling = Sampling(max_new_tokens=2, temperature=1e6)
    found = np.asarray(
        generate(
            params, [prompts[0]] * 4096, config=toys.MAIN, sampling=sampling, key=jax.random.key(1)
        )
    )
    # At this temperature all tokens are equally likely: equal pairs occur once in V.
    assert (found[:, 0] == found[:, 1]).mean() == pytest.approx(1 / 61, abs=0.01)
    assert len(np.unique(found[:, 0])) == len(np.unique(found[:, 1])) == 61


def test_a_temperature_near_zero_and_a_tiny_nucleus_are_greedy(main):
    params, prompts, greedy = main
    for sampling in (
        Sampling(max_new_tokens=8, temperature=1e-4),
        Sampling(max_new_tokens=8, temperature=1.0, top_p=1e-6),
    ):
        found = generate(
            params, prompts, config=toys.MAIN, sampling=sampling, key=jax.random.key(0)
        )
        assert found == [response[:8] for response in greedy]


def test_a_rows_samples_depend_on_its_key_and_text_not_on_the_batch(main):
    params, prompts, _ = main
    sampling = Sampling(max_new_tokens=12, temperature=1.0)
    keys = jax.random.split(jax.random.key(3), len(prompts))
    together = generate(params, prompts, config=toys.MAIN, sampling=sampling, key=keys)
    order = [3, 1]  # The same padded width, so that no other program is compiled.
    apart = generate(
        params,
        [prompts[n] for n in order],
        config=toys.MAIN,
        sampling=sampling,
        key=keys[np.asarray(order)],
    )
    assert apart == [together[n] for n in order]
    one_key = generate(params, prompts, config=toys.MAIN, sampling=sampling, key=jax.random.key(3))
    fewer = generate(
        params, prompts[:2], config=toys.MAIN, sampling=sampling, key=jax.random.key(3)
    )
    assert fewer == one_key[:2]
    same = generate(
        params, [prompts[1]] * 4, config=toys.MAIN, sampling=sampling, key=jax.random.key(3)
    )
    assert len(set(map(tuple, same))) == 4
    other = generate(params, prompts, config=toys.MAIN, sampling=sampling, key=jax.random.key(4))
    assert other != one_key


# Bad input.


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "at least one"),
        ([[1], []], "prompt 1: expected at least one token"),
        ([[1, 61]], "prompt 0: expected token ids below 61, found 1 to 61"),
        ([[3], [-1, 2]], "prompt 1: expected token ids below 61, found -1 to 2"),
    ],
)
def test_bad_prompts_are_refused_by_number(main, prompts, message):
    with pytest.raises(ValueError, match=message):
        generate(main[0], prompts, config=toys.MAIN, sampling=Sampling(max_new_tokens=1))


def test_sampling_without_a_key_is_refused(main):
    with pytest.raises(ValueError, match="needs a key"):
        generate(
            main[0], [[1]], config=toys.MAIN, sampling=Sampling(max_new_tokens=1, temperature=1.0)
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": 0}, "rows: expected at least 1, found 0"),
        ({"limits": [2, 0]}, "limits: expected one from 1 to 2 for each of 2 prompts"),
        ({"limits": [3, 1]}, "limits: expected one from 1 to 2"),
        ({"limits": [1]}, "limits: expected one from 1 to 2 for each of 2 prompts"),
    ],
)
def test_rows_and_limits_out_of_range_are_refused_before_any_work(main, given, message):
    with pytest.raises(ValueError, match=message):
        finished(
            main[0], [[1], [2]], config=toys.MAIN, sampling=Sampling(max_new_tokens=2), **given
        )


# The cache, and rows that are refilled.


def test_a_full_cache_drops_unused_slots_and_follows_the_ladder(main, monkeypatch):
    """A prompt of 20 tokens ends in slot 32 of 64; without the 12 before it 150 new ones need 170."""
    params, prompts, _ = main
    move, sizes = slots.shift, []

    def recorded(leaf, dropped, *, capacity):
        sizes.append((dropped, capacity))
        return move(leaf, dropped, capacity=capacity)

    monkeypatch.setattr(slots, "shift", recorded)
    generate(params, prompts[:2], config=toys.MAIN, sampling=Sampling(max_new_tokens=150))
    leaves = 2 * toys.MAIN.num_layers
    assert sizes == [(12, 96)] * leaves + [(0, 128)] * leaves + [(0, 192)] * leaves


@pytest.fixture(scope="module")
def mixed():
    """24 prompts of 1 to 40 tokens with limits of 1 to 30, the longest with 80; and how to sample."""
    rng = np.random.default_rng(5)
    prompts = prompts_of(toys.MAIN, rng.integers(1, 41, 24))
    limits = rng.integers(1, 31, 24).tolist()
    limits[int(np.argmax([len(prompt) for prompt in prompts]))] = 80
    return prompts, limits, Sampling(max_new_tokens=80)


def test_refilled_rows_answer_as_full_forward_passes(main, mixed):
    """Every answer is the argmax of one pass over its own text alone."""
    prompts, limits, sampling = mixed
    found = generate(main[0], prompts, config=toys.MAIN, sampling=sampling, limits=limits, rows=4)
    assert [len(response) for response in found] == limits
    tokens_BT = np.zeros((24, 160), np.int32)
    for row, text in enumerate(a + b for a, b in zip(prompts, found, strict=True)):
        tokens_BT[row, : len(text)] = text
    best_BT = np.asarray(forward(main[0], tokens_BT, config=toys.MAIN).argmax(-1))
    for row, (prompt, response) in enumerate(zip(prompts, found, strict=True)):
        first = len(prompt) - 1
        assert best_BT[row, first : first + len(response)].tolist() == response


def test_one_long_answer_holds_one_row(main, mixed, monkeypatch):
    """24 answers of about 450 tokens together, one of 80, in 4 rows: no batch of four waits."""
    prompts, limits, sampling = mixed
    start, steps = slots.decode, []

    def counted(*arguments, **settings):
        decoded = start(*arguments, **settings)
        steps.append(int(decoded.steps))
        return decoded

    monkeypatch.setattr(slots, "decode", counted)
    order = [
        place
        for place, _ in finished(
            main[0], prompts, config=toys.MAIN, sampling=sampling, limits=limits, rows=4
        )
    ]
    assert sorted(order) == list(range(24))
    assert limits[order[-1]] < 80, "the long answer is not waited for"
    # The prefill gives each answer's first token; at the end rows are free for one short answer.
    assert sum(steps) <= (sum(limits) - 24) / 4 + 29


def test_samples_do_not_depend_on_rows_or_refills(main, mixed):
    prompts, limits, _ = mixed
    sampling = Sampling(max_new_tokens=80, temperature=1.0, top_p=0.9)
    keys = jax.random.split(jax.random.key(8), 24)
    together, refilled = (
        generate(
            main[0],
            prompts,
            config=toys.MAIN,
            sampling=sampling,
            limits=limits,
            key=keys,
            rows=rows,
        )
        for rows in (None, 4)
    )
    assert refilled == together


def test_separate_layers_answer_as_stacked_ones(main):
    params, prompts, greedy = main
    sampling = Sampling(max_new_tokens=64)
    assert generate(separate_layers(params), prompts, config=toys.MAIN, sampling=sampling) == greedy
    broken = separate_layers(params)
    broken = broken | {"blocks": broken["blocks"][:-1]}
    with pytest.raises(ValueError, match=r"params\['blocks'\]: expected 3 layers, found 2"):
        generate(broken, prompts, config=toys.MAIN, sampling=sampling)


def test_a_text_ends_where_its_length_would_change_its_frequencies():
    """dynamic: 20 tokens together, whatever was asked for, and as without scaling until there."""
    scaling = RopeScaling(kind="dynamic", factor=4.0, original_context=20)
    config = dataclasses.replace(toys.MAIN, rope_scaling=scaling)
    params, prompts = toys.random_params(config), prompts_of(config, (3, 19))
    sampling = Sampling(max_new_tokens=64)
    found = generate(params, prompts, config=config, sampling=sampling)
    assert [len(answer) for answer in found] == [17, 1]
    plain = generate(params, prompts, config=toys.MAIN, sampling=sampling, limits=[17, 1])
    assert found == plain
    with pytest.raises(ValueError, match="prompt 0: expected fewer than 20 tokens.*found 20"):
        generate(params, prompts_of(config, (20,)), config=config, sampling=sampling)
