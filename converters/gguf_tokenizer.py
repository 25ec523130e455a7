"""The tokenizer that a GGUF file holds -> a tokenizer of transformers, with its chat template.

`tokenizer.ggml.model` is `gpt2`, byte-level BPE, whose `tokenizer.ggml.pre` names the way that text is
split before merging; or `llama`, a sentencepiece vocabulary whose scores order the merges. The splits
are those of llama.cpp (src/llama-vocab.cpp), which are the models' own.
"""

from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
)
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from converters.errors import CheckpointError
from converters.gguf_file import GGUFFile

# What `tokenizer.ggml.token_type` says of a word.
_CONTROL, _USER_DEFINED = 3, 4
_NAMED = ("bos", "eos", "unknown", "padding")
# The splits' own words, of which `gpt-2` is the one that ByteLevel makes by itself.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Cased letters, without alphabets that the model's own list leaves out: Armenian and Georgian small
# letters, some of the Latin and Georgian supplements, letters of formulas, and younger alphabets.
_DEEPSEEK_LETTERS = (
    r"[\p{Lu}\p{Ll}\p{Lt}&&[^\x{560}-\x{588}\x{10C7}-\x{10FF}\x{1C80}-\x{1C8F}\x{2D00}-\x{2D2D}"
    r"\x{A790}-\x{A7FA}\x{AB30}-\x{AB68}\x{10570}-\x{105BC}\x{10D50}-\x{10D85}\x{16E40}-\x{16E7F}"
    r"\x{1D400}-\x{1D7CB}\x{1DF00}-\x{1DF2A}]]"
)
_DEEPSEEK = (
    r"[\r\n]",
    rf"\s?{_DEEPSEEK_LETTERS}+",
    r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
    r"\s+$",
    r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+",
    r"\p{N}",
)
_PLAIN = ("gpt-2", "phi-2", "mpt", "olmo")
_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
# Vocabularies that take a word which is in them as it is, and begin texts with BOS unless told.
_WHOLE_WORDS = (
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken",
)  # fmt: skip
_SPLITS = (
    dict.fromkeys(_PLAIN)
    | dict.fromkeys(_DIGITS)
    | dict.fromkeys((*_WHOLE_WORDS, "dbrx", "smaug-bpe"), _LLAMA3)
    | dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2)
    | {"tekken": _TEKKEN, "deepseek-llm": _DEEPSEEK}
)


def build_tokenizer(file: GGUFFile) -> PreTrainedTokenizerFast:
    """The tokenizer of a file.

    Raises:
      CheckpointError: it has none, one of a kind that is not known here, or a broken one.
    """
    kind, words = _get(file, "model"), _get(file, "tokens")
    if not isinstance(words, list) or not words or not isinstance(words[0], str):
        raise _error(
            file, "tokens", "a list of words", "none" if words is None else "another value"
        )
    vocabulary = {word: number for number, word in enumerate(words)}
    if len(vocabulary) != len(words):
        twice = next(word for number, word in enumerate(words) if vocabulary[word] != number)
        raise _error(file, "tokens", "each word once", f"{twice!r} twice")
    if kind == "gpt2":
        pre = _get(file, "pre")
        if not isinstance(pre, str) or pre not in _SPLITS:
            raise _error(file, "pre", f"one of {', '.join(_SPLITS)}", repr(pre))
        make, begins = _byte_level, pre in _WHOLE_WORDS
    elif kind == "llama":
        make, begins = _sentencepiece, True
    else:
        raise _error(file, "model", "gpt2 or llama", repr(kind))
    types = _get(file, "token_type", [1] * len(words))
    if not isinstance(types, list) or len(types) != len(words):
        raise _error(file, "token_type", f"{len(words)} numbers", "another value")
    try:
        backend = make(file, vocabulary)
        for special in (True, False):
            wanted = _CONTROL if special else _USER_DEFINED
            backend.add_tokens(
                [
                    AddedToken(word, normalized=False, special=special)
                    for word, own in zip(words, types, strict=True)
                    if own == wanted and word
                ]
            )
    # The library raises bare exceptions, for a merge of unknown words and the like.
    except Exception as error:
        if isinstance(error, CheckpointError):
            raise
        raise _error(file, "merges", "a usable vocabulary", str(error)) from None
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        add_bos_token=_flag(file, "add_bos_token", begins),
        add_eos_token=_flag(file, "add_eos_token", False),
        chat_template=_template(file),
        clean_up_tokenization_spaces=False,
        **_special_words(file, words),
    )


def _get(file: GGUFFile, key: str, default: Any = None) -> Any:
    return file.metadata.get(f"tokenizer.ggml.{key}", default)


def _error(file: GGUFFile, key: str, expected: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"{file.path}: tokenizer.ggml.{key}: expected {expected}, found {found:.120}"
    )


def _flag(file: GGUFFile, key: str, default: bool) -> bool:
    value = _get(file, key, default)
    if not isinstance(value, bool):
        raise _error(file, key, "true or false", repr(value))
    return value


def _template(file: GGUFFile) -> str | None:
    template = file.metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise CheckpointError(f"{file.path}: tokenizer.chat_template: expected text")
    return template


def _special_words(file: GGUFFile, words: list[str]) -> dict[str, str | None]:
    """The named tokens as transformers calls them; one that is not named is None, not a default."""
    found: dict[str, str | None] = {}
    for name in _NAMED:
        number = _get(file, f"{name}_token_id")
        if number is not None and not (type(number) is int and 0 <= number < len(words)):
            raise _error(file, f"{name}_token_id", f"a token id below {len(words)}", repr(number))
        short = {"unknown": "unk", "padding": "pad"}.get(name, name)
        found[f"{short}_token"] = None if number is None else words[number]
    return found


def _byte_level(file: GGUFFile, vocabulary: dict[str, int]) -> Tokenizer:
    pre, merges = _get(file, "pre"), _get(file, "merges")
    if not isinstance(merges, list) or not all(
        isinstance(merge, str) and merge.count(" ") == 1 for merge in merges
    ):
        raise _error(file, "merges", "a list of pairs of words", "another value")
    model = BPE(
        vocabulary,
        [tuple(merge.split(" ")) for merge in merges],
        ignore_merges=pre in _WHOLE_WORDS,
    )
    tokenizer = Tokenizer(model)
    split = _SPLITS[pre]
    if split is None:
        steps = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
        if pre in _DIGITS:
            steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    else:
        patterns = split if isinstance(split, tuple) else (split,)
        steps = [pre_tokenizers.Split(Regex(each), behavior="isolated") for each in patterns]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    if split is _QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(file: GGUFFile, vocabulary: dict[str, int]) -> Tokenizer:
    """BPE whose merges are the splits of every word into two others, the best word first."""
    scores = _get(file, "scores")
    if not isinstance(scores, list) or len(scores) != len(vocabulary):
        raise _error(file, "scores", f"{len(vocabulary)} numbers", "another value")
    merges = [
        (-scores[number], vocabulary[word[:cut]], vocabulary[word[cut:]], word[:cut], word[cut:])
        for word, number in vocabulary.items()
        for cut in range(1, len(word))
        if word[:cut] in vocabulary and word[cut:] in vocabulary
    ]
    unknown = _get(file, "unknown_token_id")
    words = list(vocabulary)
    model = BPE(
        vocabulary,
        [merge[3:] for merge in sorted(merges)],
        unk_token=words[unknown] if type(unknown) is int and unknown < len(words) else None,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    spaces = [normalizers.Replace(" ", "▁")]
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if _flag(file, "add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend("▁"))
        back.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(back)
    return tokenizer
