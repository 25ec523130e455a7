"""Tokenizers from GGUF metadata: the ids of the tokenizer that was written there."""

import itertools
import json
import random

import gguf
import gguf_model
import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import AutoTokenizer

from converters.convert import to_hf
from converters.errors import CheckpointError
from converters.gguf_file import GGUFFile
from converters.gguf_header import read_header
from converters.gguf_tokenizer import build_tokenizer

TEXTS = (
    "Tom has 12 apples, 345 pears and 6789 plums; he's got 3.14!",
    "  two  spaces\n\n\nand lines\r\n\tand a tab ",
    "naïve café — Ünïcode: 東京 is not Kyoto. \U0001f600",
    "They'LL say it's 2024-01-31<|end|>and more<think>x</think>",
    "x = [1, 2, 3]; y=(a+b)**2 // 7\n    return y",
)
SPECIAL = ("<|begin|>", "<|end|>", "<|unknown|>")
ADDED = ("<think>", "</think>")
TEMPLATE = "{% for m in messages %}<|begin|>{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}"
# What the models' own tokenizer.json files do; the patterns are each family's published ones.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    "llama-bpe": [
        pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
    "qwen2": [
        pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
}


def trained(pre: str) -> Tokenizer:
    """A byte-level BPE tokenizer of 400 words, learnt from `TEXTS`."""
    found = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    found.pre_tokenizer = pre_tokenizers.Sequence(PRE[pre])
    if pre == "qwen2":
        found.normalizer = normalizers.NFC()
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    found.train_from_iterator(TEXTS * 3, trainer)
    found.add_tokens([AddedToken(word, normalized=False) for word in ADDED])
    return found


def metadata_of(tokenizer: Tokenizer, kind: str, pre: str) -> dict:
    """A tokenizer as llama.cpp's converter writes it down."""
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    model = json.loads(tokenizer.to_str())["model"]
    types = [3 if w in SPECIAL else 4 if w in ADDED else 1 for w in words]
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }


def file_of(metadata: dict, tmp_path) -> GGUFFile:
    return GGUFFile(path=tmp_path / "model.gguf", metadata=metadata, tensors={}, parts=())


def random_texts(count: int) -> list[str]:
    draw, letters = random.Random(0), "".join(TEXTS)
    return ["".join(draw.choices(letters, k=draw.randint(1, 40))) for _ in range(count)]


@pytest.mark.parametrize("pre", PRE)
def test_byte_level_ids_are_those_of_the_tokenizer_written_down(pre, tmp_path):
    own = trained(pre)
    found = build_tokenizer(file_of(metadata_of(own, "gpt2", pre), tmp_path))
    for text in (*TEXTS, *random_texts(200)):
        expected = own.encode(text, add_special_tokens=False).ids
        # Llama 3's kind begins every text with BOS where the file does not say.
        assert found(text)["input_ids"] == [0] * (pre == "llama-bpe") + expected
        assert found(text, add_special_tokens=False)["input_ids"] == expected
        if pre != "qwen2":  # whose letters are composed on the way
            assert found.decode(expected) == text
    assert (found.bos_token_id, found.eos_token_id, found.unk_token_id) == (0, 1, 2)
    assert found.pad_token is None
    assert len(found) == own.get_vocab_size()
    messages = [{"role": "user", "content": "Hi"}]
    assert found.apply_chat_template(messages, tokenize=False) == "<|begin|>user: Hi<|end|>"
    assert found.decode(found("a<|end|>")["input_ids"], skip_special_tokens=True) == "a"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Tom has 123 apples.", ["Tom", " has", " ", "1", "2", "3", " apples", "."]),
        ("a\r\n\n b  c ", ["a", "\r", "\n", "\n", " b", " ", " c", " "]),
        ("x+=(y1)//2; it's", ["x", "+=(", "y", "1", ")//", "2", ";", " it", "'", "s"]),
        ("na\u00efve \u6771\u4eac\u3002ok",
         ["na", "\u00ef", "ve", " ", "\u6771\u4eac", "\u3002", "ok"]),
        ("\\boxed{12}$", ["\\", "boxed", "{", "1", "2", "}$"]),
        # A formula's letter is no letter of the list, nor is a Georgian small one.
        ("a\U0001d465b \u10d0c", ["a", "\U0001d465", "b", " ", "\u10d0", "c"]),
    ],
)  # fmt: skip
def test_deepseeks_texts_are_split_by_its_six_rules_in_turn(text, pieces, tmp_path):
    """Line ends, words, signs (ASCII letters too: a word is cut at others), spaces at the end, Chinese
    and what is numbered before it, digits one by one: by hand."""
    file = file_of(metadata_of(trained("gpt-2"), "gpt2", "deepseek-llm"), tmp_path)
    found = build_tokenizer(file).backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in found] == pieces


@pytest.mark.parametrize(("begins", "ends"), [(True, False), (False, True), (False, False)])
def test_first_and_last_tokens_are_added_as_the_file_says(begins, ends, tmp_path):
    metadata = metadata_of(trained("llama-bpe"), "gpt2", "llama-bpe")
    metadata |= {"tokenizer.ggml.add_bos_token": begins, "tokenizer.ggml.add_eos_token": ends}
    found = build_tokenizer(file_of(metadata, tmp_path))
    plain = found("Tom has", add_special_tokens=False)["input_ids"]
    assert found("Tom has")["input_ids"] == [0] * begins + plain + [1] * ends


