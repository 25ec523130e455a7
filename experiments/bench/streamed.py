"""Bench of a model that is larger than memory: conversion and streamed attribution at 7B shapes.

A random checkpoint is written, converted and attributed from disk, each program in a process of its
own, whose peak memory the operating system reports.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from tqdm import tqdm

from converters import mapping
from converters.hf_config import to_hf_config
from converters.save import write_safetensors
from converters.staging import staged
from converters.stored import StoredWeights
from eap_jax.config import ModelConfig
from eap_jax.objective import Batch
from eap_jax.streaming import Work, attribute_streamed
from experiments import child_python
from experiments.errors import InputError


def write_random_checkpoint(directory: Path, config: ModelConfig) -> None:
    """A bfloat16 Hugging Face checkpoint of random weights, a shard in memory at a time.

    Layers hold the same numbers: what is measured does not depend on them.
    """
    data = to_hf_config(config, architecture="LlamaForCausalLM", dtype="bfloat16")
    drawn: dict[str, np.ndarray] = {}

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        draw = np.random.default_rng(0)
        for entry in mapping.table(config):
            if entry.name not in drawn:
                if entry.name.endswith("norm"):
                    tensor = np.ones(entry.hf_shape, np.float32)
                else:
                    tensor = draw.standard_normal(entry.hf_shape, np.float32) * 0.02
                drawn[entry.name] = tensor.astype(ml_dtypes.bfloat16)
            yield entry.hf_name, drawn[entry.name]
            if entry.layer is None:
                del drawn[entry.name]  # the ends are the largest tensors

    with staged(directory) as staging:
        (staging / "config.json").write_text(json.dumps(data, indent=2) + "\n")
        write_safetensors(staging, tensors(), 2 * config.num_parameters)


# A process starts with the peak of the one that forks it, so a small one does.
_LAUNCHER = """
import os, sys
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
os.write(int(sys.argv[1]), str(usage.ru_maxrss).encode())
sys.exit(os.waitstatus_to_exitcode(status) % 256)
"""


def resident_bytes(maxrss: float) -> float:
    """Bytes of a peak resident memory in the operating system's unit, a byte or 1,024 of them."""
    return maxrss * (1 if sys.platform == "darwin" else 1024)


def run_measured(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak resident bytes and standard output of a program.

    Where it is a Python (`child_python.command`), it finds this program's own packages.

    Raises:
      InputError: it failed; the message ends its standard error.
    """
    begin = time.perf_counter()
    peak_in, peak_out = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-S", "-c", _LAUNCHER, str(peak_out), *command],
            capture_output=True,
            text=True,
            pass_fds=(peak_out,),
            env=child_python.environment(),
            check=False,
        )
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise InputError(f"{shlex.join(command)}: {done.stderr[-2000:]}")
        return seconds, resident_bytes(float(os.read(peak_in, 64))), done.stdout
    finally:
        os.close(peak_in)
        os.close(peak_out)


def matmul_rate(config: ModelConfig, tokens: int) -> float:
    """Operations a second of bfloat16 products at the model's shapes, median of five."""
    x = jnp.ones((tokens, config.d_model), jnp.bfloat16)
    weight = jnp.ones((config.d_ff, config.d_model), jnp.bfloat16)
    multiply = jax.jit(lambda x, weight: x @ weight.T)
    multiply(x, weight).block_until_ready()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        multiply(x, weight).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    return 2 * tokens * config.d_model * config.d_ff / float(np.median(seconds))


def stream_once(directory: Path, batch: Batch, keep_layers: int = 20) -> dict[str, float]:
    """Attribute one batch from disk; seconds, and the machine's matmul rate before and after.

    Weights are cast to float32 as they are read: XLA's products on a CPU would do it themselves,
    once a product, and the head's copy would take 5 GB. The rate is that of the stored bfloat16.
    """
    with StoredWeights(directory, dtype="float32") as weights:
        config, tokens = weights.config, batch.tokens_BT.size
        if (largest := int(batch.tokens_BT.max())) >= config.vocab_size:
            raise InputError(
                f"{directory}: vocab_size: expected more than the batch's largest token {largest}, "
                f"found {config.vocab_size}"
            )
        rates = [matmul_rate(config, tokens)]
        begin = time.perf_counter()
        ((found,),) = attribute_streamed(
            weights,
            [
                Work(
                    batch=batch,
                    weights_ABJ=(batch.weights_BJ,),
                    lengths=(batch.tokens_BT.shape[1],),
                )
            ],
            config=config,
            keep_layers=min(keep_layers, config.num_layers),
        )
        scores_BWR = np.asarray(found.scores_BWR)
        seconds = time.perf_counter() - begin
        rates.append(matmul_rate(config, tokens))
    rate = float(np.mean(rates))
    bound = 4 * config.num_parameters * tokens / rate
    return {
        "streamed_seconds": seconds,
        "matmul_gflops": rate / 1e9,
        "bound_seconds": bound,
        "streamed_over_bound": seconds / bound,
        "finite": float(np.isfinite(scores_BWR).all()),
    }


def bench_streamed(config: ModelConfig, scratch: Path, stream_command: list[str]) -> dict:
    """Write, copy, convert and attribute a random checkpoint in `scratch`; what exists is reused.

    Args:
      config: the model.
      scratch: a directory with three times the checkpoint's room.
      stream_command: a program that prints `stream_once`'s figures for a directory appended to it.

    Returns:
      figures; bytes are of peak resident memory.
    """
    source, copied, converted = scratch / "hf", scratch / "copy", scratch / "orbax"
    with tqdm(total=5, unit="step", desc="write") as steps:
        if not source.exists():
            write_random_checkpoint(source, config)
        _next(steps, "copy")
        shutil.rmtree(copied, ignore_errors=True)  # of a run that was killed
        copy_seconds, _, _ = run_measured(["cp", "-r", str(source), str(copied)])
        shutil.rmtree(copied)
        figures = {"copy_seconds": copy_seconds}
        _next(steps, "convert")
        if not converted.exists():
            convert = child_python.command("-m", "converters.convert", f"--checkpoint={source}")
            seconds, peak, _ = run_measured([*convert, f"--output={converted}"])
            figures |= {"convert_seconds": seconds, "convert_peak_bytes": peak}
            figures["convert_speed_over_copy"] = copy_seconds / seconds
        for name, directory in (("hf", source), ("orbax", converted)):
            _next(steps, f"stream {name}")
            _, peak, output = run_measured([*stream_command, str(directory)])
            found = json.loads(output.splitlines()[-1])
            figures |= {f"{name}_{key}": value for key, value in found.items()}
            figures[f"{name}_stream_peak_bytes"] = peak
        steps.update()
    return figures


def _next(steps: tqdm, name: str) -> None:
    steps.update()
    steps.set_description(name)
