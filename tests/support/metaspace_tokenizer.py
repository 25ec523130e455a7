"""Tokenizers of the sentencepiece kind, trained here on a few prompts and answers."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

NOUNS = ("apples", "pens", "coins", "Äpfel", "books")
PROMPTS = [
    form.format(number, noun)
    for number, noun in enumerate(NOUNS, start=3)
    for form in (
        "Question: Tom has {} {}. How many?\nAnswer:",
        "[INST] Ann loses {} {} [/INST]",
        "User: {} {}?\n\nAssistant:",
        "Q: {} {}? A: The answer is",
    )
]
ANSWERS = [
    text.format(number)
    for number in range(2, 6)
    for text in (" {0} + 4 = 7.\n#### {0}", "{0} apples", "\n{0}", " So it is {0}.", "$x={0}$ or é")
]
assert len(PROMPTS) == len(ANSWERS) == 20
FIRST, LAST = 1, 2


def metaspace(model: str, scheme: str) -> PreTrainedTokenizerFast:
    """A tokenizer of the sentencepiece kind, with `<s>` first."""
    special = ["<unk>", "<s>", "</s>"]
    built = Tokenizer(models.Unigram() if model == "unigram" else models.BPE(unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    built.decoder = decoders.Metaspace(prepend_scheme=scheme)
    common = {"vocab_size": 200, "special_tokens": special, "show_progress": False}
    trainer = (
        trainers.UnigramTrainer(unk_token="<unk>", **common)
        if model == "unigram"
        else trainers.BpeTrainer(**common)
    )
    built.train_from_iterator([*PROMPTS, *ANSWERS, "0123456789"], trainer)
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", FIRST)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=built, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
