"""What cutting an edge really does: the loss when one reader reads the stream without one write.

    effect(writer O, reader H) = loss with H reading (stream - share * O)  -  loss

with share 1 (zero ablation). No derivative is involved: a tap of -share * O on that one branch read
and a forward pass, so this is what an edge score predicts, and the measure of how well it does.

A cut in layer l changes nothing before layer l. The texts run once, keeping the stream before every
layer and all writes; a cut resumes from the stream before its reader's layer. Cuts of one layer run
together, as many at a time as `rows` allows, and every layer shares one compiled program.
"""

import functools
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from eap_jax.block import READS, Block
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_mask
from eap_jax.head import HEAD_LOGITS, target_losses
from eap_jax.objective import Batch, Objective, self_entropy
from eap_jax.places import Kind, Places
from eap_jax.sharding import gathered
from eap_jax.transformer import embed

Edge = tuple[int, int]

# What a run costs beside its texts, in tokens: the weights are read once.
_TOKENS_OF_A_RUN = 64


@flax.struct.dataclass
class CutLosses:
    """Losses at each target, whole and with each edge cut.

    Attributes:
      whole_BJ: [B, J] float32, of the whole model.
      cut_EBJ: [E, B, J] float32, one entry a cut edge, in the order asked for.
    """

    whole_BJ: np.ndarray
    cut_EBJ: np.ndarray

    def effects(self, weights_BJ) -> np.ndarray:
        """[B, E] float32: weighted loss with the edge cut, minus the whole model's."""
        changes_EBJ = self.cut_EBJ - self.whole_BJ
        return np.einsum("EBJ,BJ->BE", changes_EBJ, np.asarray(weights_BJ, np.float32))


