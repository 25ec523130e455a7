"""Small models' programs compiled for GPUs that are not there, in a process of their own.

python gpu_probe.py FOLDER      writes FOLDER/<mesh>_<program>.txt, prints a JSON line for each mesh
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax

from eap_jax.config import ModelConfig
from experiments.bench import gpu_compile, gpu_programs
from experiments.bench.gpu_lowered import Lowered
from experiments.study.footprint import (
    Placed,
    Scored,
    attribution_needs,
    decode_needs,
    prefill_needs,
)

# Two layers of a 7B model's width, and a narrow one for what takes long to compile.
WIDE = ModelConfig(
    vocab_size=32000, num_layers=2, d_model=4096, d_ff=11008, num_heads=32, num_kv_heads=32,
    head_dim=128, norm_eps=1e-6, rope_theta=10000.0,
)  # fmt: skip
NARROW = dataclasses.replace(
    WIDE, vocab_size=8192, d_model=1024, d_ff=2816, num_heads=8, num_kv_heads=8
)
DECODED = {"rows": 16, "slots": 512}
READ = {"rows": 8, "width": 64}
BATCH = Scored(rows=8, length=64, targets=32, most_logits=2**20)
KINDS = {
    "attribute": {},
    "attribute_remat": {"remat": True},
    "attribute_alphas": {"losses": 2},
}
MESHES = {
    "": ("prefill", "decode", *KINDS),
    "data:2": ("prefill", "decode", "attribute", "attribute_alphas"),
    "model:2": ("decode", "attribute", "attribute_remat"),
}


def programs(target: gpu_compile.Target, mesh: str):
    """What is compiled for a mesh."""
    wide, narrow = (
        Placed(config=config, dtype="bfloat16", mesh=target.mesh) for config in (WIDE, NARROW)
    )
    common = {"dtype": "bfloat16", "beside": 0}
    for name in MESHES[mesh]:
        if name == "prefill":
            yield Lowered(
                program=name, rows=READ["rows"], length=READ["width"], **common,
                planned=prefill_needs(narrow, **READ),
                lower=lambda: gpu_programs.lower_prefill(narrow, **READ),
            )  # fmt: skip
        elif name == "decode":
            yield Lowered(
                program=name, rows=DECODED["rows"], length=DECODED["slots"], **common,
                planned=decode_needs(wide, **DECODED),
                lower=lambda: gpu_programs.lower_decode(wide, **DECODED),
            )  # fmt: skip
        else:
            batch = dataclasses.replace(BATCH, **KINDS[name])
            yield Lowered(
                program=name, rows=batch.rows, length=batch.length, **common,
                planned=attribution_needs(narrow, batch),
                lower=lambda batch=batch: gpu_programs.lower_attribution(narrow, batch),
            )  # fmt: skip


def main(folder: Path) -> None:
    for mesh in MESHES:
        cards = f"h100:{2 if mesh else 1}"
        name = mesh.partition(":")[0] or "one"
        target = gpu_compile.target_of(cards, mesh)

        def keep(program: str, text: str, name: str = name) -> None:
            (folder / f"{name}_{program}.txt").write_text(text)

        found = gpu_compile.compile_all(target, programs(target, mesh), keep)
        print(json.dumps(found | {"mesh": name}), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "default")
    main(Path(sys.argv[1]))
