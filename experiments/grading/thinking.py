"""A response without its thinking, which is never searched for an answer."""

import re

_NAMES = "think|thinking|thought|reasoning|scratchpad"
_MARK = re.compile(
    rf"(?P<open><(?:{_NAMES})>|<\|begin_of_thought\|>|\[THINK\])"
    rf"|</(?:{_NAMES})>|<\|end_of_thought\|>|\[/THINK\]",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"<answer>|<\|begin_of_solution\|>|(?P<end></answer>|<\|end_of_solution\|>)", re.IGNORECASE
)


def without_thinking(text: str) -> str:
    """What follows the thinking of a response.

    A block may be opened by the prompt (then the response holds only its end), or never be closed
    (then nothing after its start is an answer). Where the rest marks its answer by `<answer>`, only
    that is kept.
    """
    kept, start = [], 0
    for mark in _MARK.finditer(text):
        if mark.group("open"):
            if start is not None:
                kept.append(text[start : mark.start()])
            start = None
        else:
            if start is not None:  # Opened by the prompt: all so far was thinking.
                kept.clear()
            start = mark.end()
    if start is not None:
        kept.append(text[start:])
    return _marked("\n".join(kept))


def _marked(text: str) -> str:
    start, found = None, None
    for mark in _ANSWER.finditer(text):
        if not mark.group("end"):
            start = mark.end()
        elif start is not None:
            found, start = text[start : mark.start()], None
    return text if found is None or not found.strip() else found
