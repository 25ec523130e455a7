"""What a study will need, printed before anything is loaded or asked: `experiments.run --plan`.

A model's shape comes from its config.json; that of a registered pair whose checkpoints are not here
from the registry. Prompts and texts are not known yet: prompts are taken as long as `PROMPT`, texts
as a usual one and as the longest that the rule could count.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from converters.errors import CheckpointError
from converters.gguf_file import is_gguf
from converters.hf_config import read_config, stated_dtype
from converters.json_file import read_json
from converters.load import checkpoint_dtype
from eap_jax.config import ModelConfig
from eap_jax.decoding import ladder
from eap_jax.sharding import abstract_mesh, make_mesh
from experiments.errors import InputError
from experiments.study.cards import CARDS, Card, usable_bytes
from experiments.study.footprint import Needs, Placed
from experiments.study.hub import config_folder
from experiments.study.numerics import weight_dtype
from experiments.study.pairs import REGISTERED_DTYPE, SIDES, Side, registered_shape
from experiments.study.plan import (
    Answers,
    Scores,
    plan_answers,
    plan_scores,
    plan_streamed,
    shortage,
    streamed_bytes,
)
from experiments.study.settings import Study

# Tokens of a long prompt, and of a usual text with its counted part.
PROMPT, TEXT, COUNTED = 256, 512, 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """Where a study would run.

    Attributes:
      name: of one device.
      number: of devices.
      usable: bytes that arrays may take on each.
    """

    name: str
    number: int
    usable: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A model that is not loaded.

    Attributes:
      config: its shape.
      dtype: its checkpoint's own.
      origin: where that was read.
    """

    config: ModelConfig
    dtype: str
    origin: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """One side's programs.

    Attributes:
      answers: None where they are read from a file.
      usual, longest: scoring of texts of both kinds.
    """

    answers: Answers | None
    usual: Scores
    longest: Scores


def print_forecast(study: Study, card: Card | None) -> bool:
    """Print what a study will need on each device; returns whether it fits.

    Args:
      study: the settings.
      card: a GPU that need not be here, or None: the devices at hand.

    Raises:
      InputError, CheckpointError: too few devices, or a model without a readable shape.
    """
    devices = devices_of(study.mesh, card)
    shapes = {side: shape_of(study, side) for side in SIDES}
    print(f"pair: {study.pair.key} ({study.pair.method}): {study.pair.base} -> {study.pair.rl}")
    mesh = f", mesh {study.mesh}" if study.mesh else ""
    print(
        f"device: {devices.number} x {devices.name}{mesh}; arrays may take "
        f"{devices.usable / 1e9:.1f} GB of each"
    )
    for side, shape in shapes.items():
        if side == "rl" and shape == shapes["base"]:
            print("rl: the same as base")
            break
        found = forecast(study, shape, devices.usable)
        for line in lines_of(study, side, shape, found):
            print(line)
        print(f"  {programs_text(found)}")
    missing = lacking(study, shapes, devices.usable)
    print(f"plan: does not fit: {'; '.join(missing)}" if missing else "plan: fits")
    return not missing


def devices_of(mesh: str, card: Card | None) -> Devices:
    """The devices of a mesh: cards that need not be here, or the ones at hand."""
    if card is not None:
        return Devices(name=card.name, number=abstract_mesh(mesh).size, usable=card.usable_bytes)
    try:
        found = make_mesh(mesh).devices
    except ValueError as error:  # fewer devices than it asks for
        raise InputError(f"{error}; --device=NAME plans for cards that are not here") from None
    first = found.flat[0]
    return Devices(name=first.device_kind, number=found.size, usable=usable_bytes(first))


def shape_of(study: Study, side: Side) -> Shape:
    """A side's shape and stored precision, without its weights."""
    name = study.pair.base if side == "base" else study.pair.rl
    known = registered_shape(study.pair)
    if known is not None and not Path(name).is_dir():
        return Shape(config=known, dtype=REGISTERED_DTYPE, origin="as registered")
    folder = config_folder(name, label=f"{side} checkpoint", base=study.adapter_base)
    config = read_config(folder)
    if is_gguf(folder):
        return Shape(config=config, dtype=checkpoint_dtype(folder), origin=str(folder))
    try:
        dtype = checkpoint_dtype(folder)
    except CheckpointError:  # the weights are not here; a silent config.json means float32
        path = folder / "config.json"
        dtype = stated_dtype(read_json(path), str(path)) or "float32"
    return Shape(config=config, dtype=dtype, origin=str(folder / "config.json"))


