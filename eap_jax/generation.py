"""Answers to prompts, in batches whose finished rows are refilled with waiting prompts.

A batch decodes some rows together (decoding.py). Once several of its answers have ended, as many
waiting prompts are prefilled and take their rows, so one long answer holds one row, not a batch. The
longest prompts come first: a later one always fits before the present slot. Slots that no text needs
any more are dropped when the cache is full; it grows or shrinks along the ladder of
`decoding.ladder`. When no prompt waits, a batch with few answers left goes on with fewer rows.

An answer depends on the prompt, the row's key and the model, not on rows, order, batch or mesh (but
for equally likely tokens within rounding).
"""

import functools
import math
from collections import deque
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from eap_jax.checks import check_parameters, check_separate
from eap_jax.config import ModelConfig
from eap_jax.decoding import ladder
from eap_jax.parameters import separate_layers
from eap_jax.sampling import Sampling
from eap_jax.sharding import decoding_layout, mesh_of
from eap_jax.slots import Prompt, Slots

__all__ = ["Sampling", "finished", "generate"]

# Rows are refilled in groups of 1 / _REFILL of a batch: a prefill of few tokens costs a GPU as much
# as a decoding step of all rows, a free row costs its part of every step.
_REFILL = 8
# An idle batch is filled at once if that is at most so many prompt tokens, padding included, on each
# device of the data axis; otherwise in those groups too.
_PREFILL_TOKENS = 4096
# Once this share of a batch's rows is at work and no prompt waits, it goes on with so many rows ...
_SHARE = 4
# ... but not with fewer than these: a step then costs reading the weights, however few the rows.
_FEWEST_ROWS = 8


def generate(
    params: dict,
    prompts: Sequence[Sequence[int]],
    *,
    config: ModelConfig,
    sampling: Sampling,
    key: jax.Array | None = None,
    rows: int | None = None,
    limits: Sequence[int] | None = None,
) -> list[list[int]]:
    """Responses to prompts, in their order; see `finished`."""
    found = dict(
        finished(
            params, prompts, config=config, sampling=sampling, key=key, rows=rows, limits=limits
        )
    )
    return [found[number] for number in range(len(prompts))]


