"""What cuts and circuits are planned to need is what the compiler says."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from eap_jax.ablation import losses_at_head, resume, run_whole
from eap_jax.circuit import circuit_losses
from eap_jax.config import ModelConfig
from eap_jax.objective import Batch, self_entropy
from eap_jax.parameters import parameter_shapes
from eap_jax.sharding import abstract_mesh
from experiments.study import fidelity_footprint
from experiments.study.fidelity_footprint import Run
from experiments.study.footprint import WORKSPACE, Needs, Placed

pytestmark = pytest.mark.usefixtures("optimised")

# So many tokens that a layer's weights, of which a CPU makes a copy, are next to nothing; the largest
# arrays of a layer are its MLP's in the one, its attention's in the other.
MLP = ModelConfig(
    vocab_size=512, num_layers=6, d_model=64, d_ff=192, num_heads=1, num_kv_heads=1, head_dim=64,
    norm_eps=1e-6, rope_theta=10000.0,
)  # fmt: skip
ATTENTION = dataclasses.replace(MLP, d_ff=64, num_heads=2, num_kv_heads=2)
ROWS, LENGTH, TARGETS = 32, 64, 16


def array(*shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def parameters(config: ModelConfig):
    shapes = parameter_shapes(config)
    return jax.tree.map(lambda s: array(*s), shapes, is_leaf=lambda s: isinstance(s, tuple))


BATCH = Batch(
    tokens_BT=array(ROWS, LENGTH, dtype=jnp.int32),
    positions_BJ=array(ROWS, TARGETS, dtype=jnp.int32),
    targets_BJ=array(ROWS, TARGETS, dtype=jnp.int32),
    weights_BJ=array(ROWS, TARGETS),
)


def compiled_bytes(lowered: jax.stages.Lowered) -> int:
    """Of what a program holds; a parameter that it does not use is none of its arguments."""
    memory = lowered.compile().memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def planned_bytes(needs: Needs) -> int:
    """Without what a GPU's matrix products work in."""
    return needs.total - WORKSPACE


def setting(config: ModelConfig, edges: int = 1) -> tuple[Placed, Run]:
    model = Placed(config=config, dtype="float32", mesh=abstract_mesh(""))
    run = Run(rows=ROWS, length=LENGTH, targets=TARGETS, most_logits=2**20, edges=edges)
    return model, run


@pytest.mark.parametrize("edges", [1, 4])
@pytest.mark.parametrize("config", [MLP, ATTENTION], ids=["mlp", "attention"])
def test_cuts_need_what_the_compiler_says(config, edges):
    params = parameters(config)
    whole = run_whole.lower(params, BATCH, config)
    texts = jax.eval_shape(lambda *args: run_whole(*args, config), params, BATCH)
    places = array(edges, dtype=jnp.int32)
    cut = resume.lower(
        params, texts, places, places, array(dtype=jnp.int32), array(), config=config
    )
    found = max(compiled_bytes(whole), compiled_bytes(cut))
    planned = planned_bytes(fidelity_footprint.cut_needs(*setting(config, edges)))
    assert planned == pytest.approx(found, rel=0.15), planned / found


def test_losses_of_cuts_need_what_the_compiler_says():
    """Of a vocabulary whose logits, all at once, are most of it."""
    config, edges = dataclasses.replace(MLP, vocab_size=4096, num_layers=1), 4
    last_EBTD = array(edges, ROWS, LENGTH, config.d_model)
    model, run = setting(config, edges)
    run = dataclasses.replace(run, most_logits=ROWS * TARGETS * config.vocab_size)
    lowered = losses_at_head.lower(
        parameters(config), BATCH, last_EBTD,
        config=config, objective=self_entropy, most_logits=run.most_logits,
    )  # fmt: skip
    needs = fidelity_footprint.cut_programs(model, run)["losses_at_head"]
    blocks = sum(math.prod(shape) for shape in parameter_shapes(config)["blocks"].values())
    beside = needs.writes + needs.activations + 4 * (blocks + config.vocab_size * config.d_model)
    planned = planned_bytes(needs) - beside
    assert planned == pytest.approx(compiled_bytes(lowered), rel=0.15)


@pytest.mark.parametrize("config", [MLP, ATTENTION], ids=["mlp", "attention"])
def test_circuits_need_what_the_compiler_says(config):
    layers = config.num_layers
    kept_BWR = array(ROWS, 1 + 2 * layers, 1 + 4 * layers, dtype=jnp.bool_)
    means_WD = array(1 + 2 * layers, config.d_model)
    lowered = circuit_losses.lower(parameters(config), BATCH, kept_BWR, means_WD, config=config)
    planned = planned_bytes(fidelity_footprint.circuit_needs(*setting(config)))
    assert planned == pytest.approx(compiled_bytes(lowered), rel=0.15)
