"""A folder whose only tokenizer is a sentencepiece model -> a tokenizer of transformers.

transformers has classes (Llama's, Gemma's) that fill in what sentencepiece models of that family usually
say, whatever this one says, and leaves out the first token that such models were trained with. Here the
model's own settings count, and the library sentencepiece is asked whether the ids are the same.
"""

import json
from pathlib import Path

import sentencepiece
from transformers import PreTrainedTokenizerFast

from converters.foreign_weights import check_fetched
from experiments.errors import InputError

_NAMES = ("tokenizer.model", "spiece.model")
# Other forms of a tokenizer, which transformers reads before a sentencepiece model.
_OTHERS = ("tokenizer.json", "vocab.json", "tekken.json")
# Texts without special tokens; no space stands first, since `legacy: false` asks for another treatment.
_PROBES = (
    "Question: Tom has 12 apples, 345 pears and 6789 plums.\n\nAnswer:",
    "The answer is $\\frac{1}{2}$,  so he's got \\boxed{3.14}!\n\tnaïve: 東京 ",
)


def sentencepiece_file(folder: Path) -> Path | None:
    """The sentencepiece model of a folder that has no other form of its tokenizer."""
    if any((folder / name).is_file() for name in _OTHERS):
        return None
    return next((folder / name for name in _NAMES if (folder / name).is_file()), None)


def sentencepiece_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a sentencepiece model, with what tokenizer_config.json beside it says.

    Where that does not say whether texts begin with the first token (`add_bos_token`), they do if the
    model has one: so the models of this kind were trained, and transformers 4 read them.

    Raises:
      CheckpointError: the file is a Git LFS pointer.
      InputError: it is no sentencepiece model, or transformers makes other ids of it.
    """
    check_fetched(file)
    own = sentencepiece.SentencePieceProcessor()
    try:
        # Given the file's name, it writes a line of its own to standard error where the file is broken.
        own.LoadFromSerializedProto(file.read_bytes())
    except RuntimeError:
        raise InputError(
            f"{file}: expected a sentencepiece model, found another or a broken file; a tokenizer of "
            "another kind is read from tokenizer.json"
        ) from None
    tokenizer = PreTrainedTokenizerFast.from_pretrained(
        file.parent,
        vocab_file=str(file),
        local_files_only=True,
        **(
            {}
            if "add_bos_token" in _settings(file.parent)
            else {"add_bos_token": own.bos_id() >= 0}
        ),
    )
    for text in _PROBES:
        expected = own.encode(text)
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        if found != expected:
            at = next(
                (i for i, pair in enumerate(zip(expected, found)) if len(set(pair)) > 1),  # noqa: B905
                min(len(expected), len(found)),
            )
            raise InputError(
                f"{file}: {text[:30]!r}: expected sentencepiece's ids {expected[at : at + 4]} at place "
                f"{at}, found {found[at : at + 4]}; save the tokenizer as tokenizer.json, which is read "
                "as it is"
            )
    return tokenizer


def _settings(folder: Path) -> dict:
    file = folder / "tokenizer_config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
