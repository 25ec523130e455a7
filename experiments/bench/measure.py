"""What the bench measures of one preset: each program's time, memory and compilation."""

import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from tqdm import tqdm

from eap_jax.attribution import attribute
from eap_jax.generation import Sampling, generate
from eap_jax.transformer import init_parameters
from experiments.bench import streamed
from experiments.bench.programs import (
    NEW_TOKENS,
    Preset,
    alpha_programs,
    attribute_once_command,
    block_activation_bytes,
    forward,
    forward_and_input_gradient,
    matmul_program,
    prompts_of,
    random_batch,
    random_parameters,
    torch_programs,
)


def in_turn(programs: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Median seconds of each program, run in turn after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    with tqdm(total=(repeats + 1) * len(programs), desc="bench", unit="run") as progress:
        for number in range(repeats + 1):
            for name, program in programs.items():
                begin = time.perf_counter()
                jax.block_until_ready(program())
                if number:
                    times[name].append(time.perf_counter() - begin)
                progress.update()
    return {name: statistics.median(values) for name, values in times.items()}


def compile_seconds(preset: Preset, layers: int) -> float:
    """Seconds to trace, lower and compile attribution for the preset at another depth."""
    # A constant of its own, so that no cache on disk knows the program.
    eps = preset.config.norm_eps * (1 + time.time_ns() % 10**6 / 1e9)
    config = dataclasses.replace(preset.config, num_layers=layers, norm_eps=eps)
    shapes = jax.eval_shape(lambda: init_parameters(config, jax.random.key(0)))
    jax.clear_caches()
    begin = time.perf_counter()
    attribute.lower(shapes, random_batch(preset), config=config).compile()
    return time.perf_counter() - begin


def bench(preset: Preset, repeats: int, compiles: int = 3) -> dict[str, float]:
    """All figures of a preset; times in seconds a batch, rates in operations a second.

    Args:
      preset: model and batch.
      repeats: measured runs of each program, in turn.
      compiles: measured compilations at each depth.
    """
    # In a process of its own: weights, compilation and one pass; before this one takes a device.
    _, peak, _ = streamed.run_measured(attribute_once_command(preset))
    config, batch = preset.config, random_batch(preset)
    params = jax.block_until_ready(random_parameters(preset))
    tokens = preset.rows * preset.length
    multiply, operations = matmul_program(preset)
    prompts = prompts_of(preset).tolist()
    endless = Sampling(max_new_tokens=NEW_TOKENS, stop_tokens=())
    times = in_turn(
        {
            "attribution": lambda: attribute(params, batch, config=config),
            "attribution_remat": lambda: attribute(params, batch, config=config, remat=True),
            "forward": lambda: forward(params, batch, config=config),
            "forward_input_gradient": lambda: forward_and_input_gradient(
                params, batch, config=config
            ),
            "matmuls": multiply,
            "decode": lambda: generate(params, prompts, config=config, sampling=endless),
            **alpha_programs(preset, params),
            **torch_programs(preset, params, batch),
        },
        repeats,
    )
    rate = operations / times.pop("matmuls")
    bound = 4 * config.num_parameters * tokens / rate
    carrying = preset.rows * preset.targets
    vocabulary = config.vocab_size * config.d_model
    blocks = config.num_parameters - vocabulary * (1 if config.tied_embeddings else 2)
    needed = 4 * (blocks * tokens + vocabulary * carrying) / rate
    compared = {
        "alphas_shared_over_apart": times["alphas_shared"] / times["alphas_apart"],
        "decode_tokens_per_second": 32 * NEW_TOKENS / times["decode"],
    }
    if "torch_one" in times:
        lean = min(times["torch_one"] / preset.length, times["torch_batch"] / tokens)
        compared |= {
            "torch_ms_per_token": lean * 1e3,
            "attribution_over_torch": times["attribution"] / tokens / lean,
            "torch_decode_tokens_per_second": 32 * NEW_TOKENS / times["torch_decode"],
            "decode_speed_over_torch": times["torch_decode"] / times["decode"],
        }
    memory = {
        name: attribute.lower(params, batch, config=config, remat=remat)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for name, remat in (("keep", False), ("remat", True))
    }
    writes = (
        (1 + 2 * config.num_layers) * tokens * config.d_model * jnp.dtype(preset.dtype).itemsize
    )
    block_bytes = block_activation_bytes(preset)
    compiled = {
        n: statistics.median(compile_seconds(preset, n) for _ in range(compiles)) for n in (4, 32)
    }
    return {
        "parameters": config.num_parameters,
        "tokens": tokens,
        **{f"{name}_seconds": value for name, value in times.items()},
        "attribution_seconds_per_sample": times["attribution"] / preset.rows,
        "attribution_ms_per_token": times["attribution"] / tokens * 1e3,
        **{
            f"{name}_tokens_per_second": tokens / times[name]
            for name in ("attribution", "forward", "forward_input_gradient")
        },
        "attribution_over_forward_input_gradient": times["attribution"]
        / times["forward_input_gradient"],
        "matmul_gflops": rate / 1e9,
        "fraction_of_matmul_bound": bound / times["attribution"],
        "fraction_of_needed_matmuls": needed / times["attribution"],
        **compared,
        "peak_resident_bytes": peak,
        "temporary_bytes": memory["keep"],
        "temporary_bytes_remat": memory["remat"],
        "stacked_writes_bytes": writes,
        "block_activation_bytes": block_bytes,
        "temporary_remat_over_needed": memory["remat"] / (writes + block_bytes),
        "compile_seconds_4_layers": compiled[4],
        "compile_seconds_32_layers": compiled[32],
        "compile_32_over_4": compiled[32] / compiled[4],
    }