def cut_losses(
    params: dict,
    batch: Batch,
    edges: Sequence[Edge],
    *,
    config: ModelConfig,
    objective: Objective = self_entropy,
    share: float = 1.0,
    rows: int = 64,
    most_logits: int = HEAD_LOGITS[False],
    progress: Callable[[int], object] | None = None,
) -> CutLosses:
    """The loss at every target of a batch, for the whole model and with each of some edges cut.

    Args:
      params: parameters in the structure of `parameters.parameter_axes`, any float dtype.
      batch: texts and targets; its weights are not used.
      edges: (writer, reader) places in the score matrix [1+2L, 4L+1], see `graph`.
      config: the model.
      objective: the loss at one position.
      share: of the write that is taken out of the read; 1 cuts the edge.
      rows: texts that go through the model at once; at least one edge's texts do.
      most_logits: that the output head holds at once, about.
      progress: called with the number of edges done since its last call.

    Returns:
      `CutLosses`.

    Raises:
      ValueError: an edge does not exist in this model.
    """
    check_edges(edges, config)
    texts = run_whole(params, batch, config)
    at_head = functools.partial(
        losses_at_head, params, batch, config=config, objective=objective, most_logits=most_logits
    )
    whole_BJ = gathered(at_head(jnp.expand_dims(texts.last_BTD, 0)))[0]
    cut_EBJ = np.zeros((len(edges), *whole_BJ.shape), np.float32)
    by_layer = _by_layer(edges, config.num_layers)
    together = _together(
        [len(places) for _, places in by_layer], max(1, rows // len(batch.tokens_BT)), batch
    )
    for layer, places in by_layer:
        for first in range(0, len(places), together):
            part = places[first : first + together]
            # Always as many, so that one program serves all; the last ones are repeated.
            filled = [edges[part[min(i, len(part) - 1)]] for i in range(together)]
            writers_E = np.asarray([writer for writer, _ in filled], np.int32)
            reads_E = np.asarray([reader % len(READS) for _, reader in filled], np.int32)
            # Not bound to a name, which would hold the streams while the next ones are made.
            losses_EBJ = at_head(
                _cut_last(texts, writers_E, share)
                if layer == config.num_layers
                else resume(params, texts, writers_E, reads_E, layer, share, config=config)
            )
            cut_EBJ[part] = gathered(losses_EBJ)[: len(part)]
            if progress is not None:
                progress(len(part))
    return CutLosses(whole_BJ=whole_BJ, cut_EBJ=cut_EBJ)


def _together(counts: Sequence[int], most: int, batch: Batch) -> int:
    """How many cuts run at once: one number for all layers, so that one program serves them.

    A layer's last run is filled up with copies, so a number far above the layers' own counts wastes
    most of the work, and a small one reads the weights too often.
    """
    tokens = batch.tokens_BT.size
    work = {
        cuts: sum(-(-count // cuts) for count in counts) * (cuts * tokens + _TOKENS_OF_A_RUN)
        for cuts in range(1, most + 1)
    }
    return min(work, key=lambda cuts: (work[cuts], -cuts))


def check_edges(edges: Sequence[Edge], config: ModelConfig) -> None:
    """Every edge exists in a model.

    Raises:
      ValueError: one does not.
    """
    exists_WR = edge_mask(config.num_layers)
    for writer, reader in edges:
        inside = 0 <= writer < exists_WR.shape[0] and 0 <= reader < exists_WR.shape[1]
        if not (inside and exists_WR[writer, reader]):
            raise ValueError(f"edges: no edge leads from writer {writer} to reader {reader}")


@flax.struct.dataclass
class WholeRun:
    """A batch that ran through the whole model.

    Attributes:
      streams_LBTD: what each layer read.
      last_BTD: what the final norm read.
      writes_WBTD: everything that was added to the stream, in the order of `graph.writer_names`.
    """

    streams_LBTD: jax.Array
    last_BTD: jax.Array
    writes_WBTD: jax.Array


def _by_layer(edges: Sequence[Edge], num_layers: int) -> list[tuple[int, list[int]]]:
    """(layer of the reader, places of its edges in the list); L stands for `logits`."""
    places: dict[int, list[int]] = {}
    for place, (_, reader) in enumerate(edges):
        places.setdefault(min(reader // len(READS), num_layers), []).append(place)
    return sorted(places.items())


@functools.partial(jax.jit, static_argnames=("config",))
def run_whole(params: dict, batch: Batch, config: ModelConfig) -> WholeRun:
    """All that cuts resume from.

    The writes go into one buffer as they come: gathered by the scan, they would be copied once to
    stand behind the input's.
    """
    length = batch.tokens_BT.shape[1]
    places = Places.of_texts(config.for_length(length), length)
    input_BTD = embed(config, params, batch.tokens_BT)

    def layer(state, layer):
        stream_BTD, writes_WBTD = state
        block_params, kind, number = layer
        after_BTD, (writes_2BTD, _) = Block(config).apply(
            {"params": block_params}, stream_BTD, places, kind
        )
        writes_WBTD = jax.lax.dynamic_update_slice_in_dim(
            writes_WBTD, writes_2BTD, 1 + 2 * number, axis=0
        )
        return (after_BTD, writes_WBTD), stream_BTD

    shape = (1 + 2 * config.num_layers, *input_BTD.shape)
    writes_WBTD = jnp.zeros(shape, input_BTD.dtype).at[0].set(input_BTD)
    numbers_L = jnp.arange(config.num_layers)
    (last_BTD, writes_WBTD), streams_LBTD = jax.lax.scan(
        layer, (input_BTD, writes_WBTD), (params["blocks"], Kind.stacked(config), numbers_L)
    )
    return WholeRun(streams_LBTD, last_BTD, writes_WBTD)


@functools.partial(jax.jit, static_argnames=("config",))
def resume(
    params: dict, texts: WholeRun, writers_E, reads_E, first, share, *, config: ModelConfig
) -> jax.Array:
    """The last stream [E, B, T, D] of E cuts whose readers are in layer `first`.

    A text's cuts are neighbouring rows: a mesh that divides the texts divides the cuts with them. In
    the other order every device would compute all.
    """
    stream_BTD = jax.lax.dynamic_index_in_dim(texts.streams_LBTD, first, keepdims=False)
    cuts, (rows, length, width) = len(writers_E), stream_BTD.shape
    places = Places.of_texts(config.for_length(length), length)
    taken_BETD = -share * jnp.moveaxis(texts.writes_WBTD[writers_E], 0, 1)
    chosen_4E = jax.nn.one_hot(reads_E, len(READS), axis=0, dtype=taken_BETD.dtype)
    taps_4BTD = (chosen_4E[:, None, :, None, None] * taken_BETD).reshape(
        len(READS), -1, length, width
    )
    kinds = Kind.stacked(config)

    def layer(number, stream_BTD):
        block_params = jax.tree.map(lambda leaf: leaf[number], params["blocks"])
        here = jnp.where(number == first, 1, 0).astype(taps_4BTD.dtype)
        after_BTD, _ = Block(config).apply(
            {"params": block_params}, stream_BTD, places, kinds.of(number), here * taps_4BTD
        )
        return after_BTD

    rows_BTD = jnp.repeat(stream_BTD, cuts, axis=0)
    last_BTD = jax.lax.fori_loop(first, config.num_layers, layer, rows_BTD)
    return jnp.moveaxis(last_BTD.reshape(rows, cuts, length, width), 1, 0)


@jax.jit
def _cut_last(texts: WholeRun, writers_E, share) -> jax.Array:
    """What the final norm reads without each of E writes, [E, B, T, D]."""
    return texts.last_BTD - (share * texts.writes_WBTD[writers_E]).astype(texts.last_BTD.dtype)


@functools.partial(jax.jit, static_argnames=("config", "objective", "most_logits"))
def losses_at_head(
    params: dict,
    batch: Batch,
    last_EBTD,
    *,
    config: ModelConfig,
    objective: Objective,
    most_logits: int = HEAD_LOGITS[False],
) -> jax.Array:
    """Losses [E, B, J] at the targets of a batch, of last streams [E, B, T, D].

    One cut at a time, and of that a chunk of the targets: logits are the largest arrays here.
    """

    def losses(last_BTD):
        read_BJD = jnp.take_along_axis(last_BTD, batch.positions_BJ[:, :, None], axis=1)
        return target_losses(
            config, objective, params, read_BJD, batch.targets_BJ, most_logits=most_logits
        )

    return jax.lax.map(losses, last_EBTD)