def forecast(study: Study, shape: Shape, usable: int) -> Forecast:
    """One side's programs in the sizes that fit, or in the smallest."""
    mesh = abstract_mesh(study.mesh)
    own = Placed(config=shape.config, dtype=shape.dtype, mesh=mesh)
    scored = Placed(config=shape.config, dtype=weight_dtype(study.numerics), mesh=mesh)
    answers = None
    new_tokens = study.pair.max_new_tokens
    if study.responses is None and study.imported is None:
        answers = plan_answers(
            own, usable, width=PROMPT, new_tokens=new_tokens, most_rows=study.batch_answers
        )
    alphas = {rule.alpha for rule in study.rules}
    branch = study.estimator == "branch"

    def scores(length: int, targets: int) -> Scores:
        common = {"length": length, "targets": targets, "losses": len(alphas)}
        if study.stream_bytes is None:
            return plan_scores(
                scored, usable, most_tokens=study.batch_tokens, branch=branch, **common
            )
        return plan_streamed(
            scored, usable, most_tokens=study.batch_tokens, kept_bytes=study.stream_bytes,
            branch=branch, **common,
        )  # fmt: skip

    counted = max(COUNTED, int(max(alphas) * new_tokens))
    return Forecast(
        answers=answers, usual=scores(TEXT, COUNTED), longest=scores(PROMPT + counted, counted)
    )


def lines_of(study: Study, side: Side, shape: Shape, found: Forecast) -> Iterator[str]:
    """One side as text: its shape, both precisions, and a row of GB a device for each program."""
    config = shape.config
    yield (
        f"{side}: {config.num_layers} layers, {config.num_parameters / 1e9:.3g} B parameters "
        f"({shape.origin}); answers in {shape.dtype}, scores in {weight_dtype(study.numerics)}"
        f"{' (numerics published)' if study.numerics == 'published' else ''}"
    )
    rows = []
    if found.answers is not None:
        answers = found.answers
        rows.append(("read prompts", answers.entering, answers.width, answers.prefill))
        rows.append(("write answers", answers.rows, answers.slots, answers.decode))
        rows.append(("move the cache", answers.rows, answers.slots, answers.move))
    for name, scores in (("score texts", found.usual), ("score the longest", found.longest)):
        kind = ", computing twice" if scores.batch.remat else ""
        kind = kind if study.stream_bytes is None else ", streaming"
        rows.append((name + kind, scores.batch.rows, scores.batch.length, scores.needs))
    fields = [field.name for field in dataclasses.fields(Needs)]
    yield f"  {'GB a device':<36}{'rows':>6}{'tokens':>8}" + "".join(
        f"{name:>12}" for name in [*fields, "all"]
    )
    for name, count, length, needs in rows:
        parts = [*dataclasses.astuple(needs), needs.total]
        yield f"  {name:<36}{count:>6}{length:>8}" + "".join(f"{p / 1e9:>12.2f}" for p in parts)


def programs_text(found: Forecast) -> str:
    """How many programs are compiled. Both sides share those of their answers."""
    texts = []
    if found.answers is not None:
        width, slots = found.answers.width, found.answers.slots
        widths, sizes = rungs(1, width), rungs(width + 1, slots)
        texts.append(
            f"{len(widths) + len(sizes)} for answers at most (widths of prompts {len(widths)}, sizes "
            f"of the cache {len(sizes)}; again for the last few rows)"
        )
    texts.append("3 or 4 a side for scores, one a shape of batches")
    return f"programs to compile: {'; '.join(texts)}"


def rungs(first: int, last: int) -> list[int]:
    """Sizes of prompts or caches that hold from `first` to `last` slots; see `decoding.ladder`."""
    found = [min(ladder(first), last)]
    while found[-1] < last:
        found.append(min(ladder(found[-1] + 1), last))
    return found


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
    kinds = (("scores", found.usual), ("scores of the longest texts", found.longest))
    for what, scores in kinds:
        if not scores.fits:
            yield short(what, scores.needs.total, _scores_fit)
            break


def _ways(study: Study, shape: Shape, usable: int, fits: Callable[[Forecast], bool]):
    """Flags that would do, each alone."""
    pair = study.pair
    changes = {
        "--numerics=bfloat16": {"numerics": "bfloat16"},
        "--mesh=model:2": {"mesh": "model:2"},
        "--mesh=model:4": {"mesh": "model:4"},
        "--memory=stream": {"stream_bytes": streamed_bytes(usable), "mesh": ""},
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
    return found.usual.fits and found.longest.fits
