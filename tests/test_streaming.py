"""Attribution layer by layer from stored weights equals the pass in memory."""

import numpy as np
import pytest
import toys

from eap_jax.attribution import attribute_prefixes
from eap_jax.streaming import Work, attribute_streamed
from experiments.batching import pad_into_batches
from experiments.selection import Text

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
