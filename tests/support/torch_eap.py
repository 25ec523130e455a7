"""Edge attribution patching in PyTorch, written from the definition: the engine's oracle.

Runs on an unchanged transformers model. Hooks add a zero leaf tensor to what each branch reads (q, k
and v get copies of their own of the attention's input) and record what is added to the stream: a
branch's output, behind its last norm and multiplied where the model does so. Which modules those are
is read off the model: a layer with `post_feedforward_layernorm` normalises what it writes, one without
`input_layernorm` nothing that it reads. Slow and literal on purpose: one text at a time, all read
gradients kept, a Python loop over edges.
"""

import dataclasses

import torch
from toys import Text


@dataclasses.dataclass
class Run:
    """One forward pass over one text.

    Attributes:
      writes: writer name -> [T, D], in writing order.
      reads: reader name -> what the branch reads before its norm, [T, D].
      taps: reader name -> zero leaf that was added to the read, [T, D].
      seen: reader name -> names of the writers that had written when it read.
      written: writer name -> zero leaf that was added to its write where it enters the stream.
      logits: [T, V].
    """

    writes: dict
    reads: dict
    taps: dict
    seen: dict
    written: dict
    logits: torch.Tensor


Edge = tuple[str, str]


def run(
    model,
    tokens,
    cut: Edge | None = None,
    kept: set[Edge] | None = None,
    means: dict | None = None,
    share: float = 1.0,
) -> Run:
    """Forward pass with hooks.

    `cut` (writer, reader) takes a share of that write out of that read; with `kept`, a reader reads
    the sum of the writes that the kept edges bring it, and of the others' `means` where these are
    given, and nothing else.
    """
    state = Run(writes={}, reads={}, taps={}, seen={}, written={}, logits=None)
    handles = []

    def write(name, factor=1.0):
        """Of a module whose output times the factor is added to the stream."""

        def hook(module, inputs, output):
            write_BTD, *rest = output if isinstance(output, tuple) else (output,)
            state.writes[name] = factor * write_BTD[0]
            state.written[name] = torch.zeros_like(write_BTD[0], requires_grad=True)
            write_BTD = write_BTD + state.written[name] / factor
            return (write_BTD, *rest) if isinstance(output, tuple) else write_BTD

        return hook

    def read(name, stream_TD):
        state.taps[name] = torch.zeros_like(stream_TD, requires_grad=True)
        state.reads[name] = stream_TD
        state.seen[name] = list(state.writes)
        tapped = stream_TD + state.taps[name]
        if cut is not None and cut[1] == name:
            tapped = tapped - share * state.writes[cut[0]]
        if kept is not None:
            tapped = torch.zeros_like(stream_TD)
            for writer in state.seen[name]:
                if (writer, name) in kept:
                    tapped = tapped + state.writes[writer]
                elif means is not None:
                    tapped = tapped + means[writer]
        return tapped

    def read_at(name):
        return lambda module, inputs: (read(name, inputs[0][0])[None],)

    def read_of_projection(name, norm, streams, layer):
        # The projection gets the norm of its own copy of the stream instead of the shared one.
        return lambda module, inputs: (norm(read(name, streams[layer])[None]),)

    def reads_of_joined(layer, norm, streams, ends):
        """Queries, keys and values of one projection, each of its own copy of the stream."""

        def hook(module, inputs, output):
            parts = []
            for x, first, end in zip("qkv", (0, *ends), (*ends, None), strict=True):
                own = norm(read(f"a{layer}<{x}>", streams[layer])[None])
                parts.append(module.forward(own)[..., first:end])
            return torch.cat(parts, dim=-1)

        return hook

    def remember(streams, layer):
        def hook(module, inputs):
            streams[layer] = inputs[0][0]

        return hook

    body, streams = model.model, {}
    factor = getattr(body, "embedding_multiplier", 1.0)
    handles.append(body.embed_tokens.register_forward_hook(write("input", factor)))
    for n, layer in enumerate(body.layers):
        attention, parts = layer.self_attn, dict(layer.named_children())
        norm = parts["input_layernorm"].forward if "input_layernorm" in parts else lambda x: x
        handles.append(layer.register_forward_pre_hook(remember(streams, n)))
        if hasattr(attention, "qkv_proj"):
            queries = model.config.num_attention_heads * attention.head_dim
            ends = queries, queries + model.config.num_key_value_heads * attention.head_dim
            hook = reads_of_joined(n, norm, streams, ends)
            handles.append(attention.qkv_proj.register_forward_hook(hook))
        for x in "qkv" if hasattr(attention, "q_proj") else "":
            projection = getattr(attention, f"{x}_proj")
            hook = read_of_projection(f"a{n}<{x}>", norm, streams, n)
            handles.append(projection.register_forward_pre_hook(hook))
        factor = getattr(layer, "residual_multiplier", 1.0)
        if "post_feedforward_layernorm" in parts:
            writers = layer.post_attention_layernorm, layer.post_feedforward_layernorm
            mlp_reader = parts.get("pre_feedforward_layernorm", layer.mlp)
        else:
            writers, mlp_reader = (attention, layer.mlp), layer.post_attention_layernorm
        handles.append(mlp_reader.register_forward_pre_hook(read_at(f"m{n}")))
        for name, module in zip((f"a{n}", f"m{n}"), writers, strict=True):
            handles.append(module.register_forward_hook(write(name, factor)))
    handles.append(body.norm.register_forward_pre_hook(read_at("logits")))
    try:
        state.logits = model(torch.tensor([list(tokens)]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return state


def loss_of(model, text: Text, *args, **options) -> tuple[torch.Tensor, Run]:
    """Self-entropy of the answer: mean over its tokens of -log softmax(logits)[token].

    Further arguments are those of `run`.
    """
    state = run(model, text.prompt + text.answer[:-1], *args, **options)
    logits = state.logits[len(text.prompt) - 1 :]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(text.answer)), state


def mean_writes(model, texts: list[Text]) -> dict[str, torch.Tensor]:
    """Mean over texts of each writer's mean write over the text's tokens, [D], by writer name."""
    means = []
    with torch.no_grad():
        for text in texts:
            writes = run(model, text.prompt + text.answer[:-1]).writes
            means.append({name: write_TD.mean(dim=0) for name, write_TD in writes.items()})
    return {name: sum(mean[name] for mean in means) / len(means) for name in means[0]}


def tap_gradients(model, text: Text) -> tuple[dict, Run, float]:
    """Gradient of the loss with respect to each branch read, by reader name, [T, D] each."""
    loss, state = loss_of(model, text)
    gradients = torch.autograd.grad(loss, list(state.taps.values()))
    return dict(zip(state.taps, gradients, strict=True)), state, float(loss.detach())


def edge_scores(model, text: Text) -> tuple[dict[tuple[str, str], float], float]:
    """Score of every edge, by (writer, reader), and the loss.

    An edge exists iff the writer ran before the reader read; that is observed, not computed.
    """
    gradients, state, loss = tap_gradients(model, text)
    scores = {}
    for reader, gradient in gradients.items():
        for writer in state.seen[reader]:
            product = gradient.double() * state.writes[writer].detach().double()
            scores[writer, reader] = -float(product.sum())
    return scores, loss


def branch_scores(model, text: Text) -> dict[tuple[str, str], float]:
    """Branch-exact score of every edge, by (writer, reader).

    A pass in which the reader reads without the write shows what its branch writes then; the change
    is multiplied with the gradient of the loss at that write in the intact pass. The edges into
    `logits` have the change of the loss itself.
    """
    loss, whole = loss_of(model, text)
    names = [name for name in whole.written if name != "input"]
    gradients = torch.autograd.grad(loss, [whole.written[name] for name in names])
    gradients = dict(zip(names, gradients, strict=True))
    scores = {}
    with torch.no_grad():
        for reader, writers in whole.seen.items():
            for writer in writers:
                cut_loss, cut = loss_of(model, text, (writer, reader))
                if reader == "logits":
                    scores[writer, reader] = float(cut_loss.double() - loss.double())
                    continue
                branch = reader.split("<")[0]
                change = cut.writes[branch].double() - whole.writes[branch].double()
                scores[writer, reader] = float((change * gradients[branch].double()).sum())
    return scores
