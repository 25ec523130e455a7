"""What is cut is a matter of counting operations, the same on every machine, and kept."""

import json

import numpy as np
import pytest
import toys

from eap_jax.batching import Text
from eap_jax.config import ModelConfig
from eap_jax.graph import edge_mask, num_edges, reader_kinds
from experiments.errors import InputError
from experiments.fidelity import choice
from experiments.scoring.cells import Cell
from experiments.study.rule import Rule

# SmolLM2-135M, 100 texts of 80 tokens: 3 attributions pay for about 1,150 cuts of one text.
DEEP = ModelConfig(
    num_layers=30, d_model=576, num_heads=9, num_kv_heads=3, head_dim=64, d_ff=1536,
    vocab_size=49152, rope_theta=1e5, norm_eps=1e-5,
)  # fmt: skip
TEXTS = [Text(tokens=(1,) * 80, targets=(1,) * 10)] * 100


def test_a_small_model_is_cut_whole():
    config = toys.MAIN
    texts = [Text(tokens=(1,) * 60, targets=(1,) * 10)] * 100
    found = choice.affordable_choice(config, texts, seed=42)
    assert found == choice.whole_choice(config, 100)
    assert (found.every, len(found.edges)) == (True, num_edges(config.num_layers))


def test_a_deep_model_is_sampled_for_the_cost_of_three_attributions():
    found = choice.affordable_choice(DEEP, TEXTS, seed=42)
    assert found == choice.affordable_choice(DEEP, TEXTS, seed=42)
    assert found != choice.affordable_choice(DEEP, TEXTS, seed=43)
    assert list(found.rows) == sorted(set(found.rows))
    assert not found.every
    # Two operations a weight and token forward, two back; a cut goes forward from its reader's layer.
    block = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576
    head = 49152 * 576 * 10
    attribution = 4 * (30 * block * 80 + head) * 100
    cuts = sum(2 * ((30 - min(r // 4, 30)) * block * 80 + head) for _, r in found.edges)
    assert 0.5 < cuts * len(found.rows) / (3 * attribution) < 1.5
    assert len(found.rows) >= 4


@pytest.mark.parametrize("count", [5, 40, 1000])
def test_sampled_edges_exist_once_and_every_kind_of_reader_is_there(count):
    found = choice.stratified_edges(30, count, np.random.default_rng(0))
    assert len(set(found)) == len(found) == count
    mask_WR, kinds = edge_mask(30), reader_kinds(30)
    assert all(mask_WR[place] for place in found)
    assert {kinds[reader] for _, reader in found} == set(kinds)
    if count == 40:  # kinds in turn: 8 each
        assert all(sum(kinds[r] == kind for _, r in found) == 8 for kind in set(kinds))


def test_asking_for_more_edges_than_there_are_gives_all():
    assert len(choice.stratified_edges(2, 10**6, np.random.default_rng(0))) == num_edges(2)


def test_distances_count_the_parts_between():
    groups_WR = choice.distance_groups(4)
    labels = {(1, 3): "0", (0, 4): "1 to 2", (2, 4): "0", (0, 16): "5 to 8", (5, 16): "3 to 4"}
    for place, label in labels.items():
        assert choice.distance_label(groups_WR[place]) == label
    assert (groups_WR[~edge_mask(4)] == -1).all()


def test_a_choice_is_kept_and_another_one_refused(tmp_path):
    cell = Cell(dataset="math", rule=Rule(alpha=0.3), selection=None, directory=tmp_path)
    assert choice.kept_choice(cell, DEEP) is None
    for made in (choice.affordable_choice(DEEP, TEXTS, 1), choice.whole_choice(DEEP, 3)):
        (tmp_path / "fidelity_plan.json").unlink(missing_ok=True)
        choice.keep_choice(cell, made)
        choice.keep_choice(cell, made)
        assert choice.kept_choice(cell, DEEP) == made
    with pytest.raises(InputError, match="fidelity_plan.json: holds results of other settings"):
        choice.keep_choice(cell, choice.whole_choice(DEEP, 4))
    (tmp_path / "fidelity_plan.json").write_text(json.dumps({"rows": [0]}))
    with pytest.raises(InputError, match="expected rows and edges"):
        choice.kept_choice(cell, DEEP)
