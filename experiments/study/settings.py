"""The settings of a study: two models, the questions, the rules, and how it is computed.

The programs' flags take their defaults from here and from `rule.Rule`.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from eap_jax.attribution import Estimator
from experiments.study.numerics import Numerics
from experiments.study.pairs import Pair, Side
from experiments.study.rule import Rule

Fidelity = Literal["auto", "all", "off"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionSource:
    """Where questions come from; see `questions.load_questions`.

    Attributes:
      data_dir: folder of local question files, or None.
      file: one file or folder that replaces the dataset's, or None.
      question_field, answer_field: names of its fields, or None for the dataset's.
      limit: most questions asked of each dataset, or None for all.
    """

    data_dir: Path | None = None
    file: Path | None = None
    question_field: str | None = None
    answer_field: str | None = None
    limit: int | None = None

    @property
    def where(self) -> dict[str, Path | str | None]:
        """The arguments of `questions.load_questions`."""
        return {
            "data_dir": self.data_dir,
            "file": self.file,
            "question_field": self.question_field,
            "answer_field": self.answer_field,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Settings of a study of one pair.

    Attributes:
      pair: the models; `base` and `rl` are local directories or Hub ids.
      workdir: results go to workdir/pair.key.
      datasets: names of question sets.
      rules: one selection rule a cell of each dataset.
      questions: where questions come from.
      responses: published-format file that replaces questions and generation, or None.
      imported: each side's answers by another program, instead of generation, or None.
      adapter_base: name of the base of those of the two that are adapters; None: as they record it.
      answer_dtype: in which both sides' answers are generated; None: each checkpoint's own.
      numerics, mesh, batch_tokens: see `study.numerics`, `eap_jax.sharding` and
        `eap_jax.batching`; no more tokens than this in a batch, fewer where the plan says so.
      batch_answers: most answers decoded together.
      stream_bytes: read the weights layer by layer while scoring, and keep so many bytes between
        the layers; None: the whole model is in memory.
      estimator: what scores are, see `eap_jax.attribution` and `eap_jax.branch`.
      fidelity: how much is ablated exactly: auto, what costs at most some attributions; all; off.
      command: what the user typed, for the manifest.
    """

    pair: Pair
    workdir: Path
    datasets: tuple[str, ...]
    rules: tuple[Rule, ...]
    questions: QuestionSource = QuestionSource()
    responses: Path | None = None
    imported: dict[Side, Path] | None = None
    adapter_base: str | None = None
    answer_dtype: str | None = None
    numerics: Numerics = "float32"
    mesh: str = ""
    batch_tokens: int = 4096
    batch_answers: int = 128
    stream_bytes: int | None = None
    estimator: Estimator = "eap"
    fidelity: Fidelity = "auto"
    command: str = ""

    @property
    def directory(self) -> Path:
        """Where the pair's results are."""
        return self.workdir / self.pair.key
