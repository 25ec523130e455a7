"""A LoRA folder that peft writes, and our logits of a folder; for tests that need torch and peft."""

import functools
import json
import warnings

import jax
import numpy as np

from converters.load import load_checkpoint
from eap_jax.transformer import Transformer


def write_adapter(root, model, settings, *, pickled=False):
    """An adapter's folder beside its base's in `root`, every trained number random; and peft's model."""
    import peft
    import torch

    with warnings.catch_warnings():  # peft's own, about tied ends and fan_in_fan_out
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
        torch.manual_seed(0)
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn_like(parameter)
        wrapped.save_pretrained(
            root / "adapter", safe_serialization=not pickled, save_embedding_layers=False
        )
    change(root / "adapter", base_model_name_or_path=str(root / "base"))
    return root / "base", root / "adapter", wrapped.eval()


def change(folder, **keys):
    """Set keys of an adapter's settings."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@functools.partial(jax.jit, static_argnames="config")
def forward(params, tokens, *, config):
    return Transformer(config).apply({"params": params}, tokens).logits


def logits(folder, tokens):
    """Of a folder as this project loads it, [B, T, V]."""
    found = load_checkpoint(folder)
    config = found.config.for_length(tokens.shape[1])
    return np.asarray(forward(found.params, tokens, config=config))
