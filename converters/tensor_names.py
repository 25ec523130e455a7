"""Names that wrappers write into checkpoints -> Hugging Face's, and tensors that are no weights.

Training programs save a model inside others: DataParallel, torch.compile, FSDP, PEFT, TRL's model with
a value head, a model with pictures around its language model. Each puts a word before the names.
"""

import re
from collections.abc import Iterable

EMBED = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

# These stand before a name or inside it.
_WRAPPED = re.compile(
    r"(?:^|(?<=\.))(?:_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\."
)
# These stand before all names or none.
_BEFORE = ("module.", "base_model.model.", "pretrained_model.", "language_model.", "actor.")
_NEW_BEFORE = "model.language_model."
# What a model without its head is saved as; transformers puts the word before it.
_BODY = re.compile(r"(?:layers\.\d+|embed_tokens|norm)\.")
_LEFT_OUT = {
    "a value head": re.compile(
        r"(?:.*\.)?(?:v_head|value_head|score|critic|critic_head|reward_head)\..*"
    ),
    "rotary tables": re.compile(
        r"(?:.*\.)?rotary_emb(?:_local)?\.(?:inv_freq|original_inv_freq|cos_cached|sin_cached)"
    ),
    "attention masks": re.compile(r"(?:.*\.)?(?:self_)?attn\.(?:masked_bias|bias|causal_mask)"),
}


def left_out(name: str) -> str | None:
    """What a tensor is that the model does not compute with, or None."""
    return next((kind for kind, names in _LEFT_OUT.items() if names.fullmatch(name)), None)


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Hugging Face's name of each tensor, by the name that it has.

    A prefix goes where all tensors share it, those that are left out aside.
    """
    plain = {name: _WRAPPED.sub("", name) for name in names}
    weights = {name for name in plain if left_out(plain[name]) is None}
    while weights:
        shared = [word for word in _BEFORE if all(plain[name].startswith(word) for name in weights)]
        if not shared:
            break
        plain = {
            name: _WRAPPED.sub("", found.removeprefix(shared[0])) for name, found in plain.items()
        }
    if any(plain[name].startswith(_NEW_BEFORE) for name in weights) and not any(
        plain[name].startswith(("model.layers.", "model.embed_tokens.")) for name in weights
    ):
        plain = {
            name: re.sub(rf"^{re.escape(_NEW_BEFORE)}", "model.", found)
            for name, found in plain.items()
        }
    if weights and all(_BODY.match(plain[name]) or plain[name] == HEAD for name in weights):
        plain = {
            name: f"model.{found}" if _BODY.match(found) else found for name, found in plain.items()
        }
    return plain
