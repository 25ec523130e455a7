"""What two models' ids are, said before any work: lengths, tokens, templates, rules of cutting."""

import json
import shutil
import types
from pathlib import Path

import pytest

from eap_jax.config import ModelConfig
from experiments.errors import InputError
from experiments.responses.shared_ids import SharedIds, compare_ids
from experiments.responses.tokenization import load_tokenizer
from experiments.study.pairs import CHAT, PAIRS

START = Path(PAIRS["tiny_grpo"].base)
KNOWN = len(json.loads((START / "tokenizer.json").read_text())["model"]["vocab"])


def folders(tmp_path):
    """Two folders with the tiny family's tokenizer and no weights."""
    for side in ("base", "rl"):
        (tmp_path / side).mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(START / name, tmp_path / side / name)
    return tmp_path / "base", tmp_path / "rl"


def compared(base, rl, sizes=(KNOWN, KNOWN), prompt="{question}"):
    """What is found and said of a pair with these folders and embeddings."""
    config = {"num_layers": 1, "d_model": 4, "d_ff": 4, "num_heads": 1, "num_kv_heads": 1,
              "head_dim": 4, "norm_eps": 1e-6, "rope_theta": 1e4}  # fmt: skip
    configs = [ModelConfig(vocab_size=size, **config) for size in sizes]
    opened = types.SimpleNamespace(
        checkpoints={"base": base, "rl": rl},
        configs=dict(zip(("base", "rl"), configs, strict=True)),
        study=types.SimpleNamespace(pair=types.SimpleNamespace(prompt=prompt)),
    )
    said = []
    return compare_ids(opened, said.append), said


def edit(folder, name, change):
    path = folder / name
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def add_tokens(folder, *words):
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(list(words), special_tokens=True)
    tokenizer.save_pretrained(folder)


def test_one_tokenizer_and_embedding_need_no_word(tmp_path):
    base, rl = folders(tmp_path)
    edit(rl, "tokenizer.json", lambda data: data.update(version="1.0"))
    assert compared(base, rl)[1] == []


def test_an_added_token_and_a_longer_embedding_are_counted(tmp_path):
    base, rl = folders(tmp_path)
    add_tokens(rl, "<think>", "</think>")
    ids, said = compared(base, rl, sizes=(KNOWN, KNOWN + 4))
    assert said == [
        f"warning: the embeddings differ in length: rl has {KNOWN + 4} ids, base {KNOWN}; the 4 from "
        f"{KNOWN} on are rl's alone, and no counted text may use them"
    ]
    ids.check([0, KNOWN - 1], "rl", "row 1", "advice")
    ids.check([KNOWN], "base", "row 1", "advice")
    with pytest.raises(InputError) as error:
        ids.check([5, KNOWN], "rl", "row 1", "leave it out")
    assert str(error.value) == (
        f"row 1: expected ids that both models have, found {KNOWN} ('<think>'), which is rl's alone: "
        f"base's embedding has {KNOWN} ids; leave it out"
    )


def test_a_token_that_one_tokenizer_names_inside_both_embeddings_is_said_and_may_count(tmp_path):
    base, rl = folders(tmp_path)
    add_tokens(rl, "<think>")
    ids, said = compared(base, rl, sizes=(KNOWN + 4, KNOWN + 4))
    assert said == [
        "warning: the two tokenizers differ: 1 ids have a token in rl only: the first is "
        f"{KNOWN}, '<think>'"
    ]
    ids.check([KNOWN], "rl", "row", "")


def test_ordinary_ids_that_are_other_words_are_said_and_may_not_count(tmp_path):
    base, rl = folders(tmp_path)
    words = {id: word for word, id in load_tokenizer(base).get_vocab().items()}

    def exchange(data):
        vocab = data["model"]["vocab"]
        vocab[words[7]], vocab[words[9]] = 9, 7

    edit(rl, "tokenizer.json", exchange)
    ids, said = compared(base, rl)
    assert said == [
        f"warning: the two tokenizers differ: 2 of {KNOWN} shared ids are other tokens: the first is "
        f"7, {words[7]!r} in base and {words[9]!r} in rl"
    ]
    ids.check([6, 8], "base", "row 1", "")
    for side, mine, theirs in (("base", 9, 7), ("rl", 7, 9)):
        with pytest.raises(InputError, match="row 1: expected ids that mean the same") as error:
            ids.check([6, 9], side, "row 1", "")
        (other,) = {"base", "rl"} - {side}
        assert (
            f"found 9, which is {words[mine]!r} in {side} and {words[theirs]!r} in {other}"
            in str(error.value)
        )


def test_a_renamed_special_token_is_said_and_may_count():
    words = {"base": {0: "a", 1: "<|im_start|>"}, "rl": {0: "a", 1: "<User>"}}
    ids = SharedIds(sizes={"base": 2, "rl": 2}, words=words, added=frozenset({1}))
    assert ids.renamed() == [1]
    ids.check([0, 1], "base", "row", "")


@pytest.mark.parametrize(("prompt", "unused"), [(CHAT, False), ("{question}", True)])
def test_another_template_is_said(tmp_path, prompt, unused):
    base, rl = folders(tmp_path)
    (rl / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    (line,) = compared(base, rl, prompt=prompt)[1]
    assert "their chat templates are not the same" in line
    assert line.endswith("which this study's prompt does not use") == unused


def test_other_rules_of_cutting_are_said(tmp_path):
    base, rl = folders(tmp_path)
    edit(rl, "tokenizer.json", lambda data: data.update(normalizer={"type": "Lowercase"}))
    (line,) = compared(base, rl)[1]
    assert "they have the same tokens, but cut texts into them by other rules" in line


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_without_both_tokenizers_only_a_difference_in_length_is_said(tmp_path, damage):
    base, rl = folders(tmp_path)
    if damage == "broken":
        (rl / "tokenizer.json").write_text("{")
    else:
        for path in rl.iterdir():
            path.unlink()
    assert compared(base, rl)[1] == []
    (line,) = compared(base, rl, sizes=(KNOWN + 1, KNOWN))[1]
    assert "base has" in line
    assert line.endswith("without both tokenizers nothing says whether the others mean the same")
