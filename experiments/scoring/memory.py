"""The batches that texts are scored in, as large as the plan allows on the devices at hand."""

import dataclasses

import jax

from eap_jax.batching import PaddedBatch, Text, pad_into_batches
from eap_jax.config import ModelConfig
from experiments.errors import InputError
from experiments.study.cards import usable_on
from experiments.study.footprint import Placed, Scored, attribution_needs
from experiments.study.plan import choices, head_logits, room_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitting:
    """Batches and how they are computed.

    Attributes:
      batches: of all texts.
      remat: activations are computed twice instead of kept.
      most_logits: of the output head at once.
      most_tokens: that the plan let go through the model at once.
      branch: for the branch estimator, which runs copies of a batch beside it.
    """

    batches: list[PaddedBatch]
    remat: bool
    most_logits: int
    most_tokens: int
    branch: bool

    def together(self, padded: PaddedBatch) -> int:
        """Writers whose branches run at once: as many copies of a batch as a full one has room for."""
        return max(1, self.most_tokens // padded.batch.tokens_BT.size) if self.branch else 1


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
    most_logits = head_logits(usable, model.mesh.size)
    ways = model.mesh.shape["data"]
    longest = ways * max(len(text.tokens) for text in texts)
    for remat, tokens in choices(batch_tokens, longest):
        batches = pad_into_batches(
            texts,
            batch_tokens=tokens,
            multiple=ways,
            cuts=cuts,
            longest=model.config.longest_text,
            most_padding=most_padding(model.mesh.local_devices[0]),
        )
        found = Fitting(
            batches=batches,
            remat=remat,
            most_logits=most_logits,
            most_tokens=tokens,
            branch=branch,
        )
        shapes = {padded.batch.tokens_BT.shape: padded for padded in batches}
        sizes = [
            Scored(
                rows=rows,
                length=length,
                targets=padded.batch.targets_BJ.shape[1],
                losses=len(padded.lengths),
                remat=remat,
                most_logits=most_logits,
                branches=found.together(padded) if branch else 0,
            )
            for (rows, length), padded in shapes.items()
        ]
        if max(attribution_needs(model, size).total for size in sizes) <= room_for(usable):
            break
    return found


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
