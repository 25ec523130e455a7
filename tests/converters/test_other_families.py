"""A model of another family is refused by its name, with what is read and why it is not."""

import importlib.util
import re
from pathlib import Path

import pytest
from real_configs import REFUSED

from converters.errors import CheckpointError
from converters.families import FAMILIES
from converters.hf_config import parse_config
from converters.other_families import BY_MODEL_TYPE


@pytest.mark.parametrize("name", REFUSED)
def test_another_family_is_refused_by_its_name_and_with_the_reason(name):
    data, reason = REFUSED[name]
    with pytest.raises(CheckpointError) as error:
        parse_config(data, "here/config.json")
    message = str(error.value)
    assert message.startswith("here/config.json: ")
    assert "\n" not in message
    named = data.get("architectures") or [data.get("model_type", "None")]
    expected = [*named, *FAMILIES, reason]
    assert [word for word in expected if word not in message] == []


# Words of a family's code that a reason rests on, and words that would make it false.
EVIDENCE = {
    "mixtures of experts": (r"[Ee]xperts", None),
    "normalises with LayerNorm": (r"LayerNorm", r"RMSNorm\("),
    "ALiBi": (r"alibi", None),
    "absolute embeddings": (r"wpe|embed_positions|position(s|al)?_embed", r"apply_rotary"),
    "same stream in parallel": (
        r"parallel_residual|parallel_attn|residual \+ \w+ \+ \w+|\w+ \+ \w+ \+ residual", None,
    ),
    "latent attention": (r"kv_lora_rank", None),
    "rotates neighbouring numbers": (r"repeat_interleave\(2", None),
    "not all attention": (r"Mamba|RwkvLinear|RecurrentBlock|GatedDeltaNet", None),
    "layers attend in chunks": (r"chunked_attention", None),
    "norms of q and k within heads": (r"k_norm = \w+\(self\.head_dim", None),
    "scaled with their position": (r"llama_4_scaling", None),
    "layer_types says": (r"layer_types\[layer_idx\]", None),
    "stream has several copies": (r"altup", None),
}  # fmt: skip


@pytest.mark.parametrize("model_type", BY_MODEL_TYPE)
def test_what_is_said_of_a_family_stands_in_its_code(model_type):
    """As transformers has it installed: read as text, nothing is imported."""
    reason = BY_MODEL_TYPE[model_type]
    models = Path(importlib.util.find_spec("transformers").origin).parent / "models"
    folder = {"openai-gpt": "openai", "gemma3n_text": "gemma3n", "llama4_text": "llama4"}.get(
        model_type, model_type
    )
    files = [*(models / folder).glob("modeling_*.py")]
    if "not part of transformers" in reason:
        assert not files
        return
    code = "".join(file.read_text() for file in files)
    assert code, "a family that transformers does not have"
    for words, (needed, against) in EVIDENCE.items():
        if words in reason:
            assert re.search(needed, code), words
            assert against is None or not re.search(against, code), words
