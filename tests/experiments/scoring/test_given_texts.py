"""What a user gives in Python has the ids of prompt and answer together, cut at the prompt."""

import dataclasses

import pytest
import toys
from metaspace_tokenizer import ANSWERS, FIRST, PROMPTS, metaspace

from experiments.errors import InputError
from experiments.scoring.given_texts import given_prompts, given_texts

CONFIG = dataclasses.replace(toys.ZOO["multi-head"].config, vocab_size=300)


@pytest.mark.parametrize("prompts", ["texts", "ids"])
@pytest.mark.parametrize("scheme", ["always", "first"])
def test_an_answer_has_the_ids_that_it_has_behind_its_prompt(scheme, prompts):
    tokenizer = metaspace("unigram", scheme)
    found, together, alone = {}, 0, 0
    pairs = [(prompt, answer) for prompt in PROMPTS for answer in ANSWERS]
    given = [
        (tokenizer(prompt)["input_ids"] if prompts == "ids" else prompt, answer)
        for prompt, answer in pairs
    ]
    found = given_texts(given, tokenizer=lambda: tokenizer, config=CONFIG)
    for (prompt, answer), text in zip(pairs, found, strict=True):
        first = tokenizer(prompt)["input_ids"]
        assert list(text.tokens[: len(first)]) == first
        assert text.tokens[len(first) :] == text.targets[:-1]
        whole = tokenizer(prompt + answer)["input_ids"]
        if whole[: len(first)] == first:
            together += 1
            assert first + list(text.targets) == whole
        alone += list(text.targets) != tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert together >= 300
    assert alone > 0, "tokenised alone, some would have another first token"


def test_a_first_token_that_the_text_has_is_not_added_again():
    tokenizer = metaspace("bpe", "first")
    plain, marked = given_prompts(
        [PROMPTS[0], "<s>" + PROMPTS[0]], tokenizer=lambda: tokenizer, config=CONFIG
    )
    assert plain.count(FIRST) == marked.count(FIRST) == 1


def test_ids_need_no_tokenizer_and_are_kept():
    (text,) = given_texts([([5, 6], [7, 8, 9])], tokenizer=pytest.fail, config=CONFIG)
    assert text.tokens == (5, 6, 7, 8)
    assert text.targets == (7, 8, 9)


def test_an_answer_that_the_tokenizer_does_not_know_is_one_line():
    tokenizer = metaspace("bpe", "first")
    texts = [(PROMPTS[0], ANSWERS[0]), (PROMPTS[0], " \N{CJK UNIFIED IDEOGRAPH-6F22} 3")]
    with pytest.raises(InputError, match="text 1: the answer's tokens do not give its text back"):
        given_texts(texts, tokenizer=lambda: tokenizer, config=CONFIG)
