"""A folder whose only tokenizer is a sentencepiece model: ids are those of the library sentencepiece."""

import io
import json

import pytest
import sentencepiece

from converters.errors import CheckpointError
from experiments.errors import InputError
from experiments.responses import sentencepiece_model
from experiments.responses.continuation import continue_prompt, prompt_of_text
from experiments.responses.tokenization import load_tokenizer

TEXTS = (
    "Natalia sold clips to 48 of her friends in April, and then half as many in May.",
    "How many clips did Natalia sell altogether?  x = 3 + 4 * 12 = 51",
    "The answer is \\boxed{72}.\n\tWeng earns $12 an hour.",
)
PROBES = (
    *TEXTS, "", "a\nb\n\nc", "12345", "naïve 東京 \U0001f600", "trail ", "ﬁ ｆｕｌｌ", "\ttab",
    "two  spaces", "<tool>x<tool> y",
)  # fmt: skip
FIRST = "  two spaces first"
SETTINGS = {
    "bpe": {},
    "unigram": {"model_type": "unigram"},
    "no space before": {"add_dummy_prefix": False},
    "normalised": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
    "own symbols": {"user_defined_symbols": ["<tool>", "\n\n"]},
    "no bytes": {"byte_fallback": False},
}
KINDS = {
    "llama": ("LlamaForCausalLM", "LlamaTokenizer"),
    "mistral": ("MistralForCausalLM", "LlamaTokenizer"),
    "gemma2": ("Gemma2ForCausalLM", "GemmaTokenizer"),
}


def model_of(**settings) -> bytes:
    """A small sentencepiece model, trained as Llama's was unless the settings say otherwise."""
    written = io.BytesIO()
    defaults = {
        "vocab_size": 330, "model_type": "bpe", "byte_fallback": True, "split_digits": True,
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
        "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2,
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5), model_writer=written, **(defaults | settings)
    )
    return written.getvalue()


def folder_of(folder, model: bytes, kind: str = "llama", **settings):
    folder.mkdir(parents=True)
    architecture, named = KINDS[kind]
    config = {"architectures": [architecture], "model_type": kind, "vocab_size": 400}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": named, "add_bos_token": True} | settings)
    )
    (folder / "tokenizer.model").write_bytes(model)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_ids_are_sentencepieces(name, kind, tmp_path):
    model = model_of(**SETTINGS[name])
    oracle = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = load_tokenizer(folder_of(tmp_path / "model", model, kind))
    for text in (*PROBES, FIRST):
        expected = oracle.encode(text)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected, text
        assert tokenizer(text)["input_ids"] == [oracle.bos_id(), *expected], text
        if oracle.unk_id() not in expected:  # which the two write differently
            assert tokenizer.decode(expected).strip() == oracle.decode(expected).strip(), text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (oracle.bos_id(), oracle.eos_id())
    assert len(tokenizer) == oracle.vocab_size()


def test_without_prefixes_inside_a_text_ids_are_the_same_but_for_spaces_before_it(tmp_path):
    """`legacy: false`: only the text's first word gets a space, not one behind a special token."""
    model = model_of()
    oracle = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = load_tokenizer(folder_of(tmp_path / "model", model, legacy=False))
    for text in PROBES:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == oracle.encode(text), text
    behind = tokenizer("<s>many", add_special_tokens=False)["input_ids"]
    assert behind[0] == oracle.bos_id()
    assert oracle.id_to_piece(behind[1]).startswith("m")
    assert oracle.id_to_piece(oracle.encode("many")[0]).startswith("▁")


@pytest.mark.parametrize(
    ("settings", "stated", "first"),
    [
        ({}, {}, True),
        ({}, {"add_bos_token": True}, True),
        ({}, {"add_bos_token": False}, False),
        ({"bos_id": -1}, {}, False),
    ],
)
def test_texts_begin_with_the_first_token_that_the_model_has_unless_told(
    settings, stated, first, tmp_path
):
    model = model_of(**settings)
    folder = folder_of(tmp_path / "model", model)
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    oracle = sentencepiece.SentencePieceProcessor(model_proto=model)
    expected = [oracle.bos_id()] * first + oracle.encode("How many")
    assert load_tokenizer(folder)("How many")["input_ids"] == expected
    (folder / "tokenizer_config.json").unlink()
    expected = [oracle.bos_id()] * (oracle.bos_id() >= 0) + oracle.encode("How many")
    assert load_tokenizer(folder)("How many")["input_ids"] == expected


def test_an_answer_behind_its_prompt_has_the_ids_of_both_together(tmp_path):
    model = model_of()
    oracle = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = load_tokenizer(folder_of(tmp_path / "model", model))
    prompt, answer = "How many clips?\nAnswer:", " 72 clips in April."
    read = prompt_of_text(tokenizer, prompt)
    found = continue_prompt(tokenizer, read, answer, "here").tokens
    assert [*read.tokens, *found] == [oracle.bos_id(), *oracle.encode(prompt + answer)]


def test_another_form_of_the_tokenizer_comes_first(tmp_path):
    folder = folder_of(tmp_path / "model", model_of())
    own = load_tokenizer(folder)
    own.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer.model").write_bytes(b"not read")
    found = load_tokenizer(folder)
    assert [found(text)["input_ids"] for text in PROBES] == [own(t)["input_ids"] for t in PROBES]


@pytest.mark.parametrize("data", [b"", b"IQ== 0\nIg== 1\n", b"\x00\xff" * 90, "half"])
def test_a_file_that_is_no_sentencepiece_model_is_one_line(data, tmp_path, capfd):
    """As Llama 3's original tokenizer.model, which is tiktoken's."""
    whole = model_of()
    data = whole[: len(whole) // 2] if data == "half" else data
    folder = folder_of(tmp_path / "model", data)
    with pytest.raises(InputError, match=r"tokenizer\.model: expected a sentencepiece") as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_pointer_to_a_model_is_named_as_one(tmp_path):
    folder = folder_of(tmp_path / "model", b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: .* Git LFS pointer"):
        load_tokenizer(folder)


def test_ids_that_are_not_sentencepieces_are_refused(monkeypatch, tmp_path):
    """As an older transformers makes them, which fills in a space before the text."""
    folder = folder_of(tmp_path / "model", model_of(add_dummy_prefix=False))
    spaced = folder_of(tmp_path / "spaced", model_of())
    other = load_tokenizer(spaced)
    monkeypatch.setattr(
        sentencepiece_model.PreTrainedTokenizerFast, "from_pretrained", lambda *_, **__: other
    )
    with pytest.raises(InputError, match=r"expected sentencepiece's ids \[\d+") as error:
        load_tokenizer(folder)
    assert "tokenizer.json" in str(error.value)
