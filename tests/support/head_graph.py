"""A model evaluated head by head on the graph of an EAP-IG file, in numpy and float64.

Written from the rules of EAP-IG's `evaluate_graph` with zero ablation: every head has q, k and v
inputs of its own; an input is the sum of the outputs whose edges to it are in the graph.
"""

import numpy as np
import toys


def loss(toy: toys.Toy, params: dict, text: toys.Text, graph: dict) -> float:
    """Self-entropy of a text's answer in the graph's circuit; no bias but on q, k and v."""
    config = toy.config
    assert not config.output_bias
    assert not config.mlp_bias
    assert graph["cfg"]["n_heads"] == config.num_heads
    assert graph["cfg"]["n_layers"] == config.num_layers
    blocks = {name: np.asarray(leaf, np.float64) for name, leaf in params["blocks"].items()}
    tokens = list(text.prompt + text.answer[:-1])
    written = {"input": np.asarray(params["embed"], np.float64)[tokens]}

    def read(name):
        total = np.zeros_like(written["input"])
        for writer, write in written.items():
            if graph["edges"].get(f"{writer}->{name}", {"in_graph": False})["in_graph"]:
                total = total + write
        return total

    def norm(x, gain):
        return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + config.norm_eps) * gain

    places, size = np.arange(len(tokens)), config.head_dim
    angles = np.outer(places, config.rope_theta ** (-np.arange(0, size, 2) / size))
    angles = np.concatenate([angles, angles], axis=1)

    def rotated(x):
        turned = np.concatenate([-x[:, size // 2 :], x[:, : size // 2]], axis=1)
        return x * np.cos(angles) + turned * np.sin(angles)

    group = config.num_heads // config.num_kv_heads
    for layer in range(config.num_layers):
        block = {name: leaf[layer] for name, leaf in blocks.items()}
        window = (config.layer_windows or (None,) * config.num_layers)[layer] or len(tokens)
        distance = places[:, None] - places[None, :]
        hidden = (distance < 0) | (distance >= window)
        heads = {}
        for head in range(config.num_heads):
            node = f"a{layer}.h{head}"
            parts = {}
            for kind in "qkv":
                x = norm(read(f"{node}<{kind}>"), block["attention_norm"])
                own = head if kind == "q" else head // group
                parts[kind] = x @ block[kind][own].T
                if config.qkv_bias:
                    parts[kind] = parts[kind] + block[f"{kind}_bias"][own]
            logits = rotated(parts["q"]) @ rotated(parts["k"]).T / np.sqrt(size)
            weights = np.exp(np.where(hidden, -np.inf, logits))
            weights /= weights.sum(axis=1, keepdims=True)
            heads[node] = weights @ parts["v"] @ block["o"][:, head].T
        written |= heads
        x = norm(read(f"m{layer}"), block["mlp_norm"])
        gate, up = x @ block["gate"].T, x @ block["up"].T
        written[f"m{layer}"] = (gate / (1 + np.exp(-gate)) * up) @ block["down"].T
    x = norm(read("logits"), np.asarray(params["final_norm"], np.float64))
    logits = x @ np.asarray(params["embed" if config.tied_embeddings else "head"], np.float64).T
    logits = logits[len(text.prompt) - 1 :]
    chosen = logits[np.arange(len(text.answer)), list(text.answer)]
    return float((np.log(np.exp(logits).sum(axis=1)) - chosen).mean())
