"""Renders chat templates, which are programs that came with a model, in a process of its own.

As a program it answers questions of `experiments.responses.chat_template`, one JSON object a line.
"""

from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from experiments.child_python import answer_questions

_MEMORY_BYTES = 2**30
# Characters that a template may add to its messages; the longest known ones add some thousands.
_MOST_ADDED = 2**24


def render(question: dict[str, Any]) -> dict[str, str]:
    """Messages as a template writes them, up to where the answer begins.

    Args:
      question: template; messages; special_tokens by name.

    Returns:
      text, or error: what the template raised, as one line.
    """
    try:
        (text,), _ = render_jinja_template(
            conversations=[question["messages"]],
            chat_template=question["template"],
            add_generation_prompt=True,
            **question["special_tokens"],
        )
    # Whatever the template's own words raise: errors of jinja, of types, of memory.
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}"[:500].split())[:160]}
    most = _MOST_ADDED + 4 * sum(len(str(message)) for message in question["messages"])
    if len(text) > most:
        return {"error": f"it writes {len(text):,} characters"}
    return {"text": text}


def main() -> None:
    """Answer every line {"template", "messages", "special_tokens", "seconds"}."""
    answer_questions(render, memory=_MEMORY_BYTES, computing=True)


if __name__ == "__main__":
    main()
