"""A batch at work: which prompt is in which row, and which slots of the cache are in use.

The host knows of each row its newest token, its first slot and how many tokens it may still get; the
device holds the cache. Rows are [ways, B / ways] to a mesh: a text stays on the device of its part.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from eap_jax.block import Cache
from eap_jax.config import ModelConfig
from eap_jax.decoding import Decoded, Rows, decode, empty_caches, ladder, prefill, put, shift, take
from eap_jax.sampling import Sampling
from eap_jax.sharding import DecodingLayout, gathered, place_batch

# A cache that is moved gets room for so many steps: a move costs as much as two or three steps.
_ROOM = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt that waits.

    Attributes:
      number: its place among the caller's.
      tokens: its ids.
      limit: most tokens of its answer.
      key: data of its PRNG key.
    """

    number: int
    tokens: Sequence[int]
    limit: int
    key: np.ndarray


def cache_slots(width: int, new_tokens: int) -> int:
    """Slots of the largest cache for prompts of `width` slots and answers of `new_tokens`."""
    return -(-(width + new_tokens) // 16) * 16


class Slots:
    """Rows that decode together.

    Args:
      layers: parameters, `parameters.separate_layers`.
      config, sampling: the model and how tokens are chosen.
      layout: where rows and caches lie on a mesh, or None for one device.
      rows: their number, a multiple of the data axis.
      most: slots that the longest text can need, its limit included.
      keys: a PRNG key of the kind that the prompts' keys have.

    Attributes:
      answers: tokens so far of each prompt at work, by number.
    """

    def __init__(
        self,
        layers: dict,
        *,
        config: ModelConfig,
        sampling: Sampling,
        layout: DecodingLayout | None,
        rows: int,
        most: int,
        keys: jax.Array,
    ):
        self._layers, self._config, self._layout = layers, config, layout
        self._most = cache_slots(0, most)
        self._stops = frozenset(sampling.stop_tokens)
        # The limit is each row's own; without it, all limits share compiled programs.
        choice = dataclasses.replace(sampling, max_new_tokens=1)
        self._static = {"config": config, "sampling": choice, "layout": layout}
        self._ways = layout.ways if layout else 1
        self._impl = jax.random.key_impl(keys)
        data = np.asarray(jax.random.key_data(keys))
        self._keys_B = np.zeros((rows, *data.shape[keys.ndim :]), data.dtype)
        self._number_B = np.full(rows, -1)
        self._last_B, self._start_B, self._left_B = np.zeros((3, rows), np.int32)
        self._slot = self._capacity = 0
        self._caches: list[Cache | None] = []
        self.answers: dict[int, list[int]] = {}

    @property
    def rows(self) -> int:
        """Rows, free ones included."""
        return len(self._left_B)

    @property
    def at_work(self) -> int:
        """Rows whose text has tokens to come."""
        return int(np.count_nonzero(self._left_B))

    def vacancies(self, group: int) -> int:
        """Prompts that a prefill of `group` rows can bring into free rows."""
        free = np.sum(self._left_B.reshape(self._ways, -1) == 0, axis=1)
        return int(np.minimum(free, group // self._ways).sum())

    def enter(self, prompts: Sequence[Prompt], group: int) -> list[int]:
        """Prefill prompts and give them free rows.

        Args:
          prompts: at most `vacancies(group)`; none wider than the widest so far, unless no row is
            at work.
          group: rows of the prefill, a multiple of the data axis; those beyond the prompts idle.

        Returns:
          numbers of those whose answer ended with its first token.
        """
        width = max(ladder(len(prompt.tokens)) for prompt in prompts)
        if not self.at_work:
            self._slot = width
            if self._capacity < width:
                self._allocate(self._size(width))
        row_B = self._rows_for(len(prompts), group)
        places = np.flatnonzero(row_B >= 0)
        tokens_BT = np.zeros((group, width), np.int32)
        start_B = np.full(group, width - 1, np.int32)
        keys_B = np.zeros((group, *self._keys_B.shape[1:]), self._keys_B.dtype)
        for place, prompt in zip(places, prompts, strict=True):
            start_B[place] = width - len(prompt.tokens)
            tokens_BT[place, start_B[place] :] = prompt.tokens
            keys_B[place] = prompt.key
        tokens_BT, start_B, keys_B = self._placed((tokens_BT, start_B, keys_B))
        arrays = (tokens_BT, start_B, self._wrapped(keys_B))
        new, first_B = prefill(self._layers, *arrays, **self._static)
        own = self.rows // self._ways
        place_B = self._placed(np.where(row_B < 0, own, row_B % own).astype(np.int32))
        self._each(
            lambda leaf, new: put(leaf, new, place_B, self._slot, ways=self._ways), list(new)
        )
        del new
        first_B, ended = gathered(first_B), []
        for place, prompt in zip(places, prompts, strict=True):
            row = row_B[place]
            self._number_B[row], self._left_B[row] = prompt.number, prompt.limit
            self._start_B[row] = self._slot - len(prompt.tokens)
            self._keys_B[row] = prompt.key
            self.answers[prompt.number] = []
            ended += self._append(row, first_B[place : place + 1])
        return ended

    def make_room(self, next_width: int) -> None:
        """Move or resize a cache that is full, or of which less than half is needed.

        Args:
          next_width: slots that the next prompt will need, 0 if none waits.
        """
        first = int(self._start_B[self._left_B > 0].min())
        dropped = min(first, self._slot - next_width)
        capacity = self._size(self._slot - dropped)
        if self._slot < self._capacity < 2 * capacity:
            return
        self._each(lambda leaf: shift(leaf, dropped, capacity=capacity))
        self._capacity = capacity
        self._slot -= dropped
        self._start_B = np.maximum(self._start_B - dropped, 0)

    def compact(self, rows: int) -> bool:
        """Go on with `rows` rows, if the texts at work fit them; returns whether they do."""
        left = self._left_B.reshape(self._ways, -1)
        kept = rows // self._ways
        if np.count_nonzero(left, axis=1).max() > kept:
            return False
        # Those at work first.
        own = np.argsort(left == 0, axis=1, kind="stable")[:, :kept]
        chosen = (own + np.arange(self._ways)[:, None] * left.shape[1]).reshape(-1)
        place_B = self._placed(own.reshape(-1).astype(np.int32))
        self._each(lambda leaf: take(leaf, place_B, ways=self._ways))
        for name in ("_number_B", "_last_B", "_start_B", "_left_B", "_keys_B"):
            setattr(self, name, getattr(self, name)[chosen])
        return True

    def start(self, wanted: int) -> Decoded:
        """Begin to decode until `wanted` rows are done; returns at once."""
        last_B, start_B, left_B, data_B = self._placed(
            (self._last_B, self._start_B, self._left_B, self._keys_B)
        )
        keys_B = self._wrapped(data_B)
        rows = Rows(last_B=last_B, start_B=start_B, left_B=left_B, keys_B=keys_B)
        decoded = decode(
            self._layers, tuple(self._caches), rows, self._slot, wanted, **self._static
        )
        self._caches = list(decoded.caches)
        return decoded

    def collect(self, decoded: Decoded) -> list[int]:
        """Wait for what `start` began; returns numbers of the answers that ended."""
        steps = int(gathered(decoded.steps))
        tokens_TB = gathered(decoded.tokens_TB)[:steps]
        self._slot += steps
        return [
            number
            for row in np.flatnonzero(self._left_B)
            for number in self._append(row, tokens_TB[:, row])
        ]

    def _append(self, row: int, tokens: np.ndarray) -> list[int]:
        """Add new tokens to a row's answer, up to its end: its number if it ended."""
        number = int(self._number_B[row])
        tokens = tokens[: self._left_B[row]].tolist()
        end = next((n for n, token in enumerate(tokens, 1) if token in self._stops), None)
        self.answers[number] += tokens[:end]
        self._left_B[row] = 0 if end else self._left_B[row] - len(tokens)
        self._last_B[row] = tokens[-1]
        return [] if self._left_B[row] else [number]

    def _rows_for(self, count: int, group: int) -> np.ndarray:
        """Free row of each place of a prefill, [group]; -1 for a place that stays idle."""
        left = self._left_B.reshape(self._ways, -1)
        row_B = np.full((self._ways, group // self._ways), -1)
        for part in range(self._ways):
            free = np.flatnonzero(left[part] == 0)[: row_B.shape[1]]
            row_B[part, : len(free)] = part * left.shape[1] + free
        # In turn from each part, so that the parts stay equally full.
        idle = np.flatnonzero(row_B.T.reshape(-1) >= 0)[count:]
        row_B[idle % self._ways, idle // self._ways] = -1
        return row_B.reshape(-1)

    def _size(self, used: int) -> int:
        """Capacity for so many slots in use and some steps more."""
        return min(ladder(used + _ROOM), self._most)

    def _allocate(self, capacity: int) -> None:
        self._caches, self._capacity = [], capacity
        self._caches = list(
            empty_caches(self._layers, self._config, self.rows, capacity, self._layout)
        )

    def _each(self, function, *more: list) -> None:
        """Replace the cache of one layer after the other, so that only one is there twice."""
        for layer in range(self._config.num_layers):
            beside = [leaves[layer] for leaves in more]
            for leaves in more:
                leaves[layer] = None
            self._caches[layer] = jax.tree.map(function, self._caches[layer], *beside)

    def _placed(self, arrays):
        return place_batch(arrays, self._layout.rows.mesh) if self._layout else arrays

    def _wrapped(self, data: np.ndarray | jax.Array) -> jax.Array:
        return jax.random.wrap_key_data(data, impl=self._impl)
