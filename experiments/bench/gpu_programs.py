"""Every program of a study as shapes on a mesh, in the sizes that the plan gives: what
`gpu_compile` compiles."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from eap_jax.attribution import attribute_prefixes
from eap_jax.block import Cache
from eap_jax.config import ModelConfig
from eap_jax.decoding import Rows, decode, prefill
from eap_jax.sampling import Sampling
from eap_jax.sharding import decoding_layout, layout, row_sharding
from experiments.bench.gpu_fidelity import fidelity_programs
from experiments.bench.gpu_lowered import (
    Lowered,
    parameters,
    rows_of,
    separate_parameters,
    text_batch,
)
from experiments.bench.programs import ALPHAS
from experiments.study.footprint import Placed, Scored, cache_bytes
from experiments.study.forecast import COUNTED, PROMPT, TEXT
from experiments.study.numerics import product_precision, use_numerics, weight_dtype
from experiments.study.pairs import REGISTERED_DTYPE, SHAPES
from experiments.study.plan import plan_answers, plan_scores
from experiments.study.settings import Study

_KEY = jax.eval_shape(lambda: jax.random.key(0)).dtype


def study_programs(
    study: Study, mesh: jax.sharding.Mesh, usable: int, layers: int | None = None
) -> Iterator[Lowered]:
    """All programs of a study.

    Args:
      study: of a registered pair.
      mesh: of devices that need not exist.
      usable: bytes of each that arrays may take.
      layers: depth, instead of the pair's.
    """
    config = SHAPES[study.pair.key]
    if layers is not None:
        config = of_depth(config, layers)
    jax.config.update("jax_default_matmul_precision", product_precision(REGISTERED_DTYPE))
    yield from answer_programs(study, config, mesh, usable)
    use_numerics(study.numerics)
    yield from score_programs(study, config, mesh, usable)
    yield from fidelity_programs(study, config, mesh, usable)


def of_depth(config: ModelConfig, layers: int) -> ModelConfig:
    """The shape with fewer or more layers, which go on as they began."""
    each = {
        name: of_layers and (of_layers * layers)[:layers]
        for name in ("layer_windows", "layer_rotary")
        for of_layers in [getattr(config, name)]
    }
    return dataclasses.replace(config, num_layers=layers, **each)


def answer_programs(
    study: Study, config: ModelConfig, mesh: jax.sharding.Mesh, usable: int
) -> Iterator[Lowered]:
    """Reading some prompts, and decoding all rows with the largest cache."""
    model = Placed(config=config, dtype=REGISTERED_DTYPE, mesh=mesh)
    planned = plan_answers(
        model,
        usable,
        width=PROMPT,
        new_tokens=study.pair.max_new_tokens,
        most_rows=study.batch_answers,
    )
    beside = cache_bytes(model, planned.rows, planned.slots)
    common = {"dtype": model.dtype}
    yield Lowered(
        program="prefill",
        rows=planned.entering,
        length=planned.width,
        planned=planned.prefill,
        beside=beside,
        lower=lambda: lower_prefill(model, planned.entering, planned.width),
        **common,
    )
    yield Lowered(
        program="decode",
        rows=planned.rows,
        length=planned.slots,
        planned=planned.decode,
        beside=0,
        lower=lambda: lower_decode(model, planned.rows, planned.slots),
        **common,
    )


def lower_prefill(model: Placed, rows: int, width: int) -> jax.stages.Lowered:
    """Reading prompts of `width` slots; see `eap_jax.decoding.prefill`."""
    array = rows_of(model, rows)
    return prefill.lower(
        separate_parameters(model),
        array((width,), jnp.int32),
        array((), jnp.int32),
        array((), _KEY),
        config=model.config,
        sampling=Sampling(max_new_tokens=1, stop_tokens=(1,)),
        layout=decoding_layout(model.config, model.mesh),
    )


def lower_decode(model: Placed, rows: int, slots: int) -> jax.stages.Lowered:
    """Decoding with a cache of `slots`; see `eap_jax.decoding.decode`."""
    config, layout = model.config, decoding_layout(model.config, model.mesh)
    array = rows_of(model, rows)
    cache = jax.ShapeDtypeStruct(
        (rows, config.num_kv_heads, slots, config.head_dim),
        model.dtype,
        sharding=row_sharding(model.mesh) if layout is None else layout.cache,
    )
    count = array((), jnp.int32)
    return decode.lower(
        separate_parameters(model),
        (Cache(k_BKSH=cache, v_BKSH=cache),) * config.num_layers,
        Rows(last_B=count, start_B=count, left_B=count, keys_B=array((), _KEY)),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.int32),
        config=config,
        sampling=Sampling(max_new_tokens=1, stop_tokens=(1,)),
        layout=layout,
    )


def score_programs(
    study: Study, config: ModelConfig, mesh: jax.sharding.Mesh, usable: int
) -> Iterator[Lowered]:
    """Attribution with activations kept, computed twice, and of four losses together."""
    model = Placed(config=config, dtype=weight_dtype(study.numerics), mesh=mesh)
    common = {"length": TEXT, "targets": COUNTED, "most_tokens": study.batch_tokens}
    kinds = {
        "attribute": {"remat": False},
        "attribute_remat": {"remat": True},
        "attribute_alphas": {"losses": len(ALPHAS)},
    }
    for name, kind in kinds.items():
        planned = plan_scores(model, usable, **common, **kind)
        yield Lowered(
            program=name,
            rows=planned.batch.rows,
            length=TEXT,
            dtype=model.dtype,
            planned=planned.needs,
            beside=0,
            lower=lambda batch=planned.batch: lower_attribution(model, batch),
        )


def lower_attribution(model: Placed, sizes: Scored) -> jax.stages.Lowered:
    """Attribution of one batch, for the last `sizes.losses` of `ALPHAS`."""
    batch = text_batch(model, sizes)
    # The mean answer is twice the targets long, as in the bench's own comparison.
    cuts = [int(alpha * 2 * sizes.targets) for alpha in ALPHAS[-sizes.losses :]]
    prompt = sizes.length - sizes.targets
    return attribute_prefixes.lower(
        parameters(model),
        batch,
        (batch.weights_BJ,) * sizes.losses,
        lengths=tuple(prompt + cut for cut in cuts),
        config=model.config,
        remat=sizes.remat,
        layout=layout(model.mesh, sizes.length),
        most_logits=sizes.most_logits,
    )
