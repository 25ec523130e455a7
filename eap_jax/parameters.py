"""The parameter tree: one declaration of names and axes serves shapes, sharding and conversion.

    {"embed", "final_norm", ["head"], "blocks": {name: stacked over layers}}

Parameters keep the layout of Hugging Face checkpoints, output axes first, so that conversion never
transposes. Axis letters are explained in axes.py.
"""

import jax

from eap_jax.config import ModelConfig

# Output and input axes of the blocks' matrices.
PROJECTIONS = {
    "q": ("NH", "D"), "k": ("KH", "D"), "v": ("KH", "D"), "o": ("D", "NH"),
    "gate": ("F", "D"), "up": ("F", "D"), "down": ("D", "F"),
}  # fmt: skip


def block_axes(config: ModelConfig) -> dict[str, str]:
    """Axis letters of one block's parameters by name; with a leading L once layers are stacked."""
    axes = {
        "attention_norm": "D",
        **{name: out + into for name, (out, into) in PROJECTIONS.items()},
        "mlp_norm": "D",
    }
    if config.norm_position == "post":
        del axes["attention_norm"], axes["mlp_norm"]
    if config.norm_position != "pre":
        axes |= {"attention_post_norm": "D", "mlp_post_norm": "D"}
    if config.qk_norm is not None:
        full = config.qk_norm == "full"
        axes |= {"q_norm": "NH" if full else "H", "k_norm": "KH" if full else "H"}
    if config.qkv_bias:
        axes |= {"q_bias": "NH", "k_bias": "KH", "v_bias": "KH"}
    if config.output_bias:
        axes |= {"o_bias": "D"}
    if config.mlp_bias:
        axes |= {"gate_bias": "F", "up_bias": "F", "down_bias": "D"}
    if config.adapter_rank:
        axes |= {f"{name}_a": "r" + letters for name, (_, letters) in PROJECTIONS.items()}
        axes |= {f"{name}_b": letters + "r" for name, (letters, _) in PROJECTIONS.items()}
    return axes


def end_axes(config: ModelConfig) -> dict[str, str]:
    """Axis letters of the parameters outside the blocks: `embed`, `final_norm` and, untied, `head`."""
    axes = {"embed": "VD", "final_norm": "D"}
    return axes if config.tied_embeddings else axes | {"head": "VD"}


def parameter_axes(config: ModelConfig) -> dict:
    """Axis letters of the whole parameter tree; the tree has exactly this structure."""
    blocks = {name: "L" + letters for name, letters in block_axes(config).items()}
    return end_axes(config) | {"blocks": blocks}


def axis_sizes(config: ModelConfig) -> dict[str, int]:
    """Size of each axis letter that occurs in the parameters."""
    sizes = {
        "L": config.num_layers, "V": config.vocab_size, "D": config.d_model, "F": config.d_ff,
        "N": config.num_heads, "K": config.num_kv_heads, "H": config.head_dim,
    }  # fmt: skip
    return sizes | {"r": config.adapter_rank} if config.adapter_rank else sizes


def parameter_shapes(config: ModelConfig) -> dict:
    """Shapes of the whole parameter tree, leaves are tuples."""
    sizes = axis_sizes(config)
    return jax.tree.map(lambda letters: tuple(sizes[c] for c in letters), parameter_axes(config))


def head_name(config: ModelConfig) -> str:
    """Which parameter holds the output head."""
    return "embed" if config.tied_embeddings else "head"


def separate_layers(params: dict) -> dict:
    """The same parameters with `blocks` a tuple of one dictionary a layer, as generation wants them.

    Stacked parameters are cut into separate arrays, a second copy of the blocks; parameters that are
    separate already are returned as they are.
    """
    if isinstance(params["blocks"], tuple):
        return params
    return params | {"blocks": _cut(params["blocks"])}


@jax.jit
def _cut(blocks: dict) -> tuple[dict, ...]:
    layers = len(next(iter(blocks.values())))
    return tuple(
        jax.tree.map(lambda leaf, layer=layer: leaf[layer], blocks) for layer in range(layers)
    )
