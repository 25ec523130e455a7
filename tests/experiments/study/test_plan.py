"""Sizes from memory: the most rows that fit, by hand arithmetic, and never one more."""

import pytest

from eap_jax.head import HEAD_LOGITS
from eap_jax.sharding import abstract_mesh
from experiments.study.cards import CARDS
from experiments.study.footprint import Placed, Scored, streamed_needs
from experiments.study.pairs import SHAPES
from experiments.study.plan import (
    choices,
    halves,
    plan_answers,
    plan_scores,
    plan_streamed,
    room_for,
    shortage,
)

H100 = CARDS["h100"].usable_bytes


def placed(pair: str, mesh: str = "", dtype: str = "bfloat16") -> Placed:
    return Placed(config=SHAPES[pair], dtype=dtype, mesh=abstract_mesh(mesh))


@pytest.mark.parametrize("mesh", ["", "data:2", "model:2"])
def test_rows_are_what_the_weights_leave(mesh):
    """deepseek_math on 80 GB: 63.7 GB for arrays, 5 % left free, 13.8 GB of weights, and a row of
    4,352 slots holds 2 x 30 x 32 x 128 numbers of 2 bytes a slot: 2.14 GB."""
    found = plan_answers(
        placed("deepseek_math", mesh), H100, width=256, new_tokens=4096, most_rows=128
    )
    split = 2 if mesh == "model:2" else 1
    row = 2 * 30 * 32 * 128 * 2 * 4352 / split
    left = 0.95 * 0.75 * 84_942_979_072 - 13.82e9 / split
    on_each = found.rows // (2 if mesh == "data:2" else 1)
    # One layer is there twice while the cache moves, and there is some work.
    assert left - 3 * row <= on_each * row * 31.5 / 30 <= left
    assert found.slots == 256 + 4096
    assert found.fits


def test_a_row_more_would_not_fit():
    model = placed("distilled_qwen", "data:2")
    common = {"width": 256, "new_tokens": 32768}
    found = plan_answers(model, H100, **common, most_rows=128)
    assert found.fits
    assert found.rows % 2 == 0
    programs = (found.prefill, found.decode, found.move)
    assert found.most == max(needs.total for needs in programs) <= room_for(H100)
    # With a byte less than these rows need there are fewer.
    fewer = plan_answers(model, int(found.most / 0.95) - 1, **common, most_rows=128)
    assert fewer.rows == found.rows - 2
    assert plan_answers(model, H100, **common, most_rows=7).rows == 8


def test_what_fits_nowhere_says_so():
    found = plan_answers(
        placed("distilled_qwen"), 16 * 10**9, width=256, new_tokens=32768, most_rows=128
    )
    assert (found.rows, found.fits) == (1, False)
    scores = plan_scores(
        placed("deepseek_math", dtype="float32"), 20 * 10**9, length=512, targets=256,
        most_tokens=4096,
    )  # fmt: skip
    assert (scores.batch.rows, scores.batch.remat, scores.fits) == (1, True, False)


def test_activations_are_kept_while_half_a_batch_fits():
    model = placed("deepseek_math", dtype="float32")

    def choice(gigabytes):
        found = plan_scores(model, int(gigabytes * 1e9), length=512, targets=256, most_tokens=4096)
        assert found.fits
        return found.batch.rows, found.batch.remat

    assert choice(63.7) == (8, False)
    assert choice(44) == (4, False)
    assert choice(40) == (8, True)


def test_streamed_batches_are_halved_until_they_fit_and_no_further():
    """deepseek_math in float32, texts of 512 tokens; the limit is set between two sizes."""
    model, common = placed("deepseek_math", dtype="float32"), {"length": 512, "targets": 256}

    def needs(rows: int) -> int:
        batch = Scored(rows=rows, most_logits=HEAD_LOGITS[False], **common)
        return streamed_needs(model, batch, 2**30).total

    assert needs(8) > needs(4) > needs(2) > needs(1)
    for rows, fits in ((8, True), (4, True), (2, True), (1, True), (1, False)):
        usable = int(needs(rows) / 0.95) + 1 if fits else needs(1) - 1
        found = plan_streamed(model, usable, **common, most_tokens=4096, kept_bytes=2**30)
        assert (found.batch.rows, found.batch_tokens, found.fits) == (rows, rows * 512, fits)
        assert found.needs.total == needs(rows)


def test_a_shortage_is_said_in_units_that_show_it():
    assert shortage("answers", 57_090_000_000, 20_000_000_000) == "answers need 57.1 GB of 20.0"
    assert shortage("scores", 35_260_000, 20_000_000) == "scores need 35.3 MB of 20.0"
    assert shortage("scores", 2_500_000_000, 20_000_000) == "scores need 2,500.0 MB of 20.0"


def test_what_fits_without_the_room_left_free_still_fits():
    """One row that takes more than 95 % of the memory is tried; one that takes more than all is not."""
    model, common = placed("distilled_qwen"), {"width": 256, "new_tokens": 4096, "most_rows": 1}
    most = plan_answers(model, H100, **common).most
    for usable, fits in ((most, True), (most - 1, False)):
        assert room_for(usable) < most
        found = plan_answers(model, usable, **common)
        assert (found.rows, found.most, found.fits) == (1, most, fits)


def test_batches_are_halved_down_to_the_longest_text():
    assert halves(4096, 512) == [4096, 2048, 1024, 512]
    assert halves(4096, 513) == [4096, 2048, 1024]
    assert halves(4096, 5000) == [4096], "a text longer than that is a batch of its own"
    assert choices(4096, 2048) == [(False, 4096), (False, 2048), (True, 4096), (True, 2048)]
