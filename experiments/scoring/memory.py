"""The batches that texts are scored in, as large as the plan allows on the devices at hand."""

import dataclasses
from collections.abc import Callable, Iterable

import jax

from eap_jax.batching import PaddedBatch, Text, pad_into_batches
from eap_jax.config import ModelConfig
from eap_jax.head import HEAD_LOGITS
from experiments.errors import InputError
from experiments.study.cards import usable_on
from experiments.study.footprint import Needs, Placed, Scored, attribution_needs, streamed_needs
from experiments.study.plan import choices, halves, head_logits, room_for, shortage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitting:
    """Batches and how they are computed.

    Attributes:
      batches: of all texts.
      remat: activations are computed twice instead of kept.
      most_logits: of the output head at once.
      most_tokens: that the plan let go through the model at once.
      branch: for the branch estimator, which runs copies of a batch beside it.
      shortage: in words, what the smallest batches need and the devices do not have; None: they fit.
    """

    batches: list[PaddedBatch]
    remat: bool
    most_logits: int
    most_tokens: int
    branch: bool
    shortage: str | None = None

    def together(self, padded: PaddedBatch) -> int:
        """Writers whose branches run at once: as many copies of a batch as a full one has room for."""
        return max(1, self.most_tokens // padded.batch.tokens_BT.size) if self.branch else 1

    def sizes(self) -> list[Scored]:
        """One size a shape of its batches."""
        shapes = {padded.batch.tokens_BT.shape: padded for padded in self.batches}
        return [
            Scored(
                rows=rows,
                length=length,
                targets=padded.batch.targets_BJ.shape[1],
                losses=len(padded.lengths),
                remat=self.remat,
                most_logits=self.most_logits,
                branches=self.together(padded) if self.branch else 0,
            )
            for (rows, length), padded in shapes.items()
        ]


def fitting_batches(
    model: Placed,
    texts: list[Text],
    *,
    batch_tokens: int,
    cuts: tuple[int, ...],
    branch: bool = False,
) -> Fitting:
    """The first of `plan.choices` that fits the devices of the model's mesh, or else the smallest.

    Args:
      model: on a mesh of devices.
      texts, cuts: see `batching.pad_into_batches`.
      batch_tokens: the most tokens of a batch.
      branch: whether the estimator is `branch`.
    """
    usable = usable_on(model.mesh)
    longest = model.mesh.shape["data"] * max(len(text.tokens) for text in texts)
    logits = head_logits(usable, model.mesh.size)

    def fitting(remat: bool, tokens: int) -> Fitting:
        batches = padded_batches(model, texts, tokens, cuts)
        return Fitting(
            batches=batches, remat=remat, most_logits=logits, most_tokens=tokens, branch=branch
        )

    order = (fitting(*choice) for choice in choices(batch_tokens, longest))
    return _first(order, usable, lambda size: attribution_needs(model, size))


def streamed_batches(
    model: Placed,
    texts: list[Text],
    *,
    batch_tokens: int,
    cuts: tuple[int, ...],
    kept_bytes: int,
    branch: bool = False,
) -> Fitting:
    """The largest batches that fit while the weights are read layer by layer, or else the smallest.

    Args:
      model: on one device.
      kept_bytes: see `footprint.streamed_needs`.
      others: see `fitting_batches`.
    """

    def fitting(tokens: int) -> Fitting:
        return Fitting(
            batches=padded_batches(model, texts, tokens, cuts),
            remat=True,
            most_logits=HEAD_LOGITS[False],
            most_tokens=tokens,
            branch=False,
        )

    def needs(size: Scored) -> Needs:
        # The branches of one writer run at once.
        return streamed_needs(model, dataclasses.replace(size, branches=int(branch)), kept_bytes)

    longest = max(len(text.tokens) for text in texts)
    order = (fitting(tokens) for tokens in halves(batch_tokens, longest))
    return _first(order, usable_on(model.mesh), needs)


def padded_batches(
    model: Placed, texts: list[Text], tokens: int, cuts: tuple[int, ...]
) -> list[PaddedBatch]:
    """Batches of at most so many tokens for the devices of a model's mesh."""
    mesh = model.mesh
    return pad_into_batches(
        texts,
        batch_tokens=tokens,
        multiple=mesh.shape["data"],
        cuts=cuts,
        longest=model.config.longest_text,
        most_padding=most_padding(mesh.local_devices[0]),
    )


def _first(order: Iterable[Fitting], usable: int, needs: Callable[[Scored], Needs]) -> Fitting:
    """The first of which every batch fits with some room left, or the last."""
    for found in order:
        most, size = max(((needs(size).total, size) for size in found.sizes()), key=lambda m: m[0])
        if most <= room_for(usable):
            return found
    if most <= usable:
        return found
    what = f"scores of {size.rows} x {size.length} tokens"
    return dataclasses.replace(found, shortage=shortage(what, most, usable))


def check_length(text: Text, config: ModelConfig, place: str) -> None:
    """A text can share a batch with others.

    Args:
      text: what the model reads.
      config: the model.
      place: what to call the text in a message.

    Raises:
      InputError: it is longer than `config.longest_text`.
    """
    longest = config.longest_text
    if longest is not None and len(text.tokens) > longest:
        raise InputError(
            f"{place}: expected at most {longest} tokens, beyond which this model's rotary "
            f"frequencies depend on a text's length, found {len(text.tokens)}; leave it out, or "
            "count fewer answer tokens (--alpha)"
        )


def most_padding(device: jax.Device) -> float:
    """Share of padding that is computed rather than avoided by a further shape.

    For an accelerator a shape compiles half a minute, and a hundred texts compute in seconds.
    """
    return 0.1 if device.platform == "cpu" else 0.2
