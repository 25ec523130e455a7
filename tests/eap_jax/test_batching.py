"""Batches hold every text once and in its place, waste little, and compile few shapes."""

import itertools
import math

import numpy as np
import pytest

from eap_jax.batching import Text, in_order, pad_into_batches, put_rows, split_rows


def texts_of(lengths, counts, seed=0):
    """A text of each length with its number of targets; the tokens are random, none is 0."""
    rng = np.random.default_rng(seed)
    texts = []
    for length, count in zip(lengths, counts, strict=True):
        ids = tuple(map(int, rng.integers(1, 100, length + 1)))
        texts.append(Text(tokens=ids[:-1], targets=ids[-count:]))
    return texts


def question_lengths(kind, count, seed):
    """Tokens of prompt and counted answer, spread as prompts of the real question sets are."""
    rng = np.random.default_rng(seed)
    middle, spread, low, high, cut = {
        "gsm8k": (90, 0.35, 35, 400, 60),
        "math": (110, 0.6, 40, 900, 120),
        "college_math": (80, 0.45, 40, 500, 90),
    }[kind]
    prompts = np.clip(rng.lognormal(np.log(middle), spread, count), low, high).astype(int)
    return (prompts + cut - 1).tolist(), [cut] * count


@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_every_text_is_in_one_row_with_its_targets_and_weights(multiple):
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 9, 43)
    texts = texts_of(rng.integers(8, 60, 43), counts)
    batches = pad_into_batches(texts, batch_tokens=300, multiple=multiple, cuts=(3, 8))
    assert sorted(i for padded in batches for i in padded.indices) == list(range(43))
    for padded in batches:
        batch = padded.batch
        assert batch.tokens_BT.shape[0] % multiple == 0
        assert padded.tokens == sum(len(texts[i].tokens) for i in padded.indices)
        for row, index in enumerate(padded.indices):
            text, count = texts[index], counts[index]
            length = len(text.tokens)
            assert tuple(batch.tokens_BT[row, :length]) == text.tokens
            assert not batch.tokens_BT[row, length:].any()
            # The last target is predicted at the last token, the others at the ones before.
            assert list(batch.positions_BJ[row, :count]) == list(range(length - count, length))
            assert tuple(batch.targets_BJ[row, :count]) == text.targets
            for weights_BJ, cut in zip(padded.weights_ABJ, (3, 8), strict=True):
                expected = np.zeros(weights_BJ.shape[1], np.float32)
                expected[: min(cut, count)] = 1 / min(cut, count)
                np.testing.assert_array_equal(weights_BJ[row], expected)
        for weights_BJ in (batch.weights_BJ, *padded.weights_ABJ):
            assert not weights_BJ[len(padded.indices) :].any(), "an empty row carries loss"


@pytest.mark.parametrize("kind", ["gsm8k", "math", "college_math"])
@pytest.mark.parametrize("count", [100, 300])
@pytest.mark.parametrize("batch_tokens", [2048, 4096, 16384])
@pytest.mark.parametrize("multiple", [1, 2])
def test_padding_is_at_most_a_tenth_of_the_tokens(kind, count, batch_tokens, multiple):
    for seed in range(3):
        lengths, counts = question_lengths(kind, count, seed)
        batches = pad_into_batches(
            texts_of(lengths, counts), batch_tokens=batch_tokens, multiple=multiple
        )
        padded = sum(item.batch.tokens_BT.size for item in batches)
        assert 1 - sum(lengths) / padded <= 0.1
        assert all(item.batch.tokens_BT.size <= batch_tokens for item in batches)


def test_eight_devices_share_many_texts_with_a_tenth_of_padding():
    lengths, counts = question_lengths("gsm8k", 300, 0)
    batches = pad_into_batches(texts_of(lengths, counts), batch_tokens=4096, multiple=8)
    padded = sum(item.batch.tokens_BT.size for item in batches)
    assert 1 - sum(lengths) / padded <= 0.1


