"""The tiny family's tokenizer: one token a word or digit, saved in Hugging Face format.

A word carries the space before it and, when a number follows, the space after it, so digits are
always the same ten tokens and decoding restores the text exactly.
"""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from experiments.arithmetic import problems

PAD, UNKNOWN, STOP = "<pad>", "<unk>", "</s>"
SPECIAL = (PAD, UNKNOWN, STOP)
_PIECES = r" [+*/=-] |\\boxed\{|\}\.?|\d|[A-Z][a-z]+:| ?[A-Za-z]+(?: (?=\d))?|\.|\?|\n| "


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of every tiny model; token ids do not depend on anything but the task."""
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    pieces = {
        piece for text in problems.vocabulary_texts() for piece, _ in split.pre_tokenize_str(text)
    }
    vocabulary = {piece: number for number, piece in enumerate((*SPECIAL, *sorted(pieces)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=STOP,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(directory: Path) -> None:
    """Write the tokenizer's files into a checkpoint directory."""
    build_tokenizer().save_pretrained(directory)
