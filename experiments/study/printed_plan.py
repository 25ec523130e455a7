"""`experiments.run --plan`: a study's forecast as text, a row of GB a device for each program."""

import dataclasses
from collections.abc import Iterator

from eap_jax.decoding import ladder
from eap_jax.sharding import abstract_mesh, make_mesh
from experiments.errors import InputError
from experiments.study.cards import Card, usable_bytes
from experiments.study.footprint import Needs
from experiments.study.forecast import Forecast, Shape, Texts, forecast, shape_of
from experiments.study.numerics import weight_dtype
from experiments.study.pairs import SIDES, Side
from experiments.study.settings import Study
from experiments.study.shortages import lacking

# A program's name, its rows, its tokens and what it needs.
Row = tuple[str, int, int, Needs]


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
    for kind, texts in (("texts", found.usual), ("the longest", found.longest)):
        rows.extend(rows_of(study, kind, texts))
    fields = [field.name for field in dataclasses.fields(Needs)]
    yield f"  {'GB a device':<40}{'rows':>6}{'tokens':>8}" + "".join(
        f"{name:>12}" for name in [*fields, "all"]
    )
    for name, count, length, needs in rows:
        parts = [*dataclasses.astuple(needs), needs.total]
        yield f"  {name:<40}{count:>6}{length:>8}" + "".join(f"{p / 1e9:>12.2f}" for p in parts)


def rows_of(study: Study, kind: str, texts: Texts) -> Iterator[Row]:
    """The programs that texts of one kind go through, `texts` or `the longest`."""
    batch = texts.scores.batch
    how = ", computing twice" if batch.remat else ""
    how = how if study.stream_bytes is None else ", streaming"
    yield f"score {kind}{how}", batch.rows, batch.length, texts.scores.needs
    how = ", streaming" if study.stream_bytes is not None else ""
    if texts.cuts is not None:
        batch, together = texts.cuts.batch, ""
        if batch.edges > 1:
            together = f", {batch.edges} together"
        yield f"cut edges of {kind}{together}{how}", batch.rows, batch.length, texts.cuts.needs
    if texts.circuits is not None:
        batch = texts.circuits.batch
        yield f"circuits of {kind}{how}", batch.rows, batch.length, texts.circuits.needs


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