def sentencepiece(words: dict[str, float], text: str) -> list[str]:
    """Sentencepiece's BPE from its definition: join the neighbours whose word has the best score;
    what is no word becomes its bytes."""
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(-words[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts))
                 if a + b in words]  # fmt: skip
        if not pairs:
            break
        at = min(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [
        piece
        for part in parts
        for piece in ([part] if part in words else [f"<0x{b:02X}>" for b in part.encode()])
    ]


def sentencepiece_metadata() -> tuple[dict, dict[str, float]]:
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    learnt.train_from_iterator([text.replace("東", "") for text in TEXTS[:3]] * 3, trainer)
    vocabulary = learnt.get_vocab()
    merged = sorted((w for w in vocabulary if len(w) > 1), key=vocabulary.get)
    letters = sorted((w for w in vocabulary if len(w) == 1), key=vocabulary.get)
    # Scores as sentencepiece gives them: merges by their rank, letters below all of them.
    scores = {word: -float(rank) for rank, word in enumerate(merged + letters)}
    heads = ["<unk>", "<s>", "</s>"]
    numbers = [f"<0x{byte:02X}>" for byte in range(256)]
    words = heads + numbers + list(scores)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [0.0] * (len(heads) + 256) + list(scores.values()),
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(scores),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }, scores


def test_sentencepiece_ids_are_those_of_joining_the_best_neighbours(tmp_path):
    metadata, scores = sentencepiece_metadata()
    found = build_tokenizer(file_of(metadata, tmp_path))
    numbers = {word: n for n, word in enumerate(metadata["tokenizer.ggml.tokens"])}
    for text in (*TEXTS, *random_texts(100)):
        expected = [numbers[piece] for piece in sentencepiece(scores, text)]
        assert found(text)["input_ids"] == [1, *expected], text
        assert found.decode(expected) == text
    assert found("a</s>", add_special_tokens=False)["input_ids"][-1] == 2
    bare = build_tokenizer(file_of(metadata | {"tokenizer.ggml.add_space_prefix": False}, tmp_path))
    assert bare(" Tom")["input_ids"] == found("Tom")["input_ids"]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_converted_folder_has_the_same_tokenizer(kind, tmp_path):
    metadata = metadata_of(trained("smollm"), "gpt2", "smollm")
    if kind == "llama":
        metadata = sentencepiece_metadata()[0] | {"tokenizer.chat_template": TEMPLATE}
    path = tmp_path / "model.gguf"

    def add(writer: gguf.GGUFWriter) -> None:
        for key, value in metadata.items():
            if isinstance(value, list):
                writer.add_array(key, value)
            elif isinstance(value, str):
                writer.add_string(key, value)

    ids = {key: metadata[f"tokenizer.ggml.{key}"] for key in ("bos_token_id", "eos_token_id")}
    given = {f"tokenizer.ggml.{key}": value for key, value in ids.items()}
    gguf_model.write(path, tokenizer=add, metadata=given)
    to_hf(path, tmp_path / "hf")
    own = build_tokenizer(read_header(path))
    found = AutoTokenizer.from_pretrained(tmp_path / "hf", local_files_only=True)
    for text in (*TEXTS, *random_texts(50)):
        assert found(text)["input_ids"] == own(text)["input_ids"]
    assert found.chat_template == own.chat_template == TEMPLATE
    for name in ("bos_token_id", "eos_token_id"):
        assert getattr(found, name) == getattr(own, name) == ids[name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "bert"}, "model: expected gpt2 or llama, found 'bert'"),
        ({"model": None}, "model: expected gpt2 or llama, found None"),
        ({"pre": "unheard-of"}, "found 'unheard-of'"),
        ({"pre": None}, "pre: expected one of gpt-2, "),
        ({"tokens": None}, "tokens: expected a list of words, found none"),
        ({"tokens": ["a", "a"]}, "tokens: expected each word once, found 'a' twice"),
        ({"token_type": [1]}, "token_type: expected "),
        ({"merges": None}, "merges: expected a list of pairs of words"),
        ({"merges": ["zz qq"]}, "merges: expected a usable vocabulary, found "),
        ({"bos_token_id": 10**6}, "bos_token_id: expected a token id below "),
        ({"add_bos_token": 1}, "add_bos_token: expected true or false, found 1"),
    ],
)
def test_a_tokenizer_that_is_not_known_or_broken_is_refused_by_its_key(change, said, tmp_path):
    metadata = metadata_of(trained("gpt-2"), "gpt2", "gpt-2")
    changed = metadata | {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    with pytest.raises(CheckpointError) as error:
        build_tokenizer(file_of({k: v for k, v in changed.items() if v is not None}, tmp_path))
    assert "\n" not in str(error.value)
    assert f"{tmp_path / 'model.gguf'}: tokenizer.ggml.{said}" in str(error.value) or (
        said.startswith("found") and said in str(error.value)
    )
