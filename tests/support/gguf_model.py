"""GGUF files written by gguf's own writer from toys: the way that llama.cpp's converter makes them.

Names come from gguf's table, quantised bytes from gguf's quantiser or, where it has none, from chance.
"""

import functools
from pathlib import Path

import gguf
import jax
import numpy as np
import toys

from converters.load import load_checkpoint
from eap_jax.transformer import Transformer

# Bytes of a block that are half-precision scales: a random number there may be infinite.
_SCALES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", *_SCALES)
# Rows of whole blocks of every type.
TOY = toys.toy_of(
    "llama", vocab_size=40, d_model=256, d_ff=256, num_heads=4, num_kv_heads=2, head_dim=64,
    tied_embeddings=True, norm_eps=1e-5,
)  # fmt: skip


def pairs_first(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k in the file's order: within a head 0, h/2, 1, h/2 + 1, ..."""
    size = len(tensor) // heads
    order = [
        head * size + half * (size // 2) + pair
        for head in range(heads)
        for pair in range(size // 2)
        for half in range(2)
    ]
    return tensor[order]


def halves_first(tensor: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `pairs_first`."""
    places = pairs_first(np.arange(len(tensor)), heads)
    found = np.empty_like(tensor)
    found[places] = tensor
    return found


def stored(tensor: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A matrix as the file holds it: numbers, or bytes [..., bytes of a row]."""
    quantisation = gguf.GGMLQuantizationType[kind]
    if kind not in _SCALES:
        return gguf.quants.quantize(tensor, quantisation)
    block, size = gguf.GGML_QUANT_SIZES[quantisation]
    blocks = rng.integers(0, 256, (tensor.size // block, size), dtype=np.uint8)
    for place in _SCALES[kind]:
        scales = rng.uniform(1e-4, 3e-4, len(blocks)).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(len(tensor), -1)


def write(
    path: Path,
    toy: toys.Toy = TOY,
    params: dict | None = None,
    *,
    kind: str = "F32",
    kinds: dict[str, str] | None = None,
    metadata: dict | None = None,
    without: tuple[str, ...] = (),
    tensors: dict[str, np.ndarray] | None = None,
    tokenizer=None,
    split: int = 0,
) -> dict[str, np.ndarray]:
    """Write a toy's GGUF file.

    Args:
      kind: of the matrices; vectors are float32.
      kinds: of single matrices, by their names in the file, instead.
      metadata: further keys, or others (strings, ints, floats, bools).
      without: keys and tensors to leave out.
      tensors: further float32 tensors.
      tokenizer: called with the writer.
      split: most tensors of a file, which are then NAME-00001-of-00003.gguf and so on.

    Returns:
      the tensors that a reader should find, float32, by their Hugging Face names.
    """
    config = toy.config
    params = toys.random_params(config) if params is None else params
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=split)
    keys = {
        "llama.block_count": config.num_layers,
        "llama.context_length": 512,
        "llama.embedding_length": config.d_model,
        "llama.feed_forward_length": config.d_ff,
        "llama.attention.head_count": config.num_heads,
        "llama.attention.head_count_kv": config.num_kv_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": config.rope_theta,
        "llama.attention.layer_norm_rms_epsilon": config.norm_eps,
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    } | (metadata or {})
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    for key, value in keys.items():
        if key not in without and key != "general.architecture":
            add.get(type(value), writer.add_string)(key, value)
    if "general.architecture" in keys:
        writer.kv_data[0]["general.architecture"].value = keys["general.architecture"]
    if tokenizer is not None:
        tokenizer(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_layers)
    expected = {}
    for name, tensor in toys.hf_state(config, params).items():
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        heads = {"q": config.num_heads, "k": config.num_kv_heads}.get(
            name.split("_proj")[0][-1] if "self_attn" in name else ""
        )
        tensor = pairs_first(tensor, heads) if heads else tensor
        wanted = (kinds or {}).get(own, kind) if tensor.ndim > 1 else "F32"
        quantisation = gguf.GGMLQuantizationType[wanted]
        data = stored(np.ascontiguousarray(tensor), wanted, rng)
        if own not in without:
            writer.add_tensor(own, data, raw_dtype=quantisation)
        whole = gguf.quants.dequantize(data, quantisation).reshape(tensor.shape)
        expected[name] = halves_first(whole, heads) if heads else whole
    for name, tensor in (tensors or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


WORDS = ["<unk>", "<s>", "</s>"]


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """A byte-level tokenizer of `TOY`'s vocabulary with one merge."""
    letters = [chr(code) for code in range(ord("!"), ord("!") + TOY.config.vocab_size - 4)]
    letters.append("12")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(WORDS + letters)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(WORDS) + [1] * len(letters))
    writer.add_token_merges(["1 2"])
    writer.add_chat_template("{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}")


@functools.cache
def _program(config):
    return jax.jit(lambda params, tokens: Transformer(config).apply({"params": params}, tokens))


def assert_logits(path, toy: toys.Toy, state: dict, torch) -> None:
    """Logits of the file equal those of transformers' Llama with these tensors."""
    model = toys.torch_model(toy, toys.random_params(toy.config))
    found = {name: torch.from_numpy(np.ascontiguousarray(t)) for name, t in state.items()}
    model.load_state_dict(found, strict=not toy.config.tied_embeddings)
    tokens = toys.random_tokens(toy.config, 2, 40)
    with torch.no_grad():
        expected = model(torch.tensor(tokens.tolist())).logits.numpy()
    loaded = load_checkpoint(path, dtype="float32")
    assert loaded.config == toy.config
    logits = _program(toy.config)(loaded.params, tokens).logits
    assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()
