"""What a study will need, before anything is loaded or asked: its models' shapes, and their programs in
the sizes that fit.

A model's shape comes from its config.json; that of a registered pair whose checkpoints are not here
from the registry. Prompts and texts are not known yet: prompts are taken as long as `PROMPT`, texts
as a usual one and as the longest that the rule could count.
"""

import dataclasses
from pathlib import Path

from converters.errors import CheckpointError
from converters.gguf_file import is_gguf
from converters.hf_config import read_config, stated_dtype
from converters.json_file import read_json
from converters.load import checkpoint_dtype
from eap_jax.config import ModelConfig
from eap_jax.sharding import abstract_mesh
from experiments.study.fidelity_plan import Runs, plan_circuits, plan_cuts
from experiments.study.footprint import Placed
from experiments.study.hub import config_folder
from experiments.study.numerics import weight_dtype
from experiments.study.pairs import REGISTERED_DTYPE, Side, registered_shape
from experiments.study.plan import Answers, Scores, plan_answers, plan_scores, plan_streamed
from experiments.study.settings import Study

# Tokens of a long prompt, and of a usual text with its counted part.
PROMPT, TEXT, COUNTED = 256, 512, 256


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
class Texts:
    """The programs that texts of one length go through.

    Attributes:
      scores: attribution.
      cuts, circuits: of what a score is worth; None where that is not asked for.
    """

    scores: Scores
    cuts: Runs | None
    circuits: Runs | None

    @property
    def fidelity_fits(self) -> bool:
        """Whether cuts and circuits fit."""
        return all(runs is None or runs.fits for runs in (self.cuts, self.circuits))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """One side's programs.

    Attributes:
      answers: None where they are read from a file.
      usual, longest: texts of both kinds.
    """

    answers: Answers | None
    usual: Texts
    longest: Texts


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

    def texts(length: int, targets: int) -> Texts:
        common = {"length": length, "targets": targets, "most_tokens": study.batch_tokens}
        kept, method = study.stream_bytes, {"losses": len(alphas), "branch": branch}
        if kept is None:
            scores = plan_scores(scored, usable, **method, **common)
        else:
            scores = plan_streamed(scored, usable, kept_bytes=kept, **method, **common)
        if study.fidelity == "off":
            return Texts(scores=scores, cuts=None, circuits=None)
        return Texts(
            scores=scores,
            cuts=plan_cuts(scored, usable, kept_bytes=kept, **common),
            circuits=plan_circuits(scored, usable, kept_bytes=kept, **common),
        )

    counted = max(COUNTED, int(max(alphas) * new_tokens))
    return Forecast(
        answers=answers, usual=texts(TEXT, COUNTED), longest=texts(PROMPT + counted, counted)
    )
