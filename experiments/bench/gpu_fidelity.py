"""The programs of exact cuts and circuits as shapes on a mesh, in the sizes that the plan gives.

Weights and the texts' whole run lie on the device while edges are cut. A program takes only some of
them as arguments; the others lie beside it.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from eap_jax.ablation import WholeRun, losses_at_head, resume, run_whole
from eap_jax.circuit import circuit_losses
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_mask
from eap_jax.objective import self_entropy
from eap_jax.parameters import head_name
from eap_jax.sharding import row_sharding
from experiments.bench.gpu_lowered import Lowered, parameters, share_bytes, text_batch
from experiments.study.fidelity_footprint import Run, circuit_needs, cut_programs
from experiments.study.fidelity_plan import plan_circuits, plan_cuts
from experiments.study.footprint import Placed
from experiments.study.forecast import COUNTED, TEXT
from experiments.study.numerics import weight_dtype
from experiments.study.settings import Study


def fidelity_programs(
    study: Study, config: ModelConfig, mesh: jax.sharding.Mesh, usable: int
) -> Iterator[Lowered]:
    """Edges cut exactly, and circuits."""
    model = Placed(config=config, dtype=weight_dtype(study.numerics), mesh=mesh)
    common = {"length": TEXT, "targets": COUNTED, "most_tokens": study.batch_tokens}
    yield from lowered_cuts(model, plan_cuts(model, usable, **common).batch)
    yield lowered_circuit(model, plan_circuits(model, usable, **common).batch)


def lowered_cuts(model: Placed, run: Run) -> Iterator[Lowered]:
    """The texts run whole, `run.edges` cuts of each resumed, and their losses."""
    params, texts = parameters(model), whole_run(model, run)
    read = {
        "run_whole": ("embed", "blocks"),
        "resume": ("blocks",),
        "losses_at_head": ("final_norm", head_name(model.config)),
    }
    unread = {
        "run_whole": (),
        "resume": (texts.last_BTD,),
        "losses_at_head": texts,
    }
    lower: dict[str, Callable[[Placed, Run], jax.stages.Lowered]] = {
        "run_whole": lower_whole,
        "resume": lower_resume,
        "losses_at_head": lower_losses,
    }
    for name, planned in cut_programs(model, run).items():
        others = {part: value for part, value in params.items() if part not in read[name]}
        yield Lowered(
            program=name,
            rows=run.rows * (1 if name == "run_whole" else run.edges),
            length=run.length,
            dtype=model.dtype,
            planned=planned,
            beside=share_bytes((others, unread[name])),
            lower=lambda make=lower[name]: make(model, run),
        )


def lowered_circuit(model: Placed, run: Run) -> Lowered:
    """A circuit of every text of a batch."""
    return Lowered(
        program="circuit",
        rows=run.rows,
        length=run.length,
        dtype=model.dtype,
        planned=circuit_needs(model, run),
        beside=0,
        lower=lambda: lower_circuit(model, run),
    )


def whole_run(model: Placed, run: Run) -> WholeRun:
    """What cuts resume from; its rows are where the texts' are."""
    config = model.config

    def array(*before: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            (*before, run.rows, run.length, config.d_model),
            model.dtype,
            sharding=row_sharding(model.mesh, axis=len(before)),
        )

    return WholeRun(
        streams_LBTD=array(config.num_layers),
        last_BTD=array(),
        writes_WBTD=array(1 + 2 * config.num_layers),
    )


def lower_whole(model: Placed, run: Run) -> jax.stages.Lowered:
    """See `eap_jax.ablation.run_whole`."""
    return run_whole.lower(parameters(model), text_batch(model, run), config=model.config)


def lower_resume(model: Placed, run: Run) -> jax.stages.Lowered:
    """See `eap_jax.ablation.resume`; numbers of edges come from the host, as there."""
    edges = jax.ShapeDtypeStruct((run.edges,), jnp.int32)
    # A Python number: of a type that gives way, so that bfloat16 stays.
    first, share = (
        jax.ShapeDtypeStruct((), dtype, weak_type=True) for dtype in (jnp.int32, jnp.float32)
    )
    return resume.lower(
        parameters(model), whole_run(model, run), edges, edges, first, share, config=model.config
    )


def lower_losses(model: Placed, run: Run) -> jax.stages.Lowered:
    """See `eap_jax.ablation.losses_at_head`."""
    last_EBTD = jax.ShapeDtypeStruct(
        (run.edges, run.rows, run.length, model.config.d_model),
        model.dtype,
        sharding=row_sharding(model.mesh, axis=1),
    )
    return losses_at_head.lower(
        parameters(model),
        text_batch(model, run),
        last_EBTD,
        config=model.config,
        objective=self_entropy,
        most_logits=run.most_logits,
    )


def lower_circuit(model: Placed, run: Run) -> jax.stages.Lowered:
    """See `eap_jax.circuit.circuit_losses`; edges and means come from the host, as there."""
    writers, readers = edge_mask(model.config.num_layers).shape
    return circuit_losses.lower(
        parameters(model),
        text_batch(model, run),
        jax.ShapeDtypeStruct((run.rows, writers, readers), jnp.bool_),
        jax.ShapeDtypeStruct((writers, model.config.d_model), jnp.float32),
        config=model.config,
        most_logits=run.most_logits,
    )
