"""How attribution's time and memory grow with the length of the text and with the layers.

Attention compares all pairs of places, everything else is linear in tokens: the times of all
lengths are fitted by a * T + b * T^2, and the worst deviation shows any further growth. Attention
alone is timed beside it. Memory is compared with the buffer of all read gradients [R, B, T, D],
which must not exist.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from eap_jax.attention import attend_text
from eap_jax.attribution import attribute
from eap_jax.graph import reader_names
from eap_jax.transformer import init_parameters
from experiments.bench.measure import in_turn
from experiments.bench.programs import Preset, random_batch

LENGTHS = (256, 512, 1024, 2048)
LAYERS = (4, 8, 12)


def attention_program(preset: Preset):
    """Attention forward and backward at a preset's shape, as every layer runs it."""
    config = preset.config
    heads = (preset.rows, config.num_heads, preset.length, config.head_dim)
    kv_heads = (preset.rows, config.num_kv_heads, preset.length, config.head_dim)
    q, k, v = (
        jax.random.normal(jax.random.key(number), shape, preset.dtype)
        for number, shape in enumerate((heads, kv_heads, kv_heads))
    )

    @jax.jit
    def there_and_back(q, k, v):
        mixed, pull = jax.vjp(attend_text, q, k, v)
        return mixed, pull(mixed)

    return lambda: there_and_back(q, k, v)


def growth(preset: Preset, repeats: int) -> dict[str, float]:
    """Figures of one text of each of `LENGTHS` at `LAYERS[0]` layers, and of each of `LAYERS`.

    Args:
      preset: widths; its depth and batch are replaced.
      repeats: measured runs of each program.
    """

    def shaped(layers: int, length: int) -> Preset:
        config = dataclasses.replace(preset.config, num_layers=layers)
        return dataclasses.replace(preset, config=config, rows=1, length=length, targets=64)

    programs, memory = {}, {}
    for layers, length in [(LAYERS[0], n) for n in LENGTHS] + [(n, 512) for n in LAYERS[1:]]:
        shape = shaped(layers, length)
        params = init_parameters(shape.config, jax.random.key(0), shape.dtype)
        batch = random_batch(shape)
        compiled = attribute.lower(params, batch, config=shape.config, remat=True).compile()
        memory[layers, length] = compiled.memory_analysis().temp_size_in_bytes
        programs[layers, length] = lambda params=params, batch=batch, config=shape.config: (
            attribute(params, batch, config=config)
        )
        programs["attention", length] = attention_program(shape)
    times = in_turn(programs, repeats)
    lengths = np.array(LENGTHS, np.float64)
    seconds = np.array([times[LAYERS[0], n] for n in LENGTHS])
    # Relative deviations count, so each row is divided by its time.
    terms = np.stack([lengths, lengths**2], axis=1) / seconds[:, None]
    (linear, squared), _ = scipy.optimize.nnls(terms, np.ones(len(LENGTHS)))
    fitted = linear * lengths + squared * lengths**2
    few, some, many = (times[n, 512] for n in LAYERS)
    read_gradients = (
        len(reader_names(LAYERS[0])) * LENGTHS[-1] * preset.config.d_model
        * jnp.dtype(preset.dtype).itemsize
    )  # fmt: skip
    return {
        **{f"ms_per_token_{n}": times[LAYERS[0], n] / n * 1e3 for n in LENGTHS},
        "ms_per_token_linear_part": linear * 1e3,
        "squared_share_longest": squared * lengths[-1] ** 2 / seconds[-1],
        "attention_share_longest": LAYERS[0] * times["attention", LENGTHS[-1]] / seconds[-1],
        "worst_deviation_from_fit": np.abs(fitted / seconds - 1).max(),
        "seconds_per_further_layer": (many - few) / (LAYERS[2] - LAYERS[0]),
        "later_layers_over_earlier": (many - some) / (some - few),
        "temporary_bytes_longest": memory[LAYERS[0], LENGTHS[-1]],
        "read_gradient_bytes_longest": read_gradients,
    }
