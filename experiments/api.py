"""The library's front door: models as objects, results as labelled arrays.

    from experiments.api import compare, load
    base, rl = load("tiny_grpo:base"), load("tiny_grpo:rl")
    texts = [("Question: Hugo has 7 coins. ...\\nAnswer:", " 7 + 4 = 11.")]
    scores = rl.attribute(texts)                                  # xarray: sample, writer, reader
    scores.score.sel(writer="m0", reader="logits")                # one edge by name
    rl.ablate(texts, ["m0 -> logits"])                            # what cutting it really does
    rl.circuit(texts, ["input -> logits", "m3 -> logits"])        # the loss with these edges only
    compare(base.attribute(texts), scores)                        # metrics, intervals, tests

A text is a (prompt, answer) pair; each part is text or a list of token ids. An answer of text gets the
ids that it has behind its prompt. Loss is on the answer's tokens, all of them. Selecting, frames, plots
and files are xarray's: `.to_dataframe()`, `.plot()`, `.to_netcdf()`.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import xarray as xr
from tqdm import tqdm

from converters.load import Checkpoint
from eap_jax.ablation import cut_losses
from eap_jax.attribution import Estimator
from eap_jax.batching import PaddedBatch, Text, in_order, pad_into_batches
from eap_jax.circuit import circuit_losses, mean_writes
from eap_jax.config import ModelConfig
from eap_jax.generation import Sampling
from eap_jax.generation import generate as generate_tokens
from eap_jax.graph import edge_mask, num_edges, parse_edge
from eap_jax.parameters import separate_layers
from eap_jax.sharding import gathered, make_mesh
from experiments.errors import InputError
from experiments.labels import compare, label_losses, label_matrices
from experiments.responses.tokenization import load_tokenizer, stop_tokens
from experiments.scoring.given_texts import Tokens, given_prompts, given_texts
from experiments.scoring.score import score_texts
from experiments.study.cards import usable_on
from experiments.study.footprint import Placed, weight_bytes
from experiments.study.named_model import load_named
from experiments.study.plan import plan_answers
from experiments.study.settings import Study

__all__ = ["Model", "compare", "load"]

Edge = str | tuple[str, str]
# Seconds before a bar appears: what is quicker needs none.
_PATIENCE = 5.0


def load(name: str | Path, dtype: str = "float32", adapter: str | Path | None = None) -> "Model":
    """A model by its name.

    Args:
      name: a directory or .gguf file, a Hub id `owner/name`, `owner/name@revision` or
        `owner/name/file.gguf`, or a side of a registered pair such as `tiny_grpo:rl`.
      dtype: of weights and activations, `float32` or `bfloat16`; scores are float32 in both.
      adapter: a LoRA folder or Hub id to merge into it; as the name, it finds its base itself.

    Warns:
      CheckpointWarning: what the programs print as a line: keys of config.json that are ignored, an
        adapter that is merged in, tensors that are renamed or left out.

    Raises:
      InputError, CheckpointError: there is no such model, or it is broken or not supported.
      ValueError: the dtype is another.
    """
    directory, checkpoint = load_named(name, dtype, adapter)
    return Model(name=str(name), directory=directory, dtype=dtype, checkpoint=checkpoint)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A language model that can be attributed, cut and asked.

    Attributes:
      name: what it was loaded by.
      directory: where its checkpoint lies.
      dtype: of weights and activations.
      checkpoint: its configuration and parameters.
    """

    name: str
    directory: Path
    dtype: str
    checkpoint: Checkpoint = dataclasses.field(repr=False)

    def __repr__(self) -> str:
        layers = self.config.num_layers
        return f"<Model {self.name}: {layers} layers, {num_edges(layers):,} edges, {self.dtype}>"

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self.checkpoint.config

    @functools.cached_property
    def tokenizer(self):
        """The tokenizer of its folder; needed for texts only, not for token ids."""
        return load_tokenizer(self.directory)

    def attribute(
        self, texts: Iterable[tuple[Tokens, Tokens]], estimator: Estimator = "eap", *,
        batch_tokens: int = 4096,
    ) -> xr.Dataset:  # fmt: skip
        """Edge attribution patching: the score of every edge on every text.

        Args:
          texts: (prompt, answer) pairs.
          estimator: `eap`, or `branch`, nearer to `ablate` and dearer (`eap_jax.branch`).
          batch_tokens: most tokens that go through the model at once.

        Returns:
          score (sample, writer, reader) float32, zero where there is no edge; loss (sample) in
          nats a token; edge (writer, reader) bool, where an edge exists. Samples in the texts' order.

        Raises:
          InputError: a text is empty or too long, or the model does not know one of its tokens.
        """
        prepared = self._prepared(texts)
        (found,) = score_texts(
            self.checkpoint,
            prepared,
            numerics=self.dtype,
            batch_tokens=batch_tokens,
            mesh=make_mesh(""),
            estimator=estimator,
            description=f"{self.name}: attribute",
            patience=_PATIENCE,
        )
        facts = {**self._facts, "estimator": estimator}
        return label_matrices("score", found.scores_nWR, found.losses_n, facts)

    def ablate(
        self, texts: Iterable[tuple[Tokens, Tokens]], edges: Iterable[Edge] | None = None, *,
        batch_tokens: int = 4096,
    ) -> xr.Dataset:  # fmt: skip
        """What cutting each edge really does: the loss without it, minus the loss.

        Each edge is cut on its own, by a forward pass in which its reader reads the stream without
        its writer's write.

        Args:
          texts: (prompt, answer) pairs.
          edges: such as ("m0", "logits") or "a3 -> m5" or "m0 -> a1<q>"; None cuts every edge.
          batch_tokens: most tokens that go through the model at once.

        Returns:
          effect (sample, writer, reader) float32 in nats a token, NaN where not asked; loss and
          edge as in `attribute`.

        Raises:
          InputError: as `attribute`, or an edge does not exist.
        """
        prepared, layers = self._prepared(texts), self.config.num_layers
        mask_WR = edge_mask(layers)
        asked = np.argwhere(mask_WR) if edges is None else self._places(edges)
        asked = [(int(writer), int(reader)) for writer, reader in asked]
        effects_nWR = np.full((len(prepared), *mask_WR.shape), math.nan, np.float32)
        losses_n = np.empty(len(prepared), np.float32)
        batches = self._batches(prepared, batch_tokens)
        total = len(asked) * len(batches)
        progress = tqdm(total=total, desc=f"{self.name}: ablate", unit="edge", delay=_PATIENCE)
        with progress:
            for padded in batches:
                found = cut_losses(
                    self.checkpoint.params, padded.batch, asked, config=self.config,
                    rows=max(1, batch_tokens // padded.batch.tokens_BT.shape[1]),
                    progress=progress.update,
                )  # fmt: skip
                effects_BE = found.effects(padded.batch.weights_BJ)[: len(padded.indices)]
                for place, (writer, reader) in enumerate(asked):
                    effects_nWR[list(padded.indices), writer, reader] = effects_BE[:, place]
                _put(losses_n, padded, found.whole_BJ)
        return label_matrices("effect", effects_nWR, losses_n, self._facts)

    def circuit(
        self, texts: Iterable[tuple[Tokens, Tokens]], edges: Iterable[Edge], *,
        ablation: Literal["zero", "mean"] = "zero", batch_tokens: int = 4096,
    ) -> xr.DataArray:  # fmt: skip
        """The loss when only these edges are kept and every other one is cut.

        Args:
          texts: (prompt, answer) pairs.
          edges: as in `ablate`.
          ablation: what the reader of a cut edge gets: `zero`, nothing; `mean`, the writer's mean
            write over these texts and their tokens, see `eap_jax.circuit`.
          batch_tokens: most tokens that go through the model at once.

        Returns:
          loss (sample) float32, in nats a token.

        Raises:
          InputError: as `ablate`.
          ValueError: the ablation is another.
        """
        if ablation not in ("zero", "mean"):
            raise ValueError(f"ablation: expected zero or mean, found {ablation!r}")
        prepared = self._prepared(texts)
        kept_WR = np.zeros(edge_mask(self.config.num_layers).shape, bool)
        for place in self._places(edges):
            kept_WR[place] = True
        losses_n = np.empty(len(prepared), np.float32)
        params, config = self.checkpoint.params, self.config
        batches = self._batches(prepared, batch_tokens)
        means_WD = None
        if ablation == "mean":
            means = [mean_writes(params, padded.batch, config=config) for padded in batches]
            means_WD = in_order(batches, means).mean(axis=0)
        for padded in batches:
            kept_BWR = np.broadcast_to(kept_WR, (len(padded.batch.tokens_BT), *kept_WR.shape))
            losses_BJ = circuit_losses(params, padded.batch, kept_BWR, means_WD, config=config)
            _put(losses_n, padded, gathered(losses_BJ))
        return label_losses(losses_n)

    def generate(
        self,
        prompts: Iterable[Tokens],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """The model's answers as text, without special tokens.

        Prompts are texts or lists of token ids; `max_new_tokens`, `temperature` (0 is greedy) and
        `top_p` see `eap_jax.generation.Sampling`; `seed` is that of sampling. Raises as `attribute`.
        """
        tokens = given_prompts(prompts, tokenizer=lambda: self.tokenizer, config=self.config)
        if not tokens:
            return []
        found = generate_tokens(
            self._separate,
            tokens,
            config=self.config,
            sampling=Sampling(
                max_new_tokens=max_new_tokens,
                stop_tokens=stop_tokens(self.directory),
                temperature=temperature,
                top_p=top_p,
            ),
            key=jax.random.key(seed),
            rows=self._rows(tokens, max_new_tokens),
        )
        return [self.tokenizer.decode(answer, skip_special_tokens=True) for answer in found]

    @property
    def _facts(self) -> dict[str, str]:
        return {"model": self.name, "dtype": self.dtype}

    @functools.cached_property
    def _separate(self) -> dict:
        """The parameters as generation wants them: a second copy, made once."""
        return separate_layers(self.checkpoint.params)

    def _rows(self, prompts: list[tuple[int, ...]], new_tokens: int) -> int:
        """Prompts decoded together: as many as fit beside the stacked copy of the weights."""
        model = Placed(config=self.config, dtype=self.dtype, mesh=make_mesh(""))
        return plan_answers(
            model,
            usable_on(model.mesh) - weight_bytes(model),
            width=max(map(len, prompts)),
            new_tokens=new_tokens,
            most_rows=min(len(prompts), Study.batch_answers),
        ).rows

    def _batches(self, texts: list[Text], batch_tokens: int) -> list[PaddedBatch]:
        return pad_into_batches(texts, batch_tokens=batch_tokens, longest=self.config.longest_text)

    def _prepared(self, texts: Iterable[tuple[Tokens, Tokens]]) -> list[Text]:
        return given_texts(texts, tokenizer=lambda: self.tokenizer, config=self.config)

    def _places(self, edges: Iterable[Edge]) -> list[tuple[int, int]]:
        try:
            return [parse_edge(edge, self.config.num_layers) for edge in edges]
        except ValueError as error:
            raise InputError(str(error)) from None


def _put(losses_n: np.ndarray, padded: PaddedBatch, losses_BJ: np.ndarray) -> None:
    """Each text's weighted loss in its own place."""
    losses_B = np.sum(losses_BJ * padded.batch.weights_BJ, axis=1)
    losses_n[list(padded.indices)] = losses_B[: len(padded.indices)]
