"""The study of one pair: its settings, what is checked before any work, and its models.

    questions -> responses -> rows both got right -> selection -> scores -> metrics -> report

rows.py, cells.py and cell_metrics.py are the stages; grid.py runs them for one pair or many. Every stage
reads and writes the files of store.py and is skipped where its file exists, so a killed run
continues where it stopped, and any stage can be replaced by another program's file.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax

from converters.adapter_config import is_adapter, is_beside_base
from converters.gguf_file import is_gguf
from converters.hf_config import read_config
from converters.load import (
    TOKENIZER_FILES,
    Checkpoint,
    checkpoint_dtype,
    checkpoint_hash,
    checkpoint_notes,
    load_checkpoint,
)
from converters.sameness import same_model
from eap_jax.config import ModelConfig
from eap_jax.graph import num_edges
from eap_jax.sharding import make_mesh, parameter_shardings
from experiments.devices import idle_accelerator
from experiments.errors import InputError
from experiments.out_of_memory import end_of, is_out_of_memory
from experiments.study.cards import usable_on
from experiments.study.distributed import check_same
from experiments.study.footprint import Placed
from experiments.study.forecast import Shape
from experiments.study.hub import local_checkpoint
from experiments.study.numerics import use_numerics, weight_dtype
from experiments.study.pairs import SIDES, Side
from experiments.study.settings import Study
from experiments.study.shortages import lacking

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenStudy:
    """A study whose models were found and fit each other.

    Attributes:
      study: the settings.
      checkpoints: local directory or GGUF file of each side.
      configs: shape of each side.
      hashes: SHA-256 of each side's checkpoint.
      answer_dtypes: in which each side's answers are generated: `Study.answer_dtype`, or the
        checkpoint's own.
      mesh: devices.
    """

    study: Study
    checkpoints: dict[Side, Path]
    configs: dict[Side, ModelConfig]
    hashes: dict[Side, str]
    answer_dtypes: dict[Side, str]
    mesh: jax.sharding.Mesh
    _loaded: dict[tuple[Side, bool], Checkpoint] = dataclasses.field(
        default_factory=dict, repr=False
    )
    _warned: set[str] = dataclasses.field(default_factory=set, repr=False)

    def first_warning(self, stage: str) -> bool:
        """Whether this is the first call for a stage of the run: its shortage is said once, not for
        every dataset, side and kind of score."""
        first = stage not in self._warned
        self._warned.add(stage)
        return first

    @property
    def device(self) -> str:
        """Number and kind of the devices."""
        first = self.mesh.devices.flat[0]
        simulated = first.platform == "cpu" and len(self.mesh.local_devices) > 1
        kind = f"{first.device_kind}{', simulated' if simulated else ''}"
        return f"{self.mesh.devices.size} x {kind}"

    @property
    def usable_bytes(self) -> int:
        """Bytes of one device that arrays may take."""
        return usable_on(self.mesh)

    def placed(self, side: Side, dtype: str) -> Placed:
        """A side's model as plans see it."""
        return Placed(config=self.configs[side], dtype=dtype, mesh=self.mesh)

    def load(self, side: Side) -> Checkpoint:
        """A side's model on the mesh in the scores' precision, its layers stacked.

        Raises:
          OutOfMemoryError: the memory does not hold its weights.
        """
        return self._load(side, answering=False)

    def load_to_answer(self, side: Side) -> Checkpoint:
        """A side's model on the mesh in its answers' dtype, its layers separate; raises as `load`."""
        return self._load(side, answering=True)

    def _load(self, side: Side, *, answering: bool) -> Checkpoint:
        if (side, answering) not in self._loaded:
            self._loaded.clear()  # one model is in memory at a time, in one form
            config, dtype = self.configs[side], weight_dtype(self.study.numerics)
            try:
                self._loaded[side, answering] = load_checkpoint(
                    self.checkpoints[side],
                    dtype=self.study.answer_dtype if answering else dtype,
                    shardings=parameter_shardings(config, self.mesh, separate=answering),
                    separate=answering,
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                dtype = self.answer_dtypes[side] if answering else dtype
                weights = f"{config.num_parameters / 1e9:.3g} billion weights in {dtype}"
                raise end_of(error, f"{self.checkpoints[side]}: {weights}") from None
        return self._loaded[side, answering]


def open_study(study: Study, say: Say) -> OpenStudy:
    """Find and check the models.

    Args:
      study: the settings.
      say: receives one line for each fact that a user should see.

    Raises:
      InputError, CheckpointError: a model is missing, is not supported, does not fit the other, or is
        the other.
    """
    use_numerics(study.numerics)
    names = {"base": study.pair.base, "rl": study.pair.rl}
    checkpoints = {
        side: local_checkpoint(
            names[side],
            label=f"{side} checkpoint",
            advice=f"pass a local checkpoint with --{side}_checkpoint=DIR",
            base=study.adapter_base if _lies_alone(names[side]) else None,
        )
        for side in SIDES
    }
    configs = {side: read_config(checkpoints[side]) for side in SIDES}
    base, rl = (configs[side].num_layers for side in SIDES)
    if base != rl:
        raise InputError(
            f"{study.pair.rl}: num_layers: expected {base} as in {study.pair.base}, found {rl}; the two "
            "models have different graphs and cannot be compared"
        )
    try:
        mesh = make_mesh(study.mesh)
    except ValueError as error:  # fewer devices than it asks for
        raise InputError(str(error)) from None
    # Whole or not is seen in a moment; the hashes read every byte.
    notes = {side: checkpoint_notes(checkpoints[side]) for side in SIDES}
    opened = OpenStudy(
        study=study,
        checkpoints=checkpoints,
        configs=configs,
        hashes={side: checkpoint_hash(checkpoints[side]) for side in SIDES},
        answer_dtypes={
            side: study.answer_dtype or checkpoint_dtype(checkpoints[side]) for side in SIDES
        },
        mesh=mesh,
    )
    check_same("checkpoints", json.dumps(opened.hashes))
    _check_different(opened)
    layers = configs["base"].num_layers
    if note := idle_accelerator():
        say(note)
    say(f"pair: {study.pair.key} ({study.pair.method}): {study.pair.base} -> {study.pair.rl}")
    say(
        f"device: {opened.device}; dtype: {weight_dtype(study.numerics)}; "
        f"numerics: {study.numerics}; graph: {layers} layers, {num_edges(layers):,} edges"
    )
    for side in SIDES:
        for note in notes[side]:
            say(f"{side}: {names[side]}: {note}")
    if study.responses is None and study.imported is None:
        own = ", ".join(f"{side} {opened.answer_dtypes[side]}" for side in SIDES)
        answers = (
            f"in {study.answer_dtype}" if study.answer_dtype else f"as the checkpoints ({own})"
        )
        say(f"precision: answers {answers}, scores {weight_dtype(study.numerics)}")
    shapes = {
        side: Shape(config=configs[side], dtype=opened.answer_dtypes[side], origin="")
        for side in SIDES
    }
    if missing := lacking(study, shapes, opened.usable_bytes, another="a card such as {}"):
        say(f"warning: the plan does not fit, the run goes on: {'; '.join(missing)}")
    return opened


def _lies_alone(name: str) -> bool:
    """Whether a name is the folder of an adapter without its base."""
    return is_adapter(name) and not is_beside_base(name)


def _check_different(opened: OpenStudy) -> None:
    """A model compared with itself would give a report of nothing, or of another prompt's effects.

    Raises:
      InputError: both sides are one model.
    """
    base, rl = (opened.checkpoints[side] for side in SIDES)
    if opened.hashes["base"] != opened.hashes["rl"] and not same_model(base, rl):
        return
    pair = opened.study.pair
    which = pair.rl if pair.base == pair.rl else f"{pair.base} and {pair.rl}"
    found = f"rl checkpoint: expected another model than base, found the same weights ({which}): "
    found += "the two models are identical, and nothing is measured"
    differing = [name for name in TOKENIZER_FILES if not same_contents(base / name, rl / name)]
    if differing and not (is_gguf(base) or is_gguf(rl)):  # whose tokenizer lies inside
        found += f"; only tokenizer files differ ({', '.join(differing)})"
    raise InputError(f"{found}; give the checkpoints before and after post-training")


def same_contents(one: Path, other: Path) -> bool:
    """Whether two files hold the same, JSON by its meaning, or neither is there."""
    given = [path.read_bytes() if path.is_file() else None for path in (one, other)]
    if None not in given and one.suffix == ".json":
        with contextlib.suppress(ValueError):  # what is no JSON is compared as it is
            given = [json.loads(data) for data in given]
    return given[0] == given[1]
