"""What of a study does not fit on its devices, and what would: flags and larger cards."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from experiments.study.cards import CARDS
from experiments.study.forecast import Forecast, Shape, forecast
from experiments.study.pairs import SIDES, Side
from experiments.study.plan import shortage, streamed_bytes
from experiments.study.settings import Study


def lacking(
    study: Study, shapes: Mapping[Side, Shape], usable: int, another: str = "--device={}"
) -> list[str]:
    """What does not fit on devices of so many bytes, and what would, side by side.

    A second side of the same shape lacks the same, and is not named. `another` names a larger card.
    """
    return [
        f"{side}: {text}"
        for side, shape in shapes.items()
        if side == SIDES[0] or shape != shapes[SIDES[0]]
        for text in shortages(study, shape, forecast(study, shape, usable), usable, another)
    ]


def shortages(
    study: Study, shape: Shape, found: Forecast, usable: int, another: str = "--device={}"
) -> Iterator[str]:
    """What of one side does not fit, and what would."""

    def short(what: str, needed: int, fits: Callable[[Forecast], bool]) -> str:
        ways = [*_ways(study, shape, usable, fits)]
        ways += [another.format(card) for card in _cards(study, shape, usable, fits)]
        return (
            f"{shortage(what, needed, usable)}; {' or '.join(ways) or 'a larger device'} would fit"
        )

    answers = found.answers
    if answers is not None and not answers.fits:
        yield short("answers", answers.most, _answers_fit)
    kinds = (("", found.usual), (" of the longest texts", found.longest))
    for kind, texts in kinds:
        if not texts.scores.fits:
            yield short(f"scores{kind}", texts.scores.needs.total, _scores_fit)
            break
    for kind, texts in kinds:
        if not texts.fidelity_fits:
            runs = (texts.cuts, texts.circuits)
            most = max(found.needs.total for found in runs if found is not None)
            yield short(f"exact cuts and circuits{kind}", most, _fidelity_fits)
            break


def _ways(study: Study, shape: Shape, usable: int, fits: Callable[[Forecast], bool]):
    """Flags that would do, each alone."""
    pair = study.pair
    changes = {
        "--numerics=bfloat16": {"numerics": "bfloat16"},
        "--mesh=model:2": {"mesh": "model:2"},
        "--mesh=model:4": {"mesh": "model:4"},
        "--memory=stream": {"stream_bytes": streamed_bytes(usable), "mesh": ""},
        "--fidelity=off": {"fidelity": "off"},
    }
    changes |= {
        f"--max_new_tokens={tokens}": {"pair": dataclasses.replace(pair, max_new_tokens=tokens)}
        for tokens in (pair.max_new_tokens // 2, pair.max_new_tokens // 4)
    }
    for flag, change in changes.items():
        if study.stream_bytes is not None and "mesh" in change:
            continue  # streaming runs on one device
        if fits(forecast(dataclasses.replace(study, **change), shape, usable)):
            yield flag


def _cards(study: Study, shape: Shape, usable: int, fits: Callable[[Forecast], bool]) -> list[str]:
    """The first larger card that would do."""
    return [
        card.key
        for card in CARDS.values()
        if card.usable_bytes > usable and fits(forecast(study, shape, card.usable_bytes))
    ][:1]


def _answers_fit(found: Forecast) -> bool:
    return found.answers is None or found.answers.fits


def _scores_fit(found: Forecast) -> bool:
    return found.usual.scores.fits and found.longest.scores.fits


def _fidelity_fits(found: Forecast) -> bool:
    return found.usual.fidelity_fits and found.longest.fidelity_fits
