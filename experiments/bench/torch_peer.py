"""The same pass and the same decoding in PyTorch, as lean as its hooks allow; needs torch.

A transformers model with frozen parameters. Each branch read is a view of the stream whose gradient
hook contracts with all writes at once, so no read gradient outlives its hook; the output head runs
on the positions that carry loss only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import transformers

from converters import mapping
from converters.hf_config import to_hf_config
from eap_jax.config import ModelConfig
from eap_jax.objective import Batch


def torch_model(config: ModelConfig, params: dict) -> Any:
    """A frozen transformers model with our parameters, float32."""
    import torch

    data = to_hf_config(config, architecture="LlamaForCausalLM", dtype="float32")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**data)).eval()
    state = {}
    for entry in mapping.table(config):
        leaf = params[entry.name] if entry.layer is None else params["blocks"][entry.name]
        leaf = leaf if entry.layer is None else leaf[entry.layer]
        state[entry.hf_name] = torch.from_numpy(np.array(leaf).reshape(entry.hf_shape))
    model.load_state_dict(state)
    return model.requires_grad_(False)


class EdgeScores:
    """All edges of a transformers Llama by hooks, which stay on the model."""

    def __init__(self, model):
        self.model, body = model, model.model
        self._layers = len(body.layers)
        self._writes = self._scores = None
        self._hook(body.embed_tokens, None, lambda output: self._write(0, output, leaf=True))
        for n, layer in enumerate(body.layers):
            norm, attention, shared = layer.input_layernorm, layer.self_attn, {}
            self._before(norm, lambda stream, shared=shared: shared.update(stream=stream))
            for place, name in enumerate("qkv"):
                column = 4 * n + place
                projection = getattr(attention, f"{name}_proj")
                self._before(
                    projection,
                    lambda _, shared=shared, norm=norm, column=column: (
                        norm.forward(self._read(column, shared["stream"])),
                    ),
                )
            self._before(
                layer.post_attention_layernorm,
                lambda stream, column=4 * n + 3: (self._read(column, stream),),
            )
            self._hook(attention, 0, lambda write, n=n: self._write(1 + 2 * n, write))
            self._hook(layer.mlp, None, lambda write, n=n: self._write(2 + 2 * n, write))
        self._before(body.norm, lambda stream: (self._read(4 * self._layers, stream),))

    def __call__(self, batch: Batch) -> np.ndarray:
        """Scores [B, W, R] without the mask of existing edges."""
        import torch

        tokens = torch.from_numpy(np.array(batch.tokens_BT)).long()
        targets = torch.from_numpy(np.array(batch.targets_BJ)).long()
        weights = torch.from_numpy(np.array(batch.weights_BJ))
        rows, length = tokens.shape
        writers = 1 + 2 * self._layers
        width = self.model.config.hidden_size
        self._writes = torch.zeros(rows, writers, length, width)
        self._scores = torch.zeros(rows, writers, 1 + 4 * self._layers)
        kept = targets.shape[1]  # the loss is on the last positions of every row
        logits = self.model(tokens, use_cache=False, logits_to_keep=kept).logits
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none"
        )
        (losses.view(rows, kept) * weights).sum().backward()
        return self._scores.numpy()

    def _write(self, place: int, output, leaf: bool = False):
        if leaf:
            output = output.detach().requires_grad_(True)
        self._writes[:, place] = output.detach()
        return output if leaf else None

    def _read(self, column: int, stream):
        read = stream.view_as(stream)

        def contract(gradient) -> None:
            flat = self._writes.flatten(2)
            self._scores[:, :, column] = -(flat @ gradient.flatten(1)[:, :, None])[..., 0]

        read.register_hook(contract)
        return read

    def _before(self, module, act: Callable) -> None:
        def hook(_, inputs):
            found = act(inputs[0])
            return found if isinstance(found, tuple) else None

        module.register_forward_pre_hook(hook)

    def _hook(self, module, item: int | None, act: Callable) -> None:
        def hook(_, inputs, output):
            return act(output if item is None else output[item])

        module.register_forward_hook(hook)


def generate(model, prompts_BT: np.ndarray, new_tokens: int) -> np.ndarray:
    """Greedy continuation of equally long prompts by transformers' own `generate`, [B, new]."""
    import torch

    tokens = torch.from_numpy(np.array(prompts_BT)).long()
    with torch.no_grad():
        whole = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new_tokens,
            min_new_tokens=new_tokens, do_sample=False, pad_token_id=0,
        )  # fmt: skip
    return whole[:, tokens.shape[1] :].numpy()


def generate_mixed(model, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """Greedy continuations of unequal prompts by transformers' own `generate`.

    Args:
      model: from `torch_model`.
      prompts: token ids, padded on the left here.
      lengths: tokens after which each row is done; the others go on.

    Returns:
      ids of each row, at least as many as its length.
    """
    import torch

    width = max(map(len, prompts))
    tokens = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    ends = width + torch.tensor(lengths)

    def done(ids, _, **__):
        return ids.shape[1] >= ends

    with torch.no_grad():
        whole = model.generate(
            tokens, attention_mask=mask, max_new_tokens=max(lengths), do_sample=False,
            pad_token_id=0, eos_token_id=None,
            stopping_criteria=transformers.StoppingCriteriaList([done]),
        )  # fmt: skip
    return whole[:, width:].tolist()
