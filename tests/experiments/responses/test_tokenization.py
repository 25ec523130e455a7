"""A checkpoint's tokenizer and stop tokens, and what is said where they are missing or broken."""

import json
import shutil
from pathlib import Path

import gguf_model
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import Wav2Vec2CTCTokenizer

from converters.errors import CheckpointError
from experiments.errors import InputError
from experiments.responses.questions import Question
from experiments.responses.tokenization import encode_prompt, load_tokenizer, stop_tokens
from experiments.study.pairs import CHAT

START = Path(__file__).resolve().parents[3] / "experiments" / "checkpoints" / "tiny_start"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(START, tmp_path / "model"))


def test_the_tokenizer_of_the_folder_is_loaded():
    tokenizer = load_tokenizer(START)
    tokens = tokenizer("Question: How many books?")["input_ids"]
    assert "How many books" in tokenizer.decode(tokens)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"version": "1.0", "model": {}}'])
def test_a_missing_or_broken_tokenizer_is_one_line(folder, text):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    if text is not None:
        (folder / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"model: expected a tokenizer, found ") as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": 2}, {"eos_token_id": 3}, (2,)),
        ({"eos_token_id": [2, 5]}, {}, (2, 5)),
        ({}, {"eos_token_id": 3}, (3,)),
        ({"eos_token_id": None}, {"eos_token_id": 0}, (0,)),
        (None, {"eos_token_id": 3}, (3,)),
    ],
)
def test_stop_tokens_are_the_generation_configs_before_the_configs(
    tmp_path, generation, config, expected
):
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert stop_tokens(tmp_path) == expected


def test_a_gguf_file_brings_its_tokenizer_and_stop_tokens(tmp_path):
    path = tmp_path / "model.gguf"
    stops = {"tokenizer.ggml.eot_token_id": 7}
    gguf_model.write(path, metadata=stops, tokenizer=gguf_model.add_tokenizer)
    tokenizer = load_tokenizer(path)
    assert tokenizer.decode(tokenizer("12!1")["input_ids"]) == "12!1"
    assert len(tokenizer("12!1")["input_ids"]) == 3
    assert stop_tokens(path) == (2, 7)
    gguf_model.write(path, without=("tokenizer.ggml.eos_token_id",))
    with pytest.raises(InputError, match=r"model\.gguf: expected eos_token_id, found none"):
        stop_tokens(path)
    with pytest.raises(CheckpointError, match=r"model\.gguf: tokenizer\.ggml\.tokens: expected"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"generation_config.json: expected JSON"),
        ("[]", r"generation_config.json: expected a JSON object, found list"),
        ('{"eos_token_id": "</s>"}', r"eos_token_id: expected token ids, found '</s>'"),
        ('{"eos_token_id": [2, -1]}', r"eos_token_id: expected token ids, found \[2, -1\]"),
        ("{}", r"config.json: expected eos_token_id, found none"),
    ],
)
def test_broken_settings_are_named(tmp_path, text, said):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(InputError, match=said):
        stop_tokens(tmp_path)


def test_a_template_that_begins_with_what_the_tokenizer_adds_has_it_once():
    """As Llama's: both the template and the tokenizer put the first token there."""
    tokenizer = load_tokenizer(START)
    first = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first[0]} $A", special_tokens=[first]
    )
    tokenizer.chat_template = (
        "{{ eos_token }}{% for m in messages %}Question: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}Answer:{% endif %}"
    )
    asked = Question(idx=0, question="How many books?", answer="1", solution="")
    found = encode_prompt(tokenizer, CHAT, asked)
    theirs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How many books?"}], add_generation_prompt=True
    )
    assert found == theirs["input_ids"]
    assert found.count(first[1]) == 1
    bare = encode_prompt(tokenizer, "Question: {question}\nAnswer:", asked)
    assert bare == found, "without a template the tokenizer adds it"


@pytest.fixture
def snapshot(folder):
    """A snapshot of a training whose tokenizer and stop tokens lie in the training's folder."""
    path = folder / "snapshots" / "00008"
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return path


def test_a_snapshot_without_its_own_has_the_tokenizer_and_stop_tokens_of_the_folder_above(snapshot):
    text = "Question: How many books?"
    assert load_tokenizer(snapshot)(text)["input_ids"] == load_tokenizer(START)(text)["input_ids"]
    assert stop_tokens(snapshot) == stop_tokens(START)


def test_what_a_snapshot_has_itself_comes_first(snapshot):
    (snapshot / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    assert stop_tokens(snapshot) == (7,)
    (snapshot / "tokenizer.json").write_text("broken")
    with pytest.raises(InputError, match="00008: expected a tokenizer, found "):
        load_tokenizer(snapshot)


def test_a_snapshot_whose_training_names_nothing_either_is_one_line(snapshot):
    above = snapshot.parent.parent
    for path in above.glob("*.json"):
        path.unlink()
    with pytest.raises(InputError, match=r"00008: expected a tokenizer, found "):
        load_tokenizer(snapshot)
    said = f"00008: config.json: expected eos_token_id there or in {above}, found none$"
    with pytest.raises(InputError, match=said):
        stop_tokens(snapshot)


PLAIN = "Question: {question}\nAnswer:"


def question(text):
    return Question(idx=5, question=text, answer="1", solution="")


def test_an_unknown_word_is_named_but_not_the_unknown_token_that_a_text_writes():
    tokenizer = load_tokenizer(START)
    written = f"How many {tokenizer.unk_token} books?"
    tokens = encode_prompt(tokenizer, PLAIN, question(written))
    assert tokenizer.unk_token_id in tokens
    with pytest.raises(InputError, match=r"^question 5: .* found ' zebras' in 'Question: How"):
        encode_prompt(tokenizer, PLAIN, question("How many zebras and emus?"))
    with pytest.raises(InputError, match=r"found no token in ''; --prompt gives another$"):
        encode_prompt(tokenizer, "{question}", question(""))


def test_a_tokenizer_that_keeps_no_places_says_that_a_word_is_unknown(tmp_path):
    """One of those that transformers runs in Python: a token a letter, in capitals."""
    path = tmp_path / "vocab.json"
    path.write_text(
        json.dumps({name: n for n, name in enumerate(("<pad>", "<unk>", "|", "A", "B"))})
    )
    tokenizer = Wav2Vec2CTCTokenizer(path)
    assert encode_prompt(tokenizer, "{question}", question("AB")) == [3, 4]
    with pytest.raises(InputError, match=r"^question 5: .* found an unknown word in 'ABC'; --pro"):
        encode_prompt(tokenizer, "{question}", question("ABC"))
