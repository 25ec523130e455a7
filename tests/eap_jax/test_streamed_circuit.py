"""Circuits from weights that are read a layer at a time are the circuits in memory."""

import numpy as np
import pytest
import toys
from failed_array import FailedArray

from eap_jax import streamed_circuit
from eap_jax.circuit import circuit_losses, mean_writes
from eap_jax.graph import edge_mask
from eap_jax.streamed_circuit import circuit_losses_streamed, mean_writes_streamed

CONFIG = toys.ZOO["window 5 above the first layer"].config
PARAMS, TEXTS = toys.random_params(CONFIG), toys.random_texts(CONFIG)


class Stored:
    """The parameters a part at a time; counts readings."""

    def __init__(self):
        self.readings = 0

    def blocks(self, layers):
        self.readings += 1
        for layer in layers:
            yield {name: leaf[layer] for name, leaf in PARAMS["blocks"].items()}

    def ends(self, names):
        return {name: PARAMS[name] for name in names}


@pytest.mark.parametrize(("most_kept", "readings"), [(1, 4), (2**30, 1)])
def test_weights_read_a_layer_at_a_time_give_the_same_losses(most_kept, readings):
    """By zero and by the mean, in one reading for all circuits and in one for each."""
    batch, stored, mask_WR = toys.batch_of(TEXTS), Stored(), edge_mask(CONFIG.num_layers)
    draw_EWR = np.random.default_rng(3).random((4, *mask_WR.shape))
    circuits = [draw_WR < share for draw_WR, share in zip(draw_EWR, (0, 0.4, 0.8, 1), strict=True)]
    means_WD = np.asarray(mean_writes(PARAMS, batch, config=CONFIG)).mean(axis=0)
    for instead_WD in (None, means_WD) if most_kept > 1 else (means_WD,):
        done, stored.readings = [], 0
        found = circuit_losses_streamed(
            stored, batch, circuits, instead_WD,
            config=CONFIG, most_kept=most_kept, progress=done.append,
        )  # fmt: skip
        for kept_WR, found_BJ in zip(circuits, found, strict=True):
            kept_BWR = np.broadcast_to(kept_WR, (len(TEXTS), *kept_WR.shape))
            expected_BJ = circuit_losses(PARAMS, batch, kept_BWR, instead_WD, config=CONFIG)
            np.testing.assert_allclose(found_BJ, expected_BJ, atol=1e-5)
        assert (sum(done), stored.readings) == (len(circuits), readings)


def test_mean_writes_are_those_in_memory_for_every_batch_of_one_reading():
    stored, batches = Stored(), [toys.batch_of(TEXTS), toys.batch_of(TEXTS[:1])]
    found = mean_writes_streamed(stored, batches, config=CONFIG)
    for batch, means_BWD in zip(batches, found, strict=True):
        np.testing.assert_allclose(means_BWD, mean_writes(PARAMS, batch, config=CONFIG), atol=1e-6)
    assert stored.readings == 1


def test_losses_whose_allocation_failed_end_in_their_error(monkeypatch):
    batch, mask_WR = toys.batch_of(TEXTS), edge_mask(CONFIG.num_layers)
    failed = FailedArray(*batch.targets_BJ.shape)
    monkeypatch.setattr(streamed_circuit, "_circuit_head", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="^RESOURCE_EXHAUSTED"):
        list(circuit_losses_streamed(Stored(), batch, [mask_WR], config=CONFIG))


def test_mean_writes_whose_allocation_failed_end_in_its_error(monkeypatch):
    failed = FailedArray(1, len(TEXTS), CONFIG.d_model)
    monkeypatch.setattr(streamed_circuit, "mean_of", lambda *_: failed)
    with pytest.raises(RuntimeError, match="^RESOURCE_EXHAUSTED"):
        mean_writes_streamed(Stored(), [toys.batch_of(TEXTS)], config=CONFIG)
