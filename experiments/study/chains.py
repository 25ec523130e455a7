"""A chain of checkpoints, each trained from the one before, as the pairs that are compared.

Registered chains are those of `public_chains`; any other is a list of checkpoints.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.errors import InputError
from experiments.study.pairs import CHAT, Pair, check_plain_name, find_pair, pair_of
from experiments.study.public_chains import PUBLIC_CHAINS, comparisons

# A chain's folder is named after all its checkpoints, unless that is too long for a folder.
_LONGEST_NAME = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """Checkpoints in the order of training.

    Attributes:
      name: of the chain, a plain name.
      labels: a short name of each checkpoint, all different.
      checkpoints: local directories, .gguf files or Hub ids.
      pairs: what is compared, by the places of both, in the order in which it is done.
    """

    name: str
    labels: tuple[str, ...]
    checkpoints: tuple[str, ...]
    pairs: Mapping[tuple[int, int], Pair]


def find_chain(
    given: Sequence[str], *, prompt: str | None = None, max_new_tokens: int | None = None
) -> Chain:
    """A registered chain by its name, or one of the user's own checkpoints.

    Args:
      given: one name of `PUBLIC_CHAINS`, or at least two checkpoints.
      prompt, max_new_tokens: see `Pair`; None: those of the registered chain, or of checkpoints of
        the user's own.

    Raises:
      InputError: neither, a checkpoint stands twice, or the prompt has no place for a question.
    """
    if prompt is not None and prompt != CHAT and "{question}" not in prompt:
        raise InputError(f"prompt: expected {CHAT} or a text with {{question}}, found {prompt!r}")
    known = PUBLIC_CHAINS.get(given[0]) if len(given) == 1 else None
    if known is None:
        chain = _own(given)
    else:
        labels, checkpoints = tuple(known.stages), tuple(known.stages.values())
        chain = Chain(
            name=known.key,
            labels=labels,
            checkpoints=checkpoints,
            pairs={
                places: find_pair(known.pair_key(*places)) for places in comparisons(len(labels))
            },
        )
    changes = {"prompt": prompt, "max_new_tokens": max_new_tokens}
    changes = {field: value for field, value in changes.items() if value is not None}
    pairs = {places: dataclasses.replace(pair, **changes) for places, pair in chain.pairs.items()}
    return dataclasses.replace(chain, pairs=pairs)


def _own(given: Sequence[str]) -> Chain:
    if len(given) < 2 or not all(name.strip() for name in given):
        found = f"found {','.join(given)!r}" if given else "found none"
        raise InputError(
            f"chain: expected one of {', '.join(PUBLIC_CHAINS)}, or at least two checkpoints in the "
            f"order of training, separated by commas, {found}"
        )
    places: dict[Path | str, str] = {}
    for name in given:
        place = Path(name).resolve() if Path(name).exists() else name
        if place in places:
            raise InputError(
                f"chain: expected each checkpoint once, found {places[place]} twice"
                + (f", the second time as {name}" if name != places[place] else "")
            )
        places[place] = name
    labels = [_label(name) for name in given]
    # A label that two checkpoints share is no name; nor may two pairs share `<label>_to_<label>`.
    if len(set(labels)) < len(labels) or any("to" in label.split("_") for label in labels):
        labels = [f"{number}_{label}" for number, label in enumerate(labels, start=1)]
    name = "_".join(labels)
    if len(name) > _LONGEST_NAME:
        name = f"{labels[0]}_to_{labels[-1]}_of_{len(labels)}"
    check_plain_name("chain", name)
    return Chain(
        name=name,
        labels=tuple(labels),
        checkpoints=tuple(given),
        pairs={
            (before, after): pair_of(
                given[before], given[after], f"{labels[before]}_to_{labels[after]}"
            )
            for before, after in comparisons(len(given))
        },
    )


def _label(name: str) -> str:
    """The last part of a checkpoint's name."""
    path = Path(name).resolve() if Path(name).is_dir() else Path(name)
    return path.name.removesuffix(".gguf")
