"""Which token ids mean the same to both models of a pair.

Embeddings may differ in length: vocabularies are padded to round numbers, and post-training adds tokens.
Scores have no axis of ids, so such models are compared. But each model is also scored on the other's
texts (`scoring.crossed`), and two texts are the same where their ids are. So an id of a counted text
must have a row in both embeddings, and must not be another word on the other side. A special or added
token that was renamed (a template's roles in place of reserved tokens) is said and may be counted.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError
from converters.gguf_file import is_gguf
from converters.load import TOKENIZER_FILES
from experiments.errors import InputError
from experiments.responses.tokenization import has_tokenizer, load_tokenizer, tokenizer_folder
from experiments.study.opened import OpenStudy, Say, same_contents
from experiments.study.pairs import CHAT, SIDES, Side

# Parts of tokenizer.json that do not decide how a text is cut into the tokens of the vocabulary.
_NO_RULES = ("version", "truncation", "padding", "added_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedIds:
    """What both models' ids are.

    Attributes:
      sizes: V, rows of each side's embedding.
      words: each side's tokens by id, where the two tokenizers are known and differ; else empty.
      added: ids that are a special or added token on either side.
    """

    sizes: Mapping[Side, int]
    words: Mapping[Side, Mapping[int, str]] = dataclasses.field(default_factory=dict)
    added: frozenset[int] = frozenset()

    @property
    def shared(self) -> int:
        """Number of ids that both embeddings have."""
        return min(self.sizes.values())

    def renamed(self) -> list[int]:
        """Shared ids that are another token on the other side, in order."""
        if not self.words:
            return []
        base, rl = (self.words[side] for side in SIDES)
        return sorted(
            id for id in base.keys() & rl.keys() if id < self.shared and base[id] != rl[id]
        )

    def alone(self, side: Side) -> list[int]:
        """Shared ids that have a token on one side only."""
        if not self.words:
            return []
        (other,) = (self.words[one] for one in SIDES if one != side)
        return sorted(id for id in self.words[side].keys() - other.keys() if id < self.shared)

    def check(self, tokens: Iterable[int], side: Side, place: str, advice: str) -> None:
        """Ids of one side's text that both models will read.

        Args:
          tokens: the ids.
          side: whose text.
          place: names the text in errors.
          advice: what the user can do.

        Raises:
          InputError: the other model does not have one of them, or it is another word there.
        """
        (other,) = (one for one in SIDES if one != side)
        for token in dict.fromkeys(tokens):
            if token >= self.sizes[other]:
                raise InputError(
                    f"{place}: expected ids that both models have, found {self._shown(token, side)}, "
                    f"which is {side}'s alone: {other}'s embedding has {self.sizes[other]:,} ids; "
                    f"{advice}"
                )
            if token in self.added or not self.words:
                continue
            mine, theirs = (self.words[one].get(token) for one in (side, other))
            if None not in (mine, theirs) and mine != theirs:
                raise InputError(
                    f"{place}: expected ids that mean the same to both models, found {token}, which "
                    f"is {mine!r} in {side} and {theirs!r} in {other}: the tokenizers are of "
                    "different models, whose texts cannot be compared by their ids"
                )

    def _shown(self, token: int, side: Side) -> str:
        word = self.words[side].get(token) if self.words else None
        return f"{token}" if word is None else f"{token} ({word!r})"


def embeddings_of(opened: OpenStudy) -> SharedIds:
    """The lengths of both embeddings; whether ids mean the same is not looked at."""
    return SharedIds(sizes={side: opened.configs[side].vocab_size for side in SIDES})


def compare_ids(opened: OpenStudy, say: Say) -> SharedIds:
    """Compare both sides' embeddings, tokenizers and chat templates, before any work.

    Args:
      opened: the study. Tokenizers are read only where their files differ.
      say: receives one line for each difference.

    Returns:
      what is known of the ids; a tokenizer that is missing or broken is an error later, where one is
      needed.
    """
    ids, places = embeddings_of(opened), _places(opened)
    known, tokenizers = bool(places), {}
    if places and not _same_files(*places):
        try:
            tokenizers = {side: load_tokenizer(opened.checkpoints[side]) for side in SIDES}
            ids = _with_words(ids, tokenizers)
        except (InputError, CheckpointError):
            known = False
    if len(set(ids.sizes.values())) > 1:
        _say_lengths(ids, say, known=known)
    if tokenizers:
        for line in _differences(ids, tokenizers, opened.study.pair.prompt):
            say(f"warning: the two tokenizers differ: {line}")
    return ids


def _places(opened: OpenStudy) -> list[Path]:
    """Where both tokenizers lie, or nothing where one is missing."""
    places = [tokenizer_folder(opened.checkpoints[side]) for side in SIDES]
    return places if all(is_gguf(place) or has_tokenizer(place) for place in places) else []


def _say_lengths(ids: SharedIds, say: Say, *, known: bool) -> None:
    more = max(SIDES, key=lambda side: ids.sizes[side])
    (less,) = (side for side in SIDES if side != more)
    extra = ids.sizes[more] - ids.shared
    line = (
        f"warning: the embeddings differ in length: {more} has {ids.sizes[more]:,} ids, {less} "
        f"{ids.sizes[less]:,}; the {extra:,} from {ids.shared} on are {more}'s alone, and no counted "
        "text may use them"
    )
    unknown = "; without both tokenizers nothing says whether the others mean the same"
    say(line if known else line + unknown)


def _with_words(ids: SharedIds, tokenizers: Mapping[Side, Any]) -> SharedIds:
    words = {
        side: {id: word for word, id in tokenizer.get_vocab().items()}
        for side, tokenizer in tokenizers.items()
    }
    added = {id for tokenizer in tokenizers.values() for id in tokenizer.added_tokens_decoder}
    return dataclasses.replace(ids, words=words, added=frozenset(added))


def _differences(ids: SharedIds, tokenizers: Mapping[Side, Any], prompt: str) -> Iterable[str]:
    """Each difference that can be named, in words."""
    if renamed := ids.renamed():
        first = renamed[0]
        base, rl = (ids.words[side][first] for side in SIDES)
        kind = ", all special or added ones" if ids.added.issuperset(renamed) else ""
        yield (
            f"{len(renamed):,} of {ids.shared:,} shared ids are other tokens{kind}: the first is "
            f"{first}, {base!r} in base and {rl!r} in rl"
        )
    for side in SIDES:
        if alone := ids.alone(side):
            yield (
                f"{len(alone):,} ids have a token in {side} only: the first is {alone[0]}, "
                f"{ids.words[side][alone[0]]!r}"
            )
    base, rl = (tokenizers[side] for side in SIDES)
    if base.chat_template != rl.chat_template:
        unused = "" if prompt == CHAT else ", which this study's prompt does not use"
        yield f"their chat templates are not the same{unused}"
    rules = [_rules(tokenizer) for tokenizer in (base, rl)]
    if ids.words["base"] == ids.words["rl"] and None not in rules and rules[0] != rules[1]:
        yield "they have the same tokens, but cut texts into them by other rules (tokenizer.json)"


def _rules(tokenizer) -> dict[str, Any] | None:
    """How texts are cut, as tokenizer.json says it; None for a tokenizer that has no such file (one of
    a GGUF file has the same rules in other words)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not (Path(tokenizer.name_or_path) / "tokenizer.json").is_file():
        return None
    rules = json.loads(backend.to_str())
    return {name: part for name, part in rules.items() if name not in _NO_RULES}


def _same_files(one: Path, other: Path) -> bool:
    """Whether two tokenizers are the same by their files, without reading them as tokenizers."""
    if one == other:
        return True
    if is_gguf(one) or is_gguf(other):
        return False
    return all(same_contents(one / name, other / name) for name in TOKENIZER_FILES)
