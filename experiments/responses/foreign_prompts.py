"""What a model read before another program's answer."""

from collections import Counter

from experiments.errors import InputError
from experiments.responses.chat_template import render_messages
from experiments.responses.continuation import Prompt, prompt_of_ids, prompt_of_text
from experiments.responses.foreign_rows import ForeignRow
from experiments.responses.questions import Question
from experiments.responses.tokenization import encode_prompt, prompt_text
from experiments.study.pairs import CHAT

_MARK = "QUESTION-STANDS-HERE"


class Prompts:
    """Prompts of a file's rows.

    Args:
      tokenizer: of the model.
      prompt: the study's prompt, for rows that hold only a question.
      lost: the rows' prompts were written without their special tokens.
      notes: counts of what a user should know.
    """

    def __init__(self, tokenizer, prompt: str, *, lost: bool, notes: Counter):
        self.tokenizer = tokenizer
        self._prompt = prompt
        self._lost = lost
        self._notes = notes
        self._frames = self._known_frames()

    def of(self, row: ForeignRow, question: str | None, label: str) -> Prompt:
        """A row's prompt: its ids, its text or messages, or the study's prompt around its question.

        Raises:
          InputError: there is none of these, or the tokenizer cannot write it.
        """
        given = row.prompt
        if row.prompt_ids is not None:
            text = given if isinstance(given, str) else None
            return prompt_of_ids(self.tokenizer, row.prompt_ids, text)
        if isinstance(given, list):
            return self._of_messages(given, label)
        if given is not None:
            return self._of_text(given, label)
        if not question:
            raise InputError(
                f"{label}: expected a prompt or a question, found neither; pass the "
                "questions by --questions, which joins answers by their number"
            )
        return self._asked(question)

    def question_in(self, text: str) -> str | None:
        """The question that a prompt asks, where the prompt is this study's or the chat template's."""
        for name, begin, end in self._frames:
            for one, other in ((begin, end), (self._bare(begin), self._bare(end))):
                inside = _between(text, one, other)
                if inside and text in (shown := self._asked_as(name, inside), self._bare(shown)):
                    return inside
        return None

    def _of_text(self, text: str, label: str) -> Prompt:
        if self._lost:
            for name, begin, end in self._frames:
                inside = _between(text, self._bare(begin), self._bare(end))
                if inside and self._bare(rendered := self._asked_as(name, inside)) == text:
                    return prompt_of_text(self.tokenizer, rendered, rendered=name == CHAT)
            self._notes[
                "prompts were written without special tokens and fit neither --prompt nor the chat "
                "template: they are tokenised as they are written"
            ] += 1
        read = prompt_of_text(self.tokenizer, text)
        if not read.tokens:
            raise InputError(f"{label}: prompt: expected text, found none")
        return read

    def _of_messages(self, messages: list[dict[str, str]], label: str) -> Prompt:
        if self.tokenizer.chat_template is not None:
            text = render_messages(self.tokenizer, messages)
            return prompt_of_text(self.tokenizer, text, rendered=True)
        if [turn["role"] for turn in messages] == ["user"] and self._prompt != CHAT:
            self._notes[
                "prompts are chat messages and the tokenizer has no chat template: --prompt is put "
                "around their text"
            ] += 1
            return self._asked(messages[0]["content"])
        raise InputError(
            f"{label}: prompt: expected a tokenizer with a chat template for its {len(messages)} "
            "messages, found none; give prompts as text"
        )

    def _asked(self, question: str) -> Prompt:
        asked = Question(idx=0, question=question, answer="", solution="")
        tokens = encode_prompt(self.tokenizer, self._prompt, asked)
        return prompt_of_ids(
            self.tokenizer, tokens, prompt_text(self.tokenizer, self._prompt, question)
        )

    def _known_frames(self) -> list[tuple[str, str, str]]:
        """(prompt setting, text before the question, text after it)."""
        frames = []
        for name in dict.fromkeys((self._prompt, CHAT)):
            if name == CHAT and self.tokenizer.chat_template is None:
                continue
            parts = self._asked_as(name, _MARK).split(_MARK)
            if len(parts) == 2:
                frames.append((name, *parts))
        return frames

    def _asked_as(self, name: str, question: str) -> str:
        return prompt_text(self.tokenizer, name, question)

    def _bare(self, text: str) -> str:
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(str(token), "")
        return text


def _between(text: str, begin: str, end: str) -> str | None:
    """What stands once between two texts; None where examples stand before it."""
    inside = text[len(begin) : len(text) - len(end)]
    if not (begin or end) or text != begin + inside + end or not inside.strip():
        return None
    again = (part.strip() for part in (begin, end))
    return None if any(part and part in inside for part in again) else inside
