"""A chat template that is no help is one line, soon; a good one gives transformers' own text."""

import time

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from experiments.errors import InputError
from experiments.responses import chat_template
from experiments.responses.chat_template import render_messages

ASKED = [{"role": "user", "content": "1 + 1?"}]


def tokenizer_of(template):
    backend = Tokenizer(WordLevel({"[unk]": 0}, unk_token="[unk]"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template)


def test_a_template_is_filled_in():
    template = "<u>{{ messages[0]['content'] }}</u>{% if add_generation_prompt %}<a>{% endif %}"
    assert render_messages(tokenizer_of(template), ASKED) == "<u>1 + 1?</u><a>"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "no chat template"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ raise_exception('no user') }}", "no user"),
        ("{{ messages[3]['content'] }}", "UndefinedError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{# nothing #}", "gives text"),
    ],
)
def test_a_broken_template_is_one_line(template, words):
    with pytest.raises(InputError, match=words) as error:
        render_messages(tokenizer_of(template), ASKED)
    assert "\n" not in str(error.value)


def test_a_template_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(chat_template, "_PATIENCE", 0.2)
    loops = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    begin = time.perf_counter()
    with pytest.raises(InputError, match="no end after"):
        render_messages(tokenizer_of(loops), ASKED)
    assert time.perf_counter() - begin < 5
