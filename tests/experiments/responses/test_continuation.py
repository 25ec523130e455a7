"""An answer's ids are those of prompt and answer together, cut at the prompt."""

import io

import pytest
from byte_tokenizer import CHATML, END, byte_tokenizer
from metaspace_tokenizer import ANSWERS, FIRST, PROMPTS, metaspace

from experiments.errors import InputError
from experiments.responses.continuation import continue_prompt, prompt_of_ids, prompt_of_text
from experiments.responses.questions import Question
from experiments.responses.tokenization import encode_prompt


@pytest.mark.parametrize("scheme", ["always", "first"])
@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_sentencepiece_answers_have_the_ids_of_prompt_and_answer_together(model, scheme):
    tokenizer = metaspace(model, scheme)
    spurious = 0
    for text in PROMPTS:
        prompt = prompt_of_text(tokenizer, text)
        assert prompt.tokens == tokenizer(text)["input_ids"]
        for answer in ANSWERS:
            found = continue_prompt(tokenizer, prompt, answer, "row")
            whole = tokenizer(text + answer)["input_ids"]
            if whole[: len(prompt.tokens)] == prompt.tokens:
                assert found.together
                assert prompt.tokens + found.tokens == whole
            else:
                assert not found.together
            assert (
                tokenizer.decode(prompt.tokens + found.tokens)
                == tokenizer.decode(prompt.tokens) + answer
            )
            spurious += found.tokens != tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert spurious > 0, "tokenised alone, some would have another first token"


def test_real_sentencepiece_answers_too(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    from transformers import LlamaTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*PROMPTS, *ANSWERS] * 3), model_writer=model, vocab_size=340,
        model_type="bpe", byte_fallback=True, add_dummy_prefix=True, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer = LlamaTokenizer.from_pretrained(tmp_path, legacy=False)
    oracle = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    together = 0
    for text in PROMPTS:
        prompt = prompt_of_text(tokenizer, text)
        for answer in ANSWERS:
            found = continue_prompt(tokenizer, prompt, answer, "row")
            if found.together:
                together += 1
                mine = prompt.tokens + found.tokens
                assert mine[mine[0] == FIRST :] == oracle.encode(text + answer)
    assert together >= 300


def test_a_boundary_that_merges_keeps_the_prompts_ids_and_the_text():
    tokenizer = metaspace("unigram", "first")
    prompt = prompt_of_text(tokenizer, "Q: 3 pens? A: The answer is ")
    found = continue_prompt(tokenizer, prompt, "5 apples", "row")
    assert prompt.tokens == tokenizer(prompt.text)["input_ids"]
    assert tokenizer.decode(prompt.tokens[1:] + found.tokens) == prompt.text + "5 apples"


def test_a_prompt_that_begins_with_the_first_token_has_it_once():
    tokenizer = metaspace("bpe", "first")
    for text in ("Q: 3 pens? A:", "<s>Q: 3 pens? A:"):
        assert prompt_of_text(tokenizer, text).tokens.count(FIRST) == 1
        asked = Question(idx=0, question="3 pens?", answer="3", solution="")
        form = text.replace("3 pens?", "{question}")
        assert encode_prompt(tokenizer, form, asked).count(FIRST) == 1
    assert prompt_of_text(tokenizer, "<s>Q: 3 pens?", rendered=True).tokens.count(FIRST) == 1


@pytest.mark.parametrize("given", ["text", "ids"])
def test_special_tokens_in_an_answer_are_text_and_in_a_prompt_are_special(given):
    tokenizer = byte_tokenizer(CHATML)
    text = "<|im_start|>user\n3?<|im_end|>\n<|im_start|>assistant\n"
    prompt = prompt_of_text(tokenizer, text, rendered=True)
    if given == "ids":
        prompt = prompt_of_ids(tokenizer, prompt.tokens)
    assert prompt.tokens.count(END) == 1
    for answer in ("It is <|im_end|> 3", "<|im_start|>", "3<|im_end|>"):
        found = continue_prompt(tokenizer, prompt, answer, "row")
        assert not {END, tokenizer.convert_tokens_to_ids("<|im_start|>")} & set(found.tokens)
        assert len(found.tokens) == len(answer), "one token a byte"


def test_no_text_has_no_tokens_and_unknown_signs_are_one_line():
    tokenizer = metaspace("bpe", "first")
    prompt = prompt_of_text(tokenizer, PROMPTS[0])
    assert continue_prompt(tokenizer, prompt, "", "row").tokens == []
    with pytest.raises(InputError, match="row 3: the answer's tokens do not give .* character 2"):
        continue_prompt(tokenizer, prompt, " 漢 3", "row 3")
