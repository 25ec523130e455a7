"""Prompts that differ are said before any work; such as cannot count are refused there."""

import types
from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer

from experiments.errors import InputError
from experiments.responses import both_prompts
from experiments.responses.both_prompts import check_prompts, say_prompts
from experiments.responses.questions import Question
from experiments.responses.shared_ids import SharedIds
from experiments.study.pairs import CHAT

QUESTIONS = [Question(idx=idx, question=f"{idx}?", answer="1", solution="") for idx in (4, 5)]
TEMPLATE = "{{ messages[0]['content'] }}"


def said_of(prompts, tokenizers=None) -> list[str]:
    said = []
    say_prompts("math", prompts, said.append, tokenizers)
    return said


def checked(monkeypatch, base: str, rl: str, sizes=(300, 300)) -> list[str]:
    """What is said of two tokenizers with these templates."""
    tokenizers = {"base": byte_tokenizer(base), "rl": byte_tokenizer(rl)}
    monkeypatch.setattr(both_prompts, "load_tokenizer", lambda path: tokenizers[path.name])
    opened = types.SimpleNamespace(
        study=types.SimpleNamespace(pair=types.SimpleNamespace(prompt=CHAT)),
        checkpoints={side: Path(side) for side in tokenizers},
        configs={side: types.SimpleNamespace(vocab_size=300) for side in tokenizers},
    )
    said = []
    ids = SharedIds(sizes=dict(zip(tokenizers, sizes, strict=True)))
    check_prompts(opened, "math", QUESTIONS, ids, said.append)
    return said


def test_the_first_difference_and_what_is_not_counted_are_said():
    prompts = [(1, [5, 6], (5, 6)), (2, [5, 6], [5, 7]), ("x", [5], [5, 6]), (4, [1], [2])]
    assert said_of(prompts) == [
        "math: warning: 3 of 4 prompts become other token ids in rl than in base: the first is question "
        "2, token 2: 6 in base and 7 in rl; 1 differ in their number of tokens and are not counted, as "
        "the published rule says; each model reads its own prompt, so a change may be the prompt's"
    ]
    assert said_of(prompts[:1]) == []
    (line,) = said_of(prompts[2:3])
    assert "question x, token 2: nothing in base and 6 in rl" in line


def test_templates_that_make_other_prompts_show_the_words(monkeypatch):
    (line,) = checked(monkeypatch, TEMPLATE + "A", TEMPLATE + "B")
    assert "2 of 2 prompts become other token ids" in line
    assert "the first is question 4, token 3: " in line
    assert "('A') in base and " in line
    assert "('B') in rl; each model reads its own prompt" in line
    assert checked(monkeypatch, TEMPLATE, TEMPLATE) == []


def test_prompts_of_which_none_can_count_are_refused(monkeypatch):
    with pytest.raises(InputError, match="same number of tokens on both sides.*found none among 2"):
        checked(monkeypatch, TEMPLATE, TEMPLATE + "B")


def test_a_prompt_with_an_id_of_one_side_is_refused(monkeypatch):
    with pytest.raises(InputError) as error:
        checked(monkeypatch, TEMPLATE, TEMPLATE, sizes=(300, 5))
    assert str(error.value).startswith("math: question 4: base's prompt: expected ids that both")
    assert "base's alone: rl's embedding has 5 ids; give a --prompt without it" in str(error.value)