def finished(
    params: dict,
    prompts: Sequence[Sequence[int]],
    *,
    config: ModelConfig,
    sampling: Sampling,
    key: jax.Array | None = None,
    rows: int | None = None,
    limits: Sequence[int] | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Responses to prompts as they are finished.

    Args:
      params: parameters in the structure of `parameters.parameter_axes`, or with separate layers
        (`parameters.separate_layers`), which saves a second copy of them. Placed on a mesh, they
        bring it with them: rows are split over its data axis.
      prompts: token ids of each prompt, at least one each; lengths may differ.
      config: the model.
      sampling: how to choose tokens and when to stop.
      key: a PRNG key for all, or an array of one key a prompt; needed unless greedy.
      rows: prompts decoded together, or None for all; rounded up to a multiple of the data axis.
      limits: most new tokens of each prompt, or None for `sampling.max_new_tokens`. A prompt and its
        answer together are no longer than `config.longest_text`: beyond it a new token would change
        the rotary frequencies of all before it.

    Yields:
      (place of the prompt, token ids of its response without the prompt, ending with a stop token
      or cut at its limit). The next tokens are being computed while the caller is at work.

    Raises:
      ValueError: no prompts, an empty prompt, an id outside the vocabulary, sampling without a
        key or with another number of keys than prompts, a limit out of range, no row, or a
        parameter of another shape.
    """
    if isinstance(params["blocks"], tuple):
        check_separate(params, config)
    else:
        check_parameters(params, config)
    _check_prompts(prompts, config)
    longest = math.inf if config.longest_text is None else config.longest_text
    if key is None and sampling.temperature > 0:
        raise ValueError("sampling with a temperature needs a key")
    count = len(prompts)
    if key is not None and key.shape not in ((), (count,)):
        raise ValueError(f"key: expected one, or one a prompt [B={count}], found {key.shape}")
    if rows is not None and rows < 1:
        raise ValueError(f"rows: expected at least 1, found {rows}")
    most = sampling.max_new_tokens
    if limits is not None and (
        len(limits) != count or not all(1 <= limit <= most for limit in limits)
    ):
        raise ValueError(f"limits: expected one from 1 to {most} for each of {count} prompts")
    key = jax.random.key(0) if key is None else key
    keys_P = (
        key if key.ndim else jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))
    )
    data_P = np.asarray(jax.random.key_data(keys_P))
    # The longest first: a later one then has room before the slot of the present.
    order = sorted(range(count), key=lambda number: (-len(prompts[number]), number))
    waiting = deque(
        Prompt(
            number=number,
            tokens=prompts[number],
            limit=min(
                limits[number] if limits is not None else most, longest - len(prompts[number])
            ),
            key=data_P[number],
        )
        for number in order
    )
    mesh = mesh_of(params["embed"])
    layout = None if mesh is None else decoding_layout(config, mesh)
    ways = layout.ways if layout else 1
    slots = Slots(
        separate_layers(params),
        config=config,
        sampling=sampling,
        layout=layout,
        rows=_multiple(min(rows or count, count), ways),
        most=ladder(len(waiting[0].tokens)) + max(prompt.limit for prompt in waiting),
        keys=keys_P,
    )
    return _in_turn(slots, waiting, ways)


def refill_rows(rows: int, ways: int) -> int:
    """Rows of a prefill that refills a batch of `rows`, on `ways` devices of the data axis."""
    return _multiple(-(-rows // _REFILL), ways)


def _in_turn(slots: Slots, waiting: deque[Prompt], ways: int) -> Iterator[tuple[int, list[int]]]:
    """Refill, decode and collect in turn until nothing is left."""
    group = refill_rows(slots.rows, ways)
    ended: list[int] = []
    while waiting or slots.at_work:
        ended += _fill(slots, waiting, group, ways)
        under_way = None
        if slots.at_work:
            slots.make_room(ladder(len(waiting[0].tokens)) if waiting else 0)
            if waiting:
                wanted = min(group, len(waiting))
            else:
                fewer = _fewer_rows(slots, ways)
                wanted = slots.rows - fewer if slots.at_work > fewer else slots.rows
            under_way = slots.start(wanted)
        for number in ended:
            yield number, slots.answers.pop(number)
        ended = [] if under_way is None else slots.collect(under_way)
    for number in ended:
        yield number, slots.answers.pop(number)


def _fill(slots: Slots, waiting: deque[Prompt], group: int, ways: int) -> list[int]:
    """Bring waiting prompts into free rows; returns numbers of answers of one token."""
    ended = []
    while waiting:
        together = group
        if not slots.at_work:
            width = ladder(len(waiting[0].tokens))
            if slots.rows * width <= _PREFILL_TOKENS * ways:
                together = slots.rows
        if slots.rows - slots.at_work < min(group, len(waiting)):
            break
        room = min(slots.vacancies(together), len(waiting))
        entering = [waiting.popleft() for _ in range(room)]
        ended += slots.enter(entering, together)
    return ended


def _fewer_rows(slots: Slots, ways: int) -> int:
    """Give up rows that no prompt will need; returns the next smaller number of rows."""
    while True:
        rows = slots.rows
        fewer = min(rows, max(rows // _SHARE, _FEWEST_ROWS) // ways * ways)
        if slots.at_work > fewer or fewer == rows or not slots.compact(fewer):
            return fewer


def _multiple(rows: int, ways: int) -> int:
    """The next multiple of `ways`, at least one."""
    return max(1, -(-rows // ways)) * ways


def _check_prompts(prompts: Sequence[Sequence[int]], config: ModelConfig) -> None:
    if not prompts:
        raise ValueError("prompts: expected at least one")
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number}: expected at least one token")
        if config.longest_text is not None and len(prompt) >= config.longest_text:
            raise ValueError(
                f"prompt {number}: expected fewer than {config.longest_text} tokens, beyond which "
                f"the model's rotary frequencies depend on a text's length, found {len(prompt)}"
            )
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise ValueError(
                f"prompt {number}: expected token ids below {config.vocab_size}, found "
                f"{min(prompt)} to {max(prompt)}"
            )
