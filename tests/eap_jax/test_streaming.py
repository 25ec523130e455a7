"""Attribution layer by layer from stored weights equals the pass in memory."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from eap_jax.attribution import attribute_prefixes
from eap_jax.batching import Text, pad_into_batches
from eap_jax.streaming import Work, attribute_streamed
from experiments.study.footprint import activation_bytes

CUTS = (3, 8)


class Stored:
    """Weights that are read a layer at a time, with a record of what was asked for."""

    def __init__(self, params):
        self.params, self.asked = params, []

    def blocks(self, layers):
        for layer in layers:
            self.asked.append(layer)
            yield {name: leaf[layer] for name, leaf in self.params["blocks"].items()}

    def ends(self, names):
        self.asked.append(tuple(names))
        return {name: self.params[name] for name in names}


def batches(config):
    rng = np.random.default_rng(1)
    texts = []
    for prompt in (4, 15, 16, 5):
        ids = tuple(map(int, rng.integers(0, config.vocab_size, prompt + CUTS[-1])))
        texts.append(Text(tokens=ids[:-1], targets=ids[prompt:]))
    return pad_into_batches(texts, batch_tokens=48, cuts=CUTS)


@pytest.mark.parametrize("keep_layers", [None, 1, 0])
@pytest.mark.parametrize("name", ["window 5 above the first layer", "window 7, tied head"])
def test_streamed_scores_equal_those_in_memory(name, keep_layers):
    config = toys.ZOO[name].config
    params = toys.random_params(config)
    padded = batches(config)
    assert len(padded) == 2, "several batches share each reading of a layer"
    stored = Stored(params)
    found = attribute_streamed(
        stored,
        [Work(batch=p.batch, weights_ABJ=p.weights_ABJ, lengths=p.lengths) for p in padded],
        config=config,
        keep_layers=keep_layers,
    )
    for item, results in zip(padded, found, strict=True):
        expected = attribute_prefixes(
            params, item.batch, item.weights_ABJ, lengths=item.lengths, config=config
        )
        for one, other in zip(results, expected, strict=True):
            assert toys.relative(one.scores_BWR, other.scores_BWR) <= 1e-5
            np.testing.assert_allclose(one.loss_B, other.loss_B, rtol=1e-6)
    forth = list(range(config.num_layers))
    head = "embed" if config.tied_embeddings else "head"
    assert stored.asked == [("embed",), *forth, ("final_norm", head), *reversed(forth)]


class Watched(Stored):
    """Weights that tell, at each reading, which layers read before are still in memory."""

    def __init__(self, params):
        super().__init__(params)
        self._alive = []
        self.held = []

    def _look(self, part):
        layers = {layer for layer, leaf in self._alive if leaf() is not None}
        self.held.append((part, layers))

    def blocks(self, layers):
        for layer, block in zip(layers, super().blocks(layers), strict=True):
            self._look(layer)
            copies = {name: jnp.array(leaf, copy=True) for name, leaf in block.items()}
            self._alive += [(layer, weakref.ref(leaf)) for leaf in copies.values()]
            yield copies
            del copies

    def ends(self, names):
        self._look(names[0])
        return super().ends(names)


def test_the_head_is_read_when_no_layer_is_held_and_layers_are_held_alone(stored_run):
    """The one before may live while its successor is read, as the prefetch needs, and no other."""
    weights, *_ = stored_run(keep_layers=0)
    head = [held for part, held in weights.held if part == "final_norm"]
    assert head == [set()]
    assert all(len(held) <= 1 for _, held in weights.held)


def test_activations_are_kept_of_as_many_layers_as_asked_and_freed_on_the_way_back(stored_run):
    """Bytes alive after each step: those of the kept layers are there at the turn, gone at the end."""
    _, none, layer_bytes = stored_run(keep_layers=0)
    _, one, _ = stored_run(keep_layers=1)
    _, every, _ = stored_run(keep_layers=None)
    layers = len(every) // 2
    turn = layers - 1
    assert one[turn] - none[turn] == pytest.approx(layer_bytes, rel=0.01)
    assert every[turn] - none[turn] == pytest.approx(layers * layer_bytes, rel=0.01)
    # After the first step back, one layer's are gone.
    assert one[turn + 1] - none[turn + 1] == 0
    assert every[turn + 1] - none[turn + 1] == pytest.approx((layers - 1) * layer_bytes, rel=0.01)
    assert every[-1] == none[-1]


@pytest.fixture
def stored_run():
    """`stored_run(keep_layers=...)`: (weights, bytes alive at each step, bytes of one layer's
    activations)."""
    config = toys.ZOO["window 5 above the first layer"].config
    params = toys.random_params(config)
    (item,) = pad_into_batches(
        [Text(tokens=tuple(range(1, 30)), targets=tuple(range(2, 8)))] * 4, batch_tokens=4096
    )
    work = [Work(batch=item.batch, weights_ABJ=item.weights_ABJ, lengths=item.lengths)]

    def run(keep_layers):
        weights, alive = Watched(params), []

        def count():
            gc.collect()
            alive.append(sum(array.nbytes for array in jax.live_arrays()))

        attribute_streamed(weights, work, config=config, keep_layers=keep_layers, progress=count)
        return weights, alive, activation_bytes(config, item.batch.tokens_BT.size, 4)

    run(0)  # constants of compiled programs are made now
    gc.freeze()  # so a collection visits what the runs make, not all that was imported
    return run
