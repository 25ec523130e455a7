"""The paper's bfloat16 files are reproduced, and why its running sum is not used otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from converters.load import load_checkpoint
from eap_jax.sharding import make_mesh
from experiments.responses.published_format import read_rows
from experiments.scoring.score import score_texts
from experiments.scoring.selection import select, truncate
from experiments.study.numerics import (
    NUMERICS,
    reported_scores,
    running_sum_differences,
    use_numerics,
    weight_dtype,
)
from experiments.study.rule import Rule


@pytest.fixture(autouse=True)
def own_precision():
    """Numerics set the precision of the whole process."""
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


def bfloat16(values):
    """Rounded to 8 bits of precision, ties to even, from the definition; float64."""
    values = np.asarray(values, np.float64)
    _, exponent = np.frexp(values)
    unit = np.exp2(exponent - 8.0)
    return np.round(values / unit) * unit


def significant_bits(values):
    """Mean number of bits from the first to the last that is set, of entries that are not zero."""
    mantissa, _ = np.frexp(np.asarray(values, np.float64)[np.asarray(values) != 0])
    whole = (np.abs(mantissa) * 2**24).astype(np.int64)
    lowest = whole & -whole
    return float(np.mean(24 - np.log2(lowest)))


def samples(count, seed=0):
    """Alike score matrices, as a model's are over questions."""
    rng = np.random.default_rng(seed)
    typical_WR = rng.normal(size=(7, 13)) * np.exp(rng.normal(size=(7, 13)))
    drawn_nWR = typical_WR * (1 + 0.3 * rng.normal(size=(count, 7, 13)))
    return drawn_nWR.astype(np.float32)


@pytest.mark.parametrize("series", toys.SERIES)
@pytest.mark.parametrize("side", toys.SIDES)
def test_published_numerics_reproduce_the_bfloat16_files(series, side):
    use_numerics("published")
    checkpoint = load_checkpoint(
        toys.GOLDEN / "checkpoints" / f"toy_{series}_{side}", dtype=weight_dtype("published")
    )
    rows = read_rows(toys.GOLDEN / "responses" / series / "math" / "all_correct.jsonl")
    selections = [select(rows, Rule(alpha=alpha)) for alpha in toys.ALPHAS]
    cuts = tuple(selection.cut for selection in selections)
    texts = [truncate(row, side, max(cuts)) for row in selections[0].rows]
    found = score_texts(
        checkpoint, texts, cuts=cuts, numerics="published", batch_tokens=4096, mesh=make_mesh()
    )
    errors = [
        toys.relative(scores.scores_nWR, toys.golden_scores(series, side, alpha, "bfloat16"))
        for scores, alpha in zip(found, toys.ALPHAS, strict=True)
    ]
    assert max(errors) <= 0.1, errors


def test_the_running_sum_is_the_program_written_out():
    """total += scores, all bfloat16; a sample's scores are the total after it minus before it."""
    scores_nWR = samples(30)
    found_nWR = running_sum_differences(scores_nWR)
    assert found_nWR.dtype == np.float32
    total_WR = np.zeros((7, 13))
    for scores_WR, found_WR in zip(scores_nWR, found_nWR, strict=True):
        grown_WR = bfloat16(total_WR + bfloat16(scores_WR))
        np.testing.assert_array_equal(found_WR, bfloat16(grown_WR - total_WR))
        total_WR = grown_WR


def test_the_error_of_a_running_sum_grows_with_the_samples_number():
    """Sample i is a step of a sum i times as large, whose 8 bits do not grow: the error is ~ i."""
    scores_nWR = samples(128)

    def errors(numerics):
        found_nWR = reported_scores(scores_nWR, numerics)
        return [toys.relative(*pair) for pair in zip(found_nWR, scores_nWR, strict=True)]

    published, plain = errors("published"), errors("float32")
    means = [np.mean(published[first : 2 * first]) for first in (4, 8, 16, 32, 64)]
    growth = np.polyfit(np.log([4, 8, 16, 32, 64]), np.log(means), 1)[0]
    assert 0.7 <= growth <= 1.3, means
    assert published[0] <= 2**-8, "the first sample is rounded once"
    assert np.mean(published[-16:]) >= 0.1
    assert plain == [0.0] * 128


def test_single_sample_metrics_suffer_and_the_mean_survives():
    scores_nWR = samples(128)
    found_nWR = reported_scores(scores_nWR, "published")
    mean_error = toys.relative(found_nWR.mean(axis=0), scores_nWR.mean(axis=0))
    sample_errors = [toys.relative(*pair) for pair in zip(found_nWR, scores_nWR, strict=True)]
    assert mean_error <= 0.1 * max(sample_errors)
    # Late samples are multiples of a coarse unit: few distinct values of what is all distinct.
    late = np.abs(found_nWR[64:, 0, 0])
    assert len(np.unique(late)) <= 16 < len(np.unique(scores_nWR[64:, 0, 0]))


def test_the_authors_files_lose_bits_along_the_samples_which_only_bfloat16_lacks():
    """Late steps of a running sum are multiples of its unit: fewer bits, of 24 or of 8."""
    for precision, most in (("float32", 24), ("bfloat16", 8)):
        late = []
        for series in toys.SERIES:
            for side in toys.SIDES:
                for alpha in toys.ALPHAS:
                    golden_nWR = toys.golden_scores(series, side, alpha, precision)
                    bits = [significant_bits(scores_WR) for scores_WR in golden_nWR]
                    assert max(bits) <= most
                    assert bits[0] - np.mean(bits[-4:]) >= 1
                    late.append(np.mean(bits[-4:]))
        assert len(late) == 18
        if precision == "float32":
            assert min(late) >= 18, "errors near 2^-18: below every tolerance here"
        else:
            assert max(late) <= 6, "errors near 2^-5: 3 % of each entry after 15 samples"


def test_only_published_numerics_change_finished_scores():
    scores_nWR = samples(9)
    for numerics in ("float32", "bfloat16"):
        np.testing.assert_array_equal(reported_scores(scores_nWR, numerics), scores_nWR)
    assert not np.array_equal(reported_scores(scores_nWR, "published"), scores_nWR)


def test_numerics_choose_the_dtype_and_the_precision_of_products():
    found = {}
    for numerics in NUMERICS:
        use_numerics(numerics)
        text = jax.jit(jnp.dot).lower(np.ones((4, 4)), np.ones((4, 4))).as_text()
        found[numerics] = (weight_dtype(numerics), "HIGHEST" in text)
    assert found == {
        "float32": ("float32", True),
        "bfloat16": ("bfloat16", False),
        "published": ("bfloat16", False),
    }