@pytest.mark.parametrize(("most_padding", "most_shapes"), [(0.1, 6), (0.2, 3)])
@pytest.mark.parametrize("kind", ["gsm8k", "math", "college_math"])
def test_few_shapes_are_compiled(kind, most_padding, most_shapes):
    """What is compiled is a function of the width: rows, targets and prefix lengths follow it."""
    lengths, counts = question_lengths(kind, 100, 0)
    batches = pad_into_batches(
        texts_of(lengths, counts), batch_tokens=4096, cuts=(12, 36, 120), most_padding=most_padding
    )
    shapes = {(p.batch.tokens_BT.shape, p.batch.targets_BJ.shape, p.lengths) for p in batches}
    assert len(shapes) == len({p.batch.tokens_BT.shape[1] for p in batches}) <= most_shapes
    padded = sum(item.batch.tokens_BT.size for item in batches)
    assert 1 - sum(lengths) / padded <= most_padding


@pytest.mark.parametrize("multiple", [1, 2])
@pytest.mark.parametrize("most_padding", [0.02, 0.1, 0.3])
def test_no_other_cut_has_fewer_shapes_or_less_padding(multiple, most_padding):
    """Every way to cut nine sorted texts into groups of one width, tried out."""
    rng = np.random.default_rng(4)
    for _ in range(5):
        lengths = sorted(
            (8 * rng.choice(np.arange(9, 30), 9, replace=False)).tolist(), reverse=True
        )
        batches = pad_into_batches(
            texts_of(lengths, [3] * 9),
            batch_tokens=600,
            multiple=multiple,
            most_padding=most_padding,
        )
        found = (
            len({padded.batch.tokens_BT.shape for padded in batches}),
            sum(padded.batch.tokens_BT.size for padded in batches),
        )
        least: dict[int, float] = {}
        for ends in itertools.product([False, True], repeat=8):
            edges = [0, *(i + 1 for i in range(8) if ends[i]), 9]
            total = 0
            for first, end in itertools.pairwise(edges):
                most = max(1, 600 // lengths[first] // multiple) * multiple
                fewest = math.ceil((end - first) / most)
                choices = [
                    math.ceil((end - first) / batches / multiple) * multiple
                    for batches in (fewest, fewest + 1, fewest + 2)
                ]
                total += lengths[first] * min(math.ceil((end - first) / r) * r for r in choices)
            least[len(edges) - 1] = min(total, least.get(len(edges) - 1, math.inf))
        enough = [n for n in least if 1 - sum(lengths) / least[n] <= most_padding]
        best = min(least.values())
        shapes = min(enough or (n for n in least if least[n] == best))
        assert found == (shapes, least[shapes])


def test_texts_that_fit_one_batch_are_one_batch():
    """A second shape takes longer to compile than the padding to compute."""
    lengths = [10, 14, 40, 22, 31]
    (padded,) = pad_into_batches(texts_of(lengths, [3] * 5), batch_tokens=400, multiple=2)
    assert padded.batch.tokens_BT.shape[0] == 6
    assert sorted(padded.indices) == [0, 1, 2, 3, 4]


def test_prefix_lengths_reach_every_counted_target():
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 13, 60)
    texts = texts_of(rng.integers(14, 90, 60), counts)
    cuts = (2, 5, 12)
    for padded in pad_into_batches(texts, batch_tokens=500, cuts=cuts):
        width = padded.batch.tokens_BT.shape[1]
        for weights_BJ, end in zip(padded.weights_ABJ, padded.lengths, strict=True):
            last = padded.batch.positions_BJ[weights_BJ > 0].max()
            assert last < end <= width


def test_a_short_cut_is_computed_over_fewer_places():
    lengths, counts = question_lengths("gsm8k", 40, 0)
    for padded in pad_into_batches(texts_of(lengths, counts), batch_tokens=4096, cuts=(6, 60)):
        assert padded.lengths[0] <= padded.lengths[1] - 30


