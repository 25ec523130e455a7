"""Messages in a tokenizer's chat template, which is a program that came with the model.

It runs in a process of its own (`template_process`), which ends when it computes for too long or takes
too much memory; so any thread may ask, and one huge text harms nobody.
"""

from experiments import child_python
from experiments.errors import InputError
from experiments.study.pairs import CHAT

# Seconds that a template may compute; a usual one takes less than a millisecond.
_PATIENCE = 5.0
_RENDERER = child_python.Worker("experiments.responses.template_process", "renders chat templates")


def render_messages(tokenizer, messages: list[dict[str, str]]) -> str:
    """Chat messages as the tokenizer's template writes them, up to where the answer begins. Any thread
    may call it.

    Raises:
      InputError: there is no template, or it is broken, refuses them, does not end or takes all memory.
      RuntimeError: the process that renders does not start.
    """
    if tokenizer.chat_template is None:
        raise InputError(f"prompt {CHAT}: the tokenizer has no chat template")
    try:
        question = {
            "template": tokenizer.get_chat_template(),
            "messages": messages,
            "special_tokens": {
                name: list(map(str, token)) if isinstance(token, list | tuple) else str(token)
                for name, token in tokenizer.special_tokens_map.items()
            },
            "seconds": _PATIENCE,
        }
        found = _RENDERER.ask(question)
    except child_python.WorkerEnded as ended:
        found = {"error": f"no end after {_PATIENCE:g} s"}
        if ended.in_time:
            found = {"error": "it takes all memory, or calls itself too deeply"}
    # Several templates of which none is the default one.
    except ValueError as error:
        found = {"error": " ".join(str(error).split())[:160]}
    if "error" in found:
        raise InputError(
            f"prompt {CHAT}: {tokenizer.name_or_path}: the chat template fails: {found['error']}; "
            "--prompt gives a text with {question} instead"
        )
    if not found["text"].strip():
        raise InputError(
            f"prompt {CHAT}: {tokenizer.name_or_path}: expected a chat template that gives text, "
            f"found {found['text'][:60]!r}; --prompt gives a text with {{question}} instead"
        )
    return found["text"]
