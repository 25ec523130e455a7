"""What lies beside the weights when a GGUF file becomes a folder: config, tokenizer and stop tokens."""

import json
from pathlib import Path

from converters.gguf_config import config_of, token_ids
from converters.gguf_header import read_header
from converters.gguf_tokenizer import build_tokenizer


def write_companions(path: str | Path, folder: Path, dtype: str) -> None:
    """Write every small file of a Hugging Face folder.

    Args:
      path: the GGUF file.
      folder: where.
      dtype: of the weights that will lie there.

    Raises:
      CheckpointError: the file is broken, or its tokenizer is of a kind that is not known.
    """
    file = read_header(path)
    tokenizer = build_tokenizer(file)
    for name, data in (
        ("config.json", config_of(file) | {"torch_dtype": dtype}),
        ("generation_config.json", token_ids(file)),
    ):
        (folder / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