def test_a_text_longer_than_the_limit_is_a_batch_of_its_own():
    batches = pad_into_batches(texts_of([50, 8, 9], [2, 2, 2]), batch_tokens=16)
    assert [padded.indices for padded in batches] == [(0,), (2,), (1,)]
    assert batches[0].batch.tokens_BT.shape == (1, 51)


def test_long_texts_have_widths_that_a_mesh_can_divide():
    """From 64 tokens on all widths are multiples of 4, so that a model axis splits the writes."""
    lengths = list(range(64, 1500, 17))
    for length in lengths:
        (padded,) = pad_into_batches(texts_of([length], [3]), batch_tokens=2000)
        width = padded.batch.tokens_BT.shape[1]
        assert width % 4 == 0
        assert length <= width <= 1.125 * length + 4


@pytest.mark.parametrize("backwards", [False, True])
def test_results_of_rows_come_back_in_the_order_of_the_texts(backwards):
    """A result made of each row's own tokens, several axes, rows of padding left out."""
    lengths = np.random.default_rng(3).integers(4, 60, 21)
    texts = texts_of(lengths, [3] * 21)
    batches = pad_into_batches(texts, batch_tokens=200, multiple=2)[:: -1 if backwards else 1]
    assert len(batches) > 2
    assert any(len(padded.indices) < len(padded.batch.tokens_BT) for padded in batches)
    results = [
        np.stack([padded.batch.tokens_BT.sum(axis=1)] * 4, axis=1).reshape(-1, 2, 2)
        for padded in batches
    ]
    found = in_order(batches, results)
    assert found.shape == (21, 2, 2)
    assert found.dtype == results[0].dtype
    assert found[:, 1, 0].tolist() == [sum(text.tokens) for text in texts]


def test_a_result_of_too_few_rows_is_refused():
    batches = pad_into_batches(texts_of([9, 8], [2, 2]), batch_tokens=400)
    with pytest.raises(ValueError, match="result: expected 2 rows, found 1"):
        put_rows(np.zeros(2), batches[0], np.ones(1))
    with pytest.raises(ValueError, match="results: expected one a batch, 1, found 0"):
        in_order(batches, [])


def test_no_batch_is_wider_than_texts_may_be():
    """Where rotary frequencies depend on a text's length, padding beyond the limit changed a text."""
    texts = [Text(tokens=(1,) * length, targets=(2,)) for length in (98, 70, 5)]
    (padded,) = pad_into_batches(texts, batch_tokens=10_000, longest=99)
    assert padded.batch.tokens_BT.shape[1] == 99
    assert max(padded.lengths) <= 99
    with pytest.raises(ValueError, match="text 1: expected at most 69 tokens.*found 70"):
        pad_into_batches([texts[2], texts[1]], batch_tokens=10_000, longest=69)


def test_a_split_batch_has_the_same_rows_in_parts_filled_with_padding():
    """Five texts of one length in eight rows, in parts of three: three and two, and none is empty."""
    texts = texts_of([9] * 5, [1, 2, 3, 2, 1])
    (whole,) = pad_into_batches(texts, batch_tokens=400, multiple=8, cuts=(1, 3))
    parts = split_rows(whole, 3)
    assert [part.indices for part in parts] == [whole.indices[:3], whole.indices[3:]]
    assert [part.tokens for part in parts] == [27, 18]
    for first, part in zip((0, 3), parts, strict=True):
        count = len(part.indices)
        for name in ("tokens_BT", "positions_BJ", "targets_BJ", "weights_BJ"):
            own, of_all = getattr(part.batch, name), getattr(whole.batch, name)
            assert own.shape == (3, *of_all.shape[1:])
            np.testing.assert_array_equal(own[:count], of_all[first : first + count])
            assert not own[count:].any()
        for own_BJ, of_all_BJ in zip(part.weights_ABJ, whole.weights_ABJ, strict=True):
            np.testing.assert_array_equal(own_BJ[:count], of_all_BJ[first : first + count])
            assert not own_BJ[count:].any()
    assert [part.lengths for part in parts] == [whole.lengths] * 2
