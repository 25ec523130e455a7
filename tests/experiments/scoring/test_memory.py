"""Batches are as large as the devices allow; activations are kept where they fit."""

import pytest
import toys

from eap_jax.batching import Text
from eap_jax.head import HEAD_LOGITS
from eap_jax.sharding import make_mesh
from experiments.scoring import memory
from experiments.study.footprint import Placed, Scored, attribution_needs, streamed_needs
from experiments.study.plan import head_logits

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"].config
TEXTS = [Text(tokens=(1,) * 64, targets=(2,) * 8)] * 16


@pytest.mark.parametrize("mesh", ["", "data:2"])
def test_the_choice_turns_where_the_plan_fills_the_memory(mesh, monkeypatch):
    """With less and less memory: all rows kept, half of them kept, all computed twice, half, ..."""
    model = Placed(config=TOY, dtype="float32", mesh=make_mesh(mesh))

    def needed(rows, remat, usable):
        logits = head_logits(usable, model.mesh.size)
        batch = Scored(rows=rows, length=64, targets=8, most_logits=logits, remat=remat)
        return attribution_needs(model, batch).total

    def choice(usable):
        monkeypatch.setattr(memory, "usable_on", lambda _: usable)
        found = memory.fitting_batches(model, TEXTS, batch_tokens=1024, cuts=())
        (shape,) = {padded.batch.tokens_BT.shape for padded in found.batches}
        return shape[0], found.remat

    assert choice(2**40) == (16, False)
    # Where each turns into the next; a text is 64 tokens, a batch has one on every device at least.
    ways = model.mesh.shape["data"]
    order = [(16, False), (8, False), (16, True), (8, True), (4, True), (2, True)]
    order += [(1, True)] * (ways == 1)
    seen = []
    for usable in range(2**26, 2**24, -(2**18)):
        found = choice(usable)
        if found != (seen[-1] if seen else None):
            seen.append(found)
        rows, remat = found
        fits = needed(rows, remat, usable) <= 0.95 * usable
        assert fits or found == order[-1]
        better = order[: order.index(found)]
        assert all(needed(*one, usable) > 0.95 * usable for one in better)
    assert seen == [one for one in order if one in seen]
    assert seen[-1] == order[-1]
    assert len(seen) >= 3


def test_a_split_model_leaves_more_room(monkeypatch):
    models = {
        mesh: Placed(config=TOY, dtype="float32", mesh=make_mesh(mesh)) for mesh in ("", "model:2")
    }
    batch = Scored(rows=16, length=64, targets=8, most_logits=2**10)
    needs = {mesh: attribution_needs(model, batch).total for mesh, model in models.items()}
    assert needs["model:2"] < needs[""]
    between = (needs[""] + needs["model:2"]) / 2 / 0.95
    monkeypatch.setattr(memory, "usable_on", lambda _: int(between))
    found = {
        mesh: memory.fitting_batches(model, TEXTS, batch_tokens=1024, cuts=()).remat
        or memory.fitting_batches(model, TEXTS, batch_tokens=1024, cuts=()).batches[1:] != []
        for mesh, model in models.items()
    }
    assert found == {"": True, "model:2": False}


def test_the_branch_estimator_needs_room_for_its_copies_and_fills_what_was_planned(monkeypatch):
    model = Placed(config=TOY, dtype="float32", mesh=make_mesh(""))
    batch = Scored(rows=16, length=64, targets=8, most_logits=2**10)
    copies = Scored(rows=16, length=64, targets=8, most_logits=2**10, branches=1)
    # At least the writes that are taken out and what the reads are without them.
    streams = 2 * 16 * 64 * TOY.d_model * 4
    assert attribution_needs(model, copies).total >= attribution_needs(model, batch).total + streams
    monkeypatch.setattr(memory, "usable_on", lambda _: 2**40)
    found = memory.fitting_batches(model, TEXTS[:3], batch_tokens=1024, cuts=(), branch=True)
    assert [found.together(padded) for padded in found.batches] == [1024 // (3 * 64)]
    plain = memory.fitting_batches(model, TEXTS[:3], batch_tokens=1024, cuts=())
    assert [plain.together(padded) for padded in plain.batches] == [1]


def test_streamed_batches_are_halved_where_the_plan_fills_the_memory(monkeypatch):
    model, kept = Placed(config=TOY, dtype="float32", mesh=make_mesh("")), 2**10

    def needs(rows):
        batch = Scored(rows=rows, length=64, targets=8, most_logits=HEAD_LOGITS[False], remat=True)
        return streamed_needs(model, batch, kept).total

    for rows in (16, 8, 4, 2, 1):
        monkeypatch.setattr(memory, "usable_on", lambda _, rows=rows: int(needs(rows) / 0.95) + 1)
        found = memory.streamed_batches(model, TEXTS, batch_tokens=1024, cuts=(), kept_bytes=kept)
        assert {padded.batch.tokens_BT.shape for padded in found.batches} == {(rows, 64)}
        assert (found.most_tokens, found.shortage) == (rows * 64, None)
    monkeypatch.setattr(memory, "usable_on", lambda _: needs(1) - 1)
    found = memory.streamed_batches(model, TEXTS, batch_tokens=1024, cuts=(), kept_bytes=kept)
    assert found.most_tokens == 64
    assert found.shortage.startswith("scores of 1 x 64 tokens need ")
