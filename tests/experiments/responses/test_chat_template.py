"""A chat template that is no help is one line, soon, in any thread; a good one gives transformers' own
text."""

import threading
import time

import pytest
from byte_tokenizer import CHATML
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from experiments.errors import InputError
from experiments.responses import chat_template
from experiments.responses.chat_template import render_messages

ASKED = [{"role": "user", "content": "1 + 1?"}]
LLAMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% else %}{% set loop_messages = messages %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('order') }}"
    "{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}{% else %}"
    "{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
NEWER = (
    "{%- set ns = namespace(last='') %}{%- for m in messages %}{%- set ns.last = m.role %}"
    "{{- m.content | tojson }}{%- generation %}{{ ns.last }}{%- endgeneration %}"
    "{%- if loop.last %}{%- break %}{%- endif %}{%- endfor %}"
    "{{ dict(a=1).a }}{{ strftime_now('%Y') }}{{ tools is none }}{{ '<' }}"
)


def tokenizer_of(template):
    backend = Tokenizer(WordLevel({"[unk]": 0, "<s>": 1, "</s>": 2}, unk_token="[unk]"))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=template, bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "[unk]"},
    )  # fmt: skip


def talk(rounds: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [
        {
            "role": roles[place % 2],
            "content": f"  Ünï {place} \n\"quoted\" <b>'&' {{{{x}}}} \ud83d ",
        }
        for place in range(2 * rounds - 1)
    ]


@pytest.mark.parametrize("template", [CHATML, LLAMA, NEWER, {"default": CHATML, "rag": LLAMA}])
@pytest.mark.parametrize("messages", [ASKED, talk(3)], ids=["one", "several"])
def test_the_text_is_transformers_own(template, messages):
    tokenizer = tokenizer_of(template)
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert render_messages(tokenizer, messages) == expected


def test_a_long_honest_talk_is_rendered():
    """A million characters in 4,001 messages, through a template with nested loops."""
    numbers = "{% for n in range(20) %}{{ n }}{% endfor %}"
    template = f"{{% for m in messages %}}{numbers}{{{{ m.content }}}}{{% endfor %}}"
    messages = [{"role": "user", "content": "x" * 250} for _ in range(4001)]
    found = render_messages(tokenizer_of(template), messages)
    assert found == ("".join(map(str, range(20))) + "x" * 250) * 4001


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "no chat template"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ raise_exception('no user') }}", "no user"),
        ("{{ messages[3]['content'] }}", "UndefinedError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{# nothing #}", "gives text"),
        ({"rag": CHATML}, "the chat template fails: .*default"),
        ("{% for i in range(1000000000) %}{% endfor %}", "OverflowError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        # Texts and numbers that no memory holds.
        ("{{ 'x' * 10**10 }}", "MemoryError"),
        ("{{ '%10000000000d' % 1 }}", "MemoryError"),
        ("{{ 'x' | center(10**10) }}", "MemoryError"),
        ("{{ '{:>9999999999}'.format(1) }}", "MemoryError"),
        ("{{ ([0] * 10**10) | length }}", "MemoryError"),
        ("{% set s = namespace(t='x') %}{% for i in range(40) %}{% set s.t = s.t + s.t %}{% endfor %}",
         "MemoryError"),
        ("{{ 'x' * (3 * 10**7) }}", "it writes 30,000,000 characters"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
    ],
)  # fmt: skip
def test_a_broken_template_is_one_line(template, words):
    with pytest.raises(InputError, match=words) as error:
        render_messages(tokenizer_of(template), ASKED)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


ENDLESS = {
    "loops": "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "one step": "{{ 7 ** (7 ** 11) }}",
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("thread", [False, True], ids=["main", "another"])
def test_a_template_without_end_is_stopped_in_any_thread(monkeypatch, name, thread):
    monkeypatch.setattr(chat_template, "_PATIENCE", 0.2)
    said = []

    def render():
        with pytest.raises(InputError, match=r"no end after 0\.2 s") as error:
            render_messages(tokenizer_of(ENDLESS[name]), ASKED)
        said.append(str(error.value))

    begin = time.process_time()
    if thread:
        other = threading.Thread(target=render)
        other.start()
        other.join(60)
    else:
        render()
    assert len(said) == 1
    assert "--prompt gives a text with {question} instead" in said[0]
    assert time.process_time() - begin < 2
    assert render_messages(tokenizer_of(CHATML), ASKED).endswith("assistant\n"), (
        "the next is answered"
    )


def test_threads_get_their_own_texts():
    tokenizer, found = tokenizer_of(CHATML), {}

    def render(number):
        asked = [{"role": "user", "content": f"{number}?"}]
        found[number] = render_messages(tokenizer, asked)

    threads = [threading.Thread(target=render, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == list(range(8))
    assert all(f"user\n{number}?<" in text for number, text in found.items())
