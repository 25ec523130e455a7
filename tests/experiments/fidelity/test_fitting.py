"""Cuts and circuits run in the largest batches that fit, and as many edges together as fit."""

import dataclasses

import pytest
import toys

from eap_jax.batching import Text
from eap_jax.sharding import make_mesh
from experiments.fidelity import fitting
from experiments.scoring import memory
from experiments.study.fidelity_footprint import Run, circuit_needs, cut_needs
from experiments.study.fidelity_plan import count_of_cuts, edges_together
from experiments.study.footprint import Placed
from experiments.study.plan import head_logits

TOY = toys.ZOO["grouped, q/k/v biases, theta 1e6"].config
LONG = [Text(tokens=(1,) * 256, targets=(2,) * 8)] * 16
SHORT = [Text(tokens=(1,) * 33, targets=(2,) * 8)] * 4
COMMON = {"batch_tokens": 4096, "kept_bytes": None}


def shapes(batches) -> list[tuple[int, int]]:
    return [padded.batch.tokens_BT.shape for padded in batches]


def run_of(rows: int, length: int, usable: int, edges: int = 1) -> Run:
    logits = head_logits(usable, 1)
    return Run(rows=rows, length=length, targets=8, most_logits=logits, edges=edges)


@pytest.fixture
def model(monkeypatch):
    def with_usable(usable: int) -> Placed:
        for module in (fitting, memory):
            monkeypatch.setattr(module, "usable_on", lambda _: usable)
        return Placed(config=TOY, dtype="float32", mesh=make_mesh(""))

    return with_usable


def test_with_memory_enough_the_batches_are_attributions_and_hold_as_many_tokens(model):
    placed, texts = model(2**40), [*LONG, *SHORT]
    expected = memory.fitting_batches(placed, texts, batch_tokens=4096, cuts=()).batches
    cuts = fitting.cut_batches(placed, texts, cuts=(), **COMMON)
    assert shapes(cuts.batches) == shapes(expected) == [(16, 256), (4, 33)]
    # A full batch goes through alone, a small one in as many copies as have its tokens.
    assert [cuts.rows(padded) for padded in cuts.batches] == [16, 4 * 31]
    assert shapes(fitting.circuit_batches(placed, texts, **COMMON).batches) == shapes(expected)


@pytest.mark.parametrize("edges", [31, 30, 7, 2, 1])
def test_with_less_memory_fewer_edges_are_cut_together(model, edges):
    placed, run = model(2**40), run_of(4, 33, 2**40)
    needed = cut_needs(placed, dataclasses.replace(run, edges=edges)).total
    count = count_of_cuts(placed, None)
    assert edges_together(count, run, int(needed / 0.95) + 2, most_tokens=4096) == edges
    assert edges_together(count, run, int(needed / 0.95) - 2, 4096) == max(1, edges - 1)


@pytest.mark.parametrize("kind", ["cuts", "circuits"])
def test_with_less_memory_batches_are_halved_until_they_fit_and_no_further(model, kind):
    needs = {"cuts": cut_needs, "circuits": circuit_needs}[kind]
    seen = set()
    for usable in range(2**27, 2**25, -(2**21)):
        placed = model(usable)
        if kind == "cuts":
            found = fitting.cut_batches(placed, LONG, cuts=(), **COMMON)
        else:
            found = fitting.circuit_batches(placed, LONG, **COMMON)
        ((rows, length),) = set(shapes(found.batches))
        room = 0.95 * usable
        assert rows == 1 or needs(placed, run_of(rows, length, usable)).total <= room
        assert rows == 16 or needs(placed, run_of(2 * rows, length, usable)).total > room
        seen.add(rows)
    assert 16 in seen
    assert len(seen) >= 3
