"""Losses on prefixes of one text share the forward pass and score as the shortened texts do."""

import itertools

import numpy as np
import pytest
import toys

from eap_jax.attribution import attribute, attribute_prefixes
from eap_jax.batching import Text, pad_into_batches

CUTS = (2, 6, 14)


@pytest.fixture(scope="module")
def texts():
    """Prompts of 3 to 12 tokens with 14 answer tokens, one answer shorter than most cuts."""
    rng = np.random.default_rng(3)
    made = []
    for prompt in (3, 12, 9):
        count = 4 if prompt == 9 else CUTS[-1]
        ids = tuple(map(int, rng.integers(0, toys.MAIN.vocab_size, prompt + count)))
        made.append(Text(tokens=ids[:-1], targets=ids[prompt:]))
    return made


def shortened(text: Text, cut: int) -> Text:
    """The text that a separate run at this cut would read."""
    count = min(cut, len(text.targets))
    end = len(text.tokens) - len(text.targets) + count
    return Text(tokens=text.tokens[:end], targets=text.targets[:count])


@pytest.fixture(scope="module")
def separate(texts):
    """Scores and loss of separate runs, by (cut, number of the text)."""
    params = toys.random_params(toys.MAIN)
    found = {}
    for cut in CUTS:
        for index, text in enumerate(texts):
            (single,) = pad_into_batches([shortened(text, cut)], batch_tokens=10_000)
            found[cut, index] = attribute(params, single.batch, config=toys.MAIN)
    return found


@pytest.mark.parametrize("remat", [False, True])
def test_every_cut_scores_as_a_separate_run_on_the_shortened_texts(texts, separate, remat):
    params = toys.random_params(toys.MAIN)
    (padded,) = pad_into_batches(texts, batch_tokens=10_000, cuts=CUTS)
    assert list(padded.lengths) == sorted(padded.lengths), "a shorter cut depends on fewer places"
    assert padded.lengths[0] < padded.lengths[-1]
    found = attribute_prefixes(
        params, padded.batch, padded.weights_ABJ, lengths=padded.lengths, config=toys.MAIN,
        remat=remat,
    )  # fmt: skip
    for cut, result in zip(CUTS, found, strict=True):
        for row, index in enumerate(padded.indices):
            expected = separate[cut, index]
            assert toys.relative(result.scores_BWR[row], expected.scores_BWR[0]) <= 1e-5
            np.testing.assert_allclose(result.loss_B[row], expected.loss_B[0], rtol=1e-6)


def test_cuts_differ_so_that_sharing_is_not_returning_one_of_them(texts):
    params = toys.random_params(toys.MAIN)
    (padded,) = pad_into_batches(texts, batch_tokens=10_000, cuts=CUTS)
    found = attribute_prefixes(
        params, padded.batch, padded.weights_ABJ, lengths=padded.lengths, config=toys.MAIN
    )
    for one, other in itertools.pairwise(found):
        assert toys.relative(one.scores_BWR, other.scores_BWR) > 0.05
