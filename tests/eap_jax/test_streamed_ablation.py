"""Cuts from weights that are read a layer at a time are the cuts in memory."""

import numpy as np
import pytest
import toys

from eap_jax.ablation import cut_losses
from eap_jax.graph import edge_mask
from eap_jax.streamed_ablation import cut_losses_streamed


@pytest.mark.parametrize("most_kept", [1, 2**30])
def test_weights_read_a_layer_at_a_time_give_the_same_losses(most_kept):
    """In one reading for all cuts, and in one for every few."""
    config = toys.ZOO["window 5 above the first layer"].config
    params, texts = toys.random_params(config), toys.random_texts(config)
    batch, readings = toys.batch_of(texts), []

    class Stored:
        def blocks(self, layers):
            readings.append(tuple(layers))
            for layer in layers:
                yield {name: leaf[layer] for name, leaf in params["blocks"].items()}

        def ends(self, names):
            return {name: params[name] for name in names}

    edges = [(int(w), int(r)) for w, r in np.argwhere(edge_mask(config.num_layers))][::-1]
    expected = cut_losses(params, batch, edges, config=config)
    found = cut_losses_streamed(
        Stored(), batch, edges, config=config, rows=4 * len(texts), most_kept=most_kept
    )
    np.testing.assert_allclose(found.whole_BJ, expected.whole_BJ, atol=1e-5)
    np.testing.assert_allclose(found.cut_EBJ, expected.cut_EBJ, atol=1e-5)
    assert len(readings) == (1 if most_kept > 1 else -(-len(edges) // 4))
    assert set(readings) == {tuple(range(config.num_layers))}
