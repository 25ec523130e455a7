"""Bytes that exact cuts and circuits need on one device: forward passes that keep all writes.

    cuts        1+2L writes and the L+1 streams of the whole model; for each edge that is cut beside
                them its last stream, four taps, and one layer at work
    circuits    1+2L writes, the four reads of a layer, and that layer at work

Counted from shapes, as in `footprint`. A layer at work is its MLP's three arrays, or its attention's
float32 logits and their softmax.
"""

import dataclasses
import math

from eap_jax.block import READS
from eap_jax.graph import edge_mask
from eap_jax.parameters import parameter_shapes
from experiments.study.footprint import (
    WORKSPACE,
    Needs,
    Placed,
    heads_bytes,
    seen_pairs,
    weight_bytes,
    write_bytes,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One batch of texts that runs forward with edges cut.

    Attributes:
      rows, length: of the batch, padding included.
      targets: places that carry loss, of each row.
      most_logits: that the output head holds at once, on all devices.
      edges: cut together, each in a copy of the batch; a circuit has one copy.
    """

    rows: int
    length: int
    targets: int
    most_logits: int
    edges: int = 1

    @property
    def tokens(self) -> int:
        """Of the batch, without copies."""
        return self.rows * self.length


def cut_needs(model: Placed, run: Run) -> Needs:
    """The largest of the programs of `cut_programs`."""
    return max(cut_programs(model, run).values(), key=lambda needs: needs.total)


def cut_programs(model: Placed, run: Run) -> dict[str, Needs]:
    """By name the texts run whole, cuts resumed, and their losses; see `eap_jax.ablation`.

    Each with what lies beside it: the weights, and what cuts resume from.
    """
    stream, layers = _stream_bytes(model, run), model.config.num_layers
    work = {
        "run_whole": stream + _layer_bytes(model, run, 1),
        "resume": run.edges * (1 + len(READS)) * stream + _layer_bytes(model, run, run.edges),
        "losses_at_head": 2 * run.edges * stream + _head_bytes(model, run),
    }
    return {
        name: Needs(
            weights=weight_bytes(model),
            writes=(1 + 2 * layers) * stream,
            activations=(1 + layers) * stream,
            work=WORKSPACE + of_program,
        )
        for name, of_program in work.items()
    }


def circuit_needs(model: Placed, run: Run) -> Needs:
    """A circuit of each text of a batch; see `eap_jax.circuit`."""
    stream = _stream_bytes(model, run)
    at_layer = len(READS) * stream + _layer_bytes(model, run, 1)
    return Needs(
        weights=weight_bytes(model),
        writes=_buffer_bytes(model, run),
        work=WORKSPACE
        + _chosen_bytes(model, run)
        + max(at_layer, stream + _head_bytes(model, run)),
    )


def streamed_cut_needs(model: Placed, run: Run, kept_bytes: int) -> Needs:
    """Cuts with the weights read layer by layer (`eap_jax.streamed_ablation`), on one device.

    Args:
      model: weights are cast to its precision as they are read.
      run: one batch.
      kept_bytes: of the streams of all cuts of one reading; those of `run.edges` at least.
    """
    whole, stream = cut_needs(model, run), _stream_bytes(model, run)
    taps = 2 * len(READS) * run.edges * stream  # by reader, and then together
    return Needs(
        weights=_largest_part(model),
        writes=whole.writes,
        activations=max(kept_bytes, run.edges * stream) + 2 * stream,
        work=whole.work + taps - len(READS) * run.edges * stream,
    )


def streamed_circuit_needs(model: Placed, run: Run, kept_bytes: int) -> Needs:
    """Circuits with the weights read layer by layer (`eap_jax.streamed_circuit`), on one device.

    Args:
      kept_bytes: of the writes of all circuits of one reading; those of one at least.
      others: see `streamed_cut_needs`.
    """
    whole = circuit_needs(model, run)
    return dataclasses.replace(
        whole, weights=_largest_part(model), writes=max(kept_bytes, whole.writes)
    )


def _stream_bytes(model: Placed, run: Run) -> int:
    return model.own_rows(run.rows) * run.length * model.config.d_model * model.itemsize


def _buffer_bytes(model: Placed, run: Run) -> int:
    return write_bytes(model.config, model.own_rows(run.rows) * run.length, model.itemsize)


def _layer_bytes(model: Placed, run: Run, copies: int) -> int:
    """Arrays alive together while a layer runs forward and keeps nothing."""
    config, rows = model.config, copies * model.own_rows(run.rows)
    tokens = rows * run.length
    hidden = 3 * config.d_ff // model.ways(config.d_ff) * tokens * model.itemsize
    logits = (4 + 4) * seen_pairs(model, rows, run.length, run.length)
    return max(hidden, logits + heads_bytes(model, tokens))


def _chosen_bytes(model: Placed, run: Run) -> int:
    """What is kept of each edge and what stands for it, once for all layers and once by layer."""
    writers, readers = edge_mask(model.config.num_layers).shape
    numbers = readers * (writers + model.config.d_model)
    return 2 * numbers * model.own_rows(run.rows) * model.itemsize


def _head_bytes(model: Placed, run: Run) -> int:
    """What the head reads, and the logits of one of its chunks of targets, which are equal
    (`eap_jax.head.map_targets`). Nothing goes back, so their softmax is summed up as it is made.
    """
    own, vocabulary = model.own_rows(run.rows), model.config.vocab_size
    most = max(1, run.most_logits // (run.rows * vocabulary))
    chunk = math.ceil(run.targets / math.ceil(run.targets / most))
    numbers = run.targets * model.config.d_model + chunk * vocabulary // model.ways(vocabulary)
    return own * numbers * model.itemsize


def _largest_part(model: Placed) -> int:
    """Bytes of one layer or of one end, whichever is larger."""
    shapes = parameter_shapes(model.config)
    block = sum(math.prod(shape[1:]) for shape in shapes["blocks"].values())
    return max(block, math.prod(shapes["embed"])) * model.itemsize
