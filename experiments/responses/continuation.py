"""Texts that a model read and wrote -> the token ids that it had.

A tokenizer sees more than one word at a time: one of the sentencepiece kind puts a space before a text
that it gets alone, and others join characters across a boundary. So an answer is tokenised behind its
prompt, and cut there:

    ids(prompt + answer) = ids(prompt) + ids of the answer

Where the boundary merges (`Answer: ` and `5` are `Answer:` and ` 5` together) the model cannot have
seen ids(prompt + answer), since its prompt stood before its answer did. Then the prompt's ids stay,
and the answer is tokenised apart, without a space that it does not have. In every case prompt and
answer decode to their text again, or it is an error.

Special tokens written in a prompt are special tokens, as the programs that render prompts read them.
Written in an answer they are text: programs leave the real ones out when they decode.
"""

import dataclasses

from experiments.errors import InputError
from experiments.responses.tokenization import adds_special_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a model read.

    Attributes:
      text: as text, or as its tokens decode.
      tokens: its ids.
      adds: the tokenizer adds special tokens that the text does not show.
    """

    text: str
    tokens: list[int]
    adds: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuation:
    """An answer's ids, and whether they are those of prompt and answer together."""

    tokens: list[int]
    together: bool


def prompt_of_text(tokenizer, text: str, *, rendered: bool = False) -> Prompt:
    """A prompt's ids. One that is rendered or begins with the first token does not get it again."""
    adds = not rendered and adds_special_tokens(tokenizer, "", text)
    return Prompt(text=text, tokens=_encode(tokenizer, text, adds=adds), adds=adds)


def prompt_of_ids(tokenizer, tokens: list[int], text: str | None = None) -> Prompt:
    """A prompt of ids, with its text where that is known."""
    if text is None:
        return Prompt(text=_decode(tokenizer, tokens), tokens=tokens, adds=False)
    for adds in (False, True):
        if _encode(tokenizer, text, adds=adds) == tokens:
            return Prompt(text=text, tokens=tokens, adds=adds)
    return Prompt(text=text, tokens=tokens, adds=False)


def continue_prompt(tokenizer, prompt: Prompt, text: str, place: str) -> Continuation:
    """The ids of an answer behind its prompt.

    Args:
      tokenizer: of the model.
      prompt: what it read.
      text: what it wrote; no text has no ids.
      place: names the row in errors.

    Raises:
      InputError: the tokens do not give the text back: it has signs that the tokenizer does not know.
    """
    if not text:
        return Continuation(tokens=[], together=True)
    joined = _behind(tokenizer, prompt, text)
    if joined is not None and _added(tokenizer, prompt.tokens, joined) == text:
        return Continuation(tokens=joined, together=True)
    candidates = list(_apart(tokenizer, text))
    for tokens in candidates:
        if tokens and _added(tokenizer, prompt.tokens, tokens) == text:
            return Continuation(tokens=tokens, together=False)
    back = _added(tokenizer, prompt.tokens, candidates[0] if joined is None else joined)
    at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), len(back))
    raise InputError(
        f"{place}: the answer's tokens do not give its text back: character {at + 1}: expected "
        f"{text[at : at + 20]!r}, found {back[at : at + 20]!r}; the tokenizer is another model's, or "
        "the text was changed"
    )


def _behind(tokenizer, prompt: Prompt, text: str) -> list[int] | None:
    """What prompt and answer together have behind the prompt, or None where the boundary merges."""
    names = _special_texts(tokenizer)
    if not any(name in text for name in names):
        return _rest(_encode(tokenizer, prompt.text + text, adds=prompt.adds), prompt.tokens)
    # The answer's are text and the prompt's are not. Tokenizers cut texts at special tokens, so what
    # stands behind the prompt's last one decides.
    tail = prompt.text
    for name in names:
        tail = tail[tail.rfind(name) + len(name) :] if name in tail else tail
    if not tail:
        return None
    adds = prompt.adds and tail == prompt.text
    whole = _encode(tokenizer, tail + text, adds=adds, plain=True)
    return _rest(whole, _encode(tokenizer, tail, adds=adds))


def _apart(tokenizer, text: str):
    yield _encode(tokenizer, text, adds=False, plain=True)
    # Behind a line end no space is put before it.
    line_end = _encode(tokenizer, "\n", adds=False)
    tokens = _encode(tokenizer, "\n" + text, adds=False, plain=True)
    yield _rest(tokens, line_end) or []


def _rest(whole: list[int], begin: list[int]) -> list[int] | None:
    return whole[len(begin) :] if whole[: len(begin)] == begin else None


def _encode(tokenizer, text: str, *, adds: bool, plain: bool = False) -> list[int]:
    return tokenizer(text, add_special_tokens=adds, split_special_tokens=plain)["input_ids"]


def _decode(tokenizer, tokens: list[int]) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _added(tokenizer, before: list[int], tokens: list[int]) -> str:
    """The text that tokens add to those before them."""
    begin, whole = _decode(tokenizer, before), _decode(tokenizer, [*before, *tokens])
    return whole.removeprefix(begin)


def _special_texts(tokenizer) -> list[str]:
    return [str(token) for token in tokenizer.all_special_tokens] + [
        token.content for token in tokenizer.added_tokens_decoder.values() if token.special
    ]
