"""Which question an answer belongs to: by its text, by the prompt that ends with it, or by its number.

The place in a file is never taken: programs sort, leave out and repeat.
"""

import re
import unicodedata

from experiments.responses.questions import Question

# Questions are looked up by so many first characters of theirs.
_HEAD = 24


def normal(text: str) -> str:
    """A text for comparing: runs of white space are one blank."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class QuestionIndex:
    """Questions by text, by prompts that hold them, and by number.

    Args:
      questions: all of a file.
      names: what each row of that file calls itself, or None.
    """

    def __init__(self, questions: list[Question], names: list[int | str | None]):
        self._questions = questions
        self._by_text: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            self._by_text.setdefault(normal(question.question), []).append(place)
        self._names = [str(q.idx if name is None else name) for q, name in zip(
            questions, names, strict=True
        )]  # fmt: skip
        self._by_name: dict[str, int | None] = {}
        for place, name in enumerate(self._names):  # a name of two questions names none
            self._by_name[name] = None if name in self._by_name else place
        self._heads: dict[str, list[str]] = {}
        for text in self._by_text:
            self._heads.setdefault(text[:_HEAD], []).append(text)
        self._lengths = sorted({len(head) for head in self._heads})

    def by_text(self, text: str, name: int | str | None = None) -> Question | None:
        """The question with this text; of several, the one with this name, or the first where all
        have one answer."""
        places = self._by_text.get(normal(text), [])
        named = [place for place in places if name is not None and self._names[place] == str(name)]
        if not named and len({self._questions[place].answer for place in places}) > 1:
            return None
        found = named or places
        return self._questions[found[0]] if found else None

    def in_prompt(self, prompt: str, name: int | str | None = None) -> Question | None:
        """The question that a prompt asks: the last one in it, examples stand before."""
        text = normal(prompt)
        best = (0, 0, "")
        for length in self._lengths:
            for begin in range(len(text) - length + 1):
                for asked in self._heads.get(text[begin : begin + length], ()):
                    end = begin + len(asked)
                    if text.startswith(asked, begin) and _whole(text, begin, end):
                        best = max(best, (end, len(asked), asked))
        return self.by_text(best[2], name) if best[2] else None

    def by_name(self, name: int | str) -> Question | None:
        """The question of this number or name; of `request-17` the number is 17."""
        place = self._by_name.get(str(name))
        if place is None and (numbered := re.fullmatch(r".*\D[-_:/#.]?0*(\d+)", str(name))):
            place = self._by_name.get(numbered[1])
        return None if place is None else self._questions[place]


def _whole(text: str, begin: int, end: int) -> bool:
    """Whether a question stands by itself: `3 + 4?` is not asked in `13 + 4?`."""
    before, after = text[begin - 1 : begin], text[end : end + 1]
    return not (
        (before.isalnum() and text[begin].isalnum())
        or (after.isalnum() and text[end - 1].isalnum())
    )
