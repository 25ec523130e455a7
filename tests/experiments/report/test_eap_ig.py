"""EAP-IG's own code opens the exported graph and evaluates it to the loss of our circuit.

Runs where its package `eap` and a transformer_lens below 4 are installed; elsewhere `test_exports`
holds the same with an evaluation head by head in numpy.
"""

import json

import numpy as np
import pytest
import toys
from toy_study import toy_cell

from eap_jax.circuit import circuit_losses
from experiments.fidelity.rankings import exported_circuit
from experiments.report import eap_ig

TOYS = ("multi-head", "grouped, q/k/v biases, theta 1e6")


def hooked_model(toy, params):
    """The same model in transformer_lens, with the hooks that EAP-IG needs."""
    import torch
    import transformer_lens

    config = toy.config
    grouped = config.num_kv_heads != config.num_heads
    model = transformer_lens.HookedTransformer(
        transformer_lens.HookedTransformerConfig(
            n_layers=config.num_layers, d_model=config.d_model, d_mlp=config.d_ff, n_ctx=64,
            n_heads=config.num_heads, n_key_value_heads=config.num_kv_heads if grouped else None,
            d_head=config.head_dim, d_vocab=config.vocab_size, act_fn="silu", gated_mlp=True,
            normalization_type="RMS", eps=config.norm_eps, positional_embedding_type="rotary",
            rotary_dim=config.head_dim, rotary_base=int(config.rope_theta),
            rotary_adjacent_pairs=False, device="cpu", use_attn_result=True,
            use_split_qkv_input=True, use_hook_mlp_in=True, ungroup_grouped_query_attention=grouped,
            # It cuts by subtraction: in float32 a read of nothing is 1e-8, and the norm makes it 1e-5.
            dtype=torch.float64,
        ),
        move_to_device=False,
    )  # fmt: skip

    def tensor(array):
        return torch.from_numpy(np.ascontiguousarray(array))

    state = model.state_dict()
    found = {
        "embed.W_E": params["embed"], "ln_final.w": params["final_norm"],
        "unembed.W_U": params["head"].T,
    }  # fmt: skip
    for layer in range(config.num_layers):
        block = {name: leaf[layer] for name, leaf in params["blocks"].items()}
        names = {
            "ln1.w": block["attention_norm"], "ln2.w": block["mlp_norm"],
            "attn.W_O": np.moveaxis(block["o"], 0, 2), "mlp.W_gate": block["gate"].T,
            "mlp.W_in": block["up"].T, "mlp.W_out": block["down"].T,
        }  # fmt: skip
        for kind in "qkv":
            own = "_" if grouped and kind != "q" else ""
            names[f"attn.{own}W_{kind.upper()}"] = block[kind].swapaxes(1, 2)
            if config.qkv_bias:
                names[f"attn.{own}b_{kind.upper()}"] = block[f"{kind}_bias"]
        found |= {f"blocks.{layer}.{name}": leaf for name, leaf in names.items()}
    for name, leaf in found.items():
        assert state[name].shape == leaf.shape, name
    model.load_state_dict(state | {name: tensor(leaf) for name, leaf in found.items()})
    return model.eval()


@pytest.mark.parametrize("in_graph", [10, 18, 10_000])
@pytest.mark.parametrize("name", TOYS)
def test_evaluate_graph_gives_the_loss_of_the_circuit(name, in_graph, tmp_path, monkeypatch, torch):
    eap_graph, eap_evaluate = (
        pytest.importorskip("eap.graph"), pytest.importorskip("eap.evaluate")
    )  # fmt: skip
    toy = toys.ZOO[name]
    config, params = toy.config, toys.random_params(toy.config)
    scores_WR = toy_cell(num_layers=config.num_layers, seed=4).base_nWR.mean(axis=0)
    path = tmp_path / "graph.json"
    graph = eap_ig.eap_ig_graph(scores_WR, config.d_model, config.num_heads, in_graph=in_graph)
    path.write_text(json.dumps(graph))
    model, kept_WR = hooked_model(toy, params), exported_circuit(scores_WR, in_graph)
    loaded = eap_graph.Graph.from_json(str(path))
    listed = {name for name, edge in graph["edges"].items() if edge["in_graph"]}
    assert {name for name, edge in loaded.edges.items() if edge.in_graph} == listed
    # Token ids instead of texts.
    monkeypatch.setattr(
        eap_evaluate, "tokenize_plus",
        lambda _, tokens: (tokens, None, torch.tensor([len(tokens[0])]), len(tokens[0])),
    )  # fmt: skip
    for text in toys.random_texts(config):
        tokens = torch.tensor([list(text.prompt + text.answer[:-1])])

        def loss(logits, clean_logits, lengths, answer):
            return torch.nn.functional.cross_entropy(logits[0, -len(answer) :], answer)

        data = [(tokens, tokens, torch.tensor(text.answer))]
        found = eap_evaluate.evaluate_graph(
            model, loaded, data, loss, quiet=True, intervention="zero"
        )
        batch = toys.batch_of([text])
        losses_BJ = circuit_losses(params, batch, kept_WR[None], config=config)
        expected = float(np.sum(np.asarray(losses_BJ) * batch.weights_BJ))
        assert float(found) == pytest.approx(expected, abs=1e-4)
    assert loaded.count_included_edges() == len(listed), "its pruning leaves what ours left"
