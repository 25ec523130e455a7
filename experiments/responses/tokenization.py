"""What a checkpoint says of text: its tokenizer, its stop tokens, a question's prompt."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from converters.adapter_base import base_of
from converters.adapter_config import is_adapter
from converters.errors import CheckpointError
from converters.gguf_config import token_ids
from converters.gguf_file import is_gguf
from converters.gguf_header import read_header
from converters.gguf_tokenizer import build_tokenizer
from converters.load import TOKENIZER_FILES
from experiments import store
from experiments.errors import InputError
from experiments.responses.chat_template import render_messages
from experiments.responses.questions import Question
from experiments.responses.sentencepiece_model import (
    sentencepiece_file,
    sentencepiece_tokenizer,
)
from experiments.study.pairs import CHAT
from experiments.study.snapshots import folder_above


def load_tokenizer(checkpoint: Path):
    """The tokenizer that lies in a checkpoint's folder, or in its GGUF file; a snapshot
    (`study.snapshots`) without one has that of the training's folder. Code in the folder is never run.

    Raises:
      InputError, CheckpointError: there is none, or it is broken, or code of its own.
    """
    checkpoint = tokenizer_folder(checkpoint)
    if is_gguf(checkpoint):
        return build_tokenizer(read_header(checkpoint))
    code, file = _own_code(checkpoint), sentencepiece_file(checkpoint)
    try:
        if file is not None and code is None:
            return sentencepiece_tokenizer(file)
        if file is None:
            return AutoTokenizer.from_pretrained(
                checkpoint, local_files_only=True, trust_remote_code=False
            )
    except (InputError, CheckpointError):
        raise
    # Errors of json, of a missing key, of Rust: transformers promises no common base.
    except Exception as error:
        # A list of one class, of the two that transformers expects, ends in an IndexError there.
        refused = "trust_remote_code" in str(error) or isinstance(error, IndexError)
        if code is None or not refused:
            found = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise InputError(f"{checkpoint}: expected a tokenizer, found {found}") from None
    raise InputError(
        f"{checkpoint / 'tokenizer_config.json'}: auto_map: expected a tokenizer that transformers has, "
        f"found code that came with the model ({code}), which is never run; save the tokenizer as "
        "tokenizer.json and take auto_map and tokenizer_class out"
    )


def _own_code(folder: Path) -> str | None:
    """The class of a tokenizer whose code lies beside it or in another repository, as it is named."""
    try:
        settings = store.read_json(folder / "tokenizer_config.json")
    except InputError:
        return None
    named = settings.get("auto_map") if isinstance(settings, dict) else None
    named = named.get("AutoTokenizer") if isinstance(named, dict) else named
    names = named if isinstance(named, list) else [named]
    return next((name for name in names if isinstance(name, str)), None)


def tokenizer_folder(checkpoint: Path) -> Path:
    """Where the tokenizer that `load_tokenizer` gives lies: a folder or a GGUF file.

    Raises:
      CheckpointError: an adapter has no base here.
    """
    checkpoint = text_folder(checkpoint)
    above = None if is_gguf(checkpoint) else folder_above(checkpoint)
    if above is not None and not has_tokenizer(checkpoint) and has_tokenizer(above):
        return above
    return checkpoint


def text_folder(checkpoint: Path) -> Path:
    """Where a checkpoint's tokenizer lies: for an adapter that has none, its base's folder or file.

    Raises:
      CheckpointError: an adapter has no base here.
    """
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
    own = any((checkpoint / name).is_file() for name in names)
    return base_of(checkpoint) if is_adapter(checkpoint) and not own else checkpoint


def stop_tokens(checkpoint: Path) -> tuple[int, ...]:
    """End-of-sequence ids from generation_config.json or config.json, or a GGUF file's metadata; of
    a snapshot that names none, those of the training's folder.

    Raises:
      InputError, CheckpointError: neither names one, or a file is broken.
    """
    for path, fields in _stated_ids(checkpoint):
        if not isinstance(fields, dict):
            raise InputError(f"{path}: expected a JSON object, found {type(fields).__name__}")
        stop = fields.get("eos_token_id")
        if stop is not None:
            stops = stop if isinstance(stop, list) else [stop]
            if not all(type(token) is int and token >= 0 for token in stops):
                raise InputError(f"{path}: eos_token_id: expected token ids, found {stop!r:.40}")
            return tuple(stops)
    place = checkpoint if is_gguf(checkpoint) else f"{checkpoint}: config.json"
    above = folder_above(checkpoint)
    also = "" if above is None else f" there or in {above}"
    raise InputError(f"{place}: expected eos_token_id{also}, found none")


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a file of a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _stated_ids(checkpoint: Path) -> Iterator[tuple[Path, Any]]:
    """What may name the tokens that end an answer, the first choice first."""
    if is_adapter(checkpoint):
        checkpoint = base_of(checkpoint)
    if is_gguf(checkpoint):
        yield checkpoint, token_ids(read_header(checkpoint))
        return
    for folder in (checkpoint, folder_above(checkpoint)):
        for name in ("generation_config.json", "config.json"):
            if folder is not None and (folder / name).exists():
                yield folder / name, store.read_json(folder / name)


def encode_prompt(tokenizer, prompt: str, question: Question) -> list[int]:
    """Token ids of a question's prompt, with the special tokens that the tokenizer adds.

    Args:
      tokenizer: of the model.
      prompt: text with the place `{question}`, or `pairs.CHAT` for the tokenizer's chat template.
      question: what is asked.

    Raises:
      InputError: the tokenizer has no chat template, or does not know a word of the text.
    """
    text = prompt_text(tokenizer, prompt, question.question)
    encoded = tokenizer(text, add_special_tokens=adds_special_tokens(tokenizer, prompt, text))
    tokens, unknown = encoded["input_ids"], tokenizer.unk_token_id
    if not tokens or (
        unknown is not None and unknown in tokens and tokenizer.unk_token not in text
    ):
        raise InputError(
            f"question {question.idx}: expected a prompt that the tokenizer knows, found "
            f"{_unknown_part(encoded, text, unknown)}in {text[:60]!r}; --prompt gives another"
        )
    return tokens


def prompt_text(tokenizer, prompt: str, question: str) -> str:
    """The text that a model reads for a question; arguments and errors as `encode_prompt`."""
    if prompt == CHAT:
        return render_messages(tokenizer, [{"role": "user", "content": question}])
    return prompt.replace("{question}", question)


def adds_special_tokens(tokenizer, prompt: str, text: str) -> bool:
    """Whether the tokenizer must add its special tokens: a template, or the text itself, has them."""
    begin = tokenizer.bos_token
    return prompt != CHAT and not (begin and text.startswith(begin))


def _unknown_part(encoded, text: str, unknown: int | None) -> str:
    """The first unknown word, where the tokenizer tells its place."""
    if not encoded["input_ids"]:
        return "no token "
    if not encoded.is_fast:
        return "an unknown word "
    place = encoded.token_to_chars(encoded["input_ids"].index(unknown))
    return f"{text[place.start : place.end]!r} "
